plugins {
    id("com.android.application")
    id("com.chaquo.python")
}

val wheels = rootProject.file("cpp/wheels")

android {
    namespace = "app.edgespec.demo"
    compileSdk = 34
    ndkVersion = "28.2.13676358"

    defaultConfig {
        applicationId = "app.edgespec.demo"
        minSdk = 29 // for the thermal status
        targetSdk = 34
        versionCode = 1
        versionName = "0.1"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64")
        }
        externalNativeBuild {
            cmake {
                arguments += listOf("-DANDROID_STL=c++_shared", "-DCMAKE_BUILD_TYPE=Release")
            }
        }
    }
    externalNativeBuild {
        cmake {
            path = rootProject.file("cpp/CMakeLists.txt")
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    packaging {
        jniLibs {
            useLegacyPackaging = true // Python opens the libraries by their paths
        }
    }
}

chaquopy {
    defaultConfig {
        version = "3.13"
        pip {
            // numpy is not on PyPI for Android yet; this build of it loads on 16 KiB pages, too.
            options("--extra-index-url", "https://chaquo.com/pypi-upstream")
            options("--find-links", wheels.path)
            install("numpy==2.3.2")
            install("llama-cpp-python==0.3.36")
            // For the server.
            install("starlette>=1.0")
            install("uvicorn>=0.34")
            install("prometheus_client>=0.20")
        }
    }
    sourceSets {
        getByName("main") {
            // EdgeSpec's own tree, not a copy of it, and the pair of models that comes with it.
            srcDir("../..")
            include("edgespec/**")
            include("models/demo.toml", "models/demo/target.gguf", "models/demo/drafter.gguf")
        }
    }
}

dependencies {
    implementation(project(":bridge"))
    // ONNX models: the C library alone, which EdgeSpec binds itself.
    implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")
}
