"""An arm64 Linux to run Python in: a cross compiler, llama.cpp built by it, an emulator, wheels.

All of it lies in the cache folder of the tests; nothing is installed and no root is needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from debian import CACHE, Debian, libraries, said, unanchored

ROOT = Path(__file__).resolve().parents[2]
CPP = ROOT / "android_demo" / "cpp"
CROSS = "aarch64-linux-gnu"
CPU = "cortex-a76"  # has dotprod and half floats, as the library was built for
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64",
             "manylinux2014_aarch64")  # fmt: skip
BUILD_S, RUN_S = 1500, 600


@dataclass(frozen=True)
class Arm64:
    """command: runs a Python program there. llama: folder of libllama.so. onnx: the library."""

    command: tuple[str, ...]
    environment: dict[str, str]
    llama: Path
    onnx: Path

    def run(self, program: str, *words: str) -> str:
        """What a Python program prints."""
        done = subprocess.run(
            [*self.command, "-c", program, *words],
            capture_output=True, text=True, env={**os.environ, **self.environment},
            timeout=RUN_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


def arm64() -> Arm64:
    """All of it, fetched and built on first use: some minutes. Skips where that is not possible."""
    for program in ("cmake", "ninja"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here, which builds llama.cpp")
    debian = Debian()
    emulator = debian.root("emulator", debian.newest("qemu-user"))
    python = Debian("arm64").root("python-arm64", "python3", "libstdc++6")
    (interpreter,) = (python / "usr" / "bin").glob("python3.[0-9]*[0-9]")
    version = interpreter.name.removeprefix("python")
    fetch, archive = fetched()
    site = site_packages(version, CACHE / "wheels", fetch, archive)
    onnx = unzipped(version, "onnxruntime", "--no-deps")
    command = [str(emulator / "usr" / "bin" / "qemu-aarch64"), "-cpu", CPU, "-L", str(python)]
    inner = {
        "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": str(python / "usr" / "lib" / CROSS),
    }
    command += [word for name, text in inner.items() for word in ("-E", f"{name}={text}")]
    (library,) = (onnx / "onnxruntime" / "capi").glob("libonnxruntime.so*")
    outer = {"LD_LIBRARY_PATH": libraries(emulator)}
    return Arm64((*command, str(interpreter)), outer, built(fetch, archive), library)


def fetched() -> tuple[Any, Path]:
    """The app's own script (android_demo/cpp/fetch.py), and the archive that it downloads."""
    spec = spec_from_file_location("fetch", CPP / "fetch.py")
    assert spec is not None and spec.loader is not None
    fetch = module_from_spec(spec)
    spec.loader.exec_module(fetch)
    archive = CACHE / f"{fetch.NAME}.tar.gz"
    return fetch, archive if archive.exists() else fetch.downloaded(CACHE)


def built(fetch: Any, archive: Path) -> Path:
    """Where llama.cpp's libraries lie, built from the app's CMakeLists.txt."""
    recipe = b"".join((CPP / name).read_bytes() for name in ("CMakeLists.txt", "aarch64.cmake"))
    folder = CACHE / f"llama-{fetch.VERSION}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    target = folder / "bin"
    if (target / ".whole").exists():
        return target
    compiler = Debian().root("compiler-arm64", f"g++-{CROSS}")
    unanchored(compiler / "usr" / CROSS / "lib")
    sources = CACHE / f"llama.cpp-{fetch.VERSION}"
    fetch.sources(archive, sources)
    path = os.pathsep.join([str(compiler / "usr" / "bin"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": libraries(compiler)}
    chain = f"-DCMAKE_TOOLCHAIN_FILE={CPP / 'aarch64.cmake'}"
    out = [f"-DCMAKE_{kind}_OUTPUT_DIRECTORY={target}" for kind in ("LIBRARY", "RUNTIME")]
    where = ["-G", "Ninja", "-S", str(CPP), "-B", str(folder), f"-DLLAMA_CPP={sources}"]
    for command in (
        ["cmake", *where, chain, "-DCMAKE_BUILD_TYPE=Release", *out],
        ["ninja", "-C", str(folder), "llama", "ggml-cpu"],
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=BUILD_S, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    (target / ".whole").touch()
    return target


def site_packages(version: str, folder: Path, fetch: Any, archive: Path) -> Path:
    """What EdgeSpec needs for GGUF models, with llama-cpp-python's wheel without a library."""
    site = unzipped(version, "numpy", "jinja2", "diskcache", "typing_extensions")
    if not (site / "llama_cpp").is_dir():
        folder.mkdir(exist_ok=True)
        fetch.wheel(archive, folder)
        with zipfile.ZipFile(folder / f"{fetch.NAME}-py3-none-any.whl") as wheel:
            wheel.extractall(site)
    return site


def unzipped(version: str, *words: str) -> Path:
    """A folder with wheels for that Python on arm64, named by the first."""
    target = CACHE / f"{words[0]}-{version}-arm64"
    if not target.is_dir():
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        pip = [sys.executable, "-m", "pip", "-q", "download", "--only-binary=:all:"]
        said(*pip, *platforms, "--python-version", version, "-d", str(part), *words)
        for wheel in part.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(part)
        part.rename(target)
    return target
