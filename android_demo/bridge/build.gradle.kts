plugins {
    `java-library`
}

tasks.withType<JavaCompile>().configureEach {
    options.release = 11
    options.compilerArgs.addAll(listOf("-Xlint:all", "-Werror"))
}
