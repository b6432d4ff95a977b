"""The app as far as it can be built without Android's tools: its Java, resources and manifest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from debian import Debian, libraries
from test_bridge import BRIDGE, ROOT, compiled, needed

pytestmark = pytest.mark.slow
MAIN = ROOT / "android_demo" / "app" / "src" / "main"
STUBS = Path(__file__).parent / "stubs"
FRAMEWORK = "usr/share/android-framework-res/framework-res.apk"
PACKAGE = "app.edgespec.demo"
# What the Android plugin adds, and the one word that Debian's framework (Android 10) does not know.
ADAPTED = (("<manifest ", f'<manifest package="{PACKAGE}" '), ("specialUse", "dataSync"))
SDK = ("--min-sdk-version", "29", "--target-sdk-version", "34", "--version-code", "1",
       "--version-name", "0.1")  # fmt: skip


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The resources' classes, and what `dump badging` says of resources and manifest together."""
    root = Debian().root("aapt2", "aapt", "android-framework-res")
    folder = tmp_path_factory.mktemp("app")

    def aapt2(*words: object) -> str:
        command = [str(root / "usr" / "bin" / "aapt2"), *map(str, words)]
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries(root)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = (MAIN / "AndroidManifest.xml").read_text(encoding="utf-8")
    for before, after in ADAPTED:
        assert text.count(before) == 1
        text = text.replace(before, after)
    (folder / "AndroidManifest.xml").write_text(text, encoding="utf-8")
    compiled_resources, apk = folder / "resources.zip", folder / "resources.apk"
    aapt2("compile", "--dir", MAIN / "res", "-o", compiled_resources)
    aapt2(
        "link", "-I", root / FRAMEWORK, "--manifest", folder / "AndroidManifest.xml",
        "--warn-manifest-validation", *SDK, "--java", folder / "gen", "-o", apk, compiled_resources,
    )  # fmt: skip
    return folder / "gen", aapt2("dump", "badging", apk)


def test_resources_and_manifest_link_and_pass_badging(linked: tuple[Path, str]) -> None:
    badging = linked[1]
    assert f"package: name='{PACKAGE}'" in badging
    assert "sdkVersion:'29'" in badging and "targetSdkVersion:'34'" in badging
    assert f"launchable-activity: name='{PACKAGE}.MainActivity'" in badging
    asked = set(re.findall(r"uses-permission: name='android\.permission\.(\w+)'", badging))
    assert asked == {
        "INTERNET", "FOREGROUND_SERVICE", "FOREGROUND_SERVICE_SPECIAL_USE", "POST_NOTIFICATIONS"
    }  # fmt: skip


def test_the_java_compiles_against_the_classes_it_uses(
    linked: tuple[Path, str], tmp_path: Path
) -> None:
    needed("javac (JDK 17)", shutil.which("javac") is not None)
    bridge = compiled("11", BRIDGE, tmp_path / "bridge")
    stubs = compiled("11", STUBS, tmp_path / "stubs")
    resources = compiled("11", linked[0], tmp_path / "resources")
    compiled("11", MAIN / "java", tmp_path / "app", bridge, stubs, resources)


def test_each_stub_names_where_its_signatures_are_documented() -> None:
    pages = "https://developer.android.com/reference/", "https://chaquo.com/chaquopy/doc/"
    for file in STUBS.rglob("*.java"):
        text = file.read_text(encoding="utf-8")
        types = re.findall(r"^( *)(?:public |final |abstract |static )*(?:class|interface) ", text,
                           re.MULTILINE)  # fmt: skip
        sources = re.findall(r"Source: (\S+)", text)
        assert len(sources) >= len(types) > 0, file.name
        assert all(source.startswith(pages) for source in sources), file.name


def test_the_bridge_needs_nothing_of_android() -> None:
    for file in BRIDGE.rglob("*.java"):
        assert not re.search(r"^import (android|com)\.", file.read_text(), re.MULTILINE), file.name


def test_wheel_library_and_build_file_are_of_one_version() -> None:
    demo = ROOT / "android_demo"
    version = re.search(r'^VERSION = "(.+)"', (demo / "cpp" / "fetch.py").read_text(), re.MULTILINE)
    assert version is not None
    build = (demo / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    assert f'install("llama-cpp-python=={version[1]}")' in build
    readme = (demo / "README.md").read_text(encoding="utf-8")
    assert f"llama_cpp_python-{version[1]}-py3-none-any.whl" in readme
