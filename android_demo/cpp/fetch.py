"""Fetch what the app needs of llama-cpp-python, beside this file, by pip.

    python3 fetch.py            # llama.cpp/ and wheels/
    python3 fetch.py llama.cpp  # or one of them

llama.cpp/ is the library's sources as the package vendors them, for CMakeLists.txt. wheels/ gets
the package itself without any library, which Chaquopy can take: a wheel for every platform.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.3.36"  # of llama-cpp-python; wheel and library have to be of one
HERE = Path(__file__).resolve().parent
NAME = f"llama_cpp_python-{VERSION}"
# No library is built, so that the wheel is for any platform and Python.
PURE = ("cmake.define.LLAMA_BUILD=OFF", "cmake.define.LLAVA_BUILD=OFF", "wheel.platlib=false",
        "wheel.py-api=py3")  # fmt: skip


def main(asked: list[str]) -> int:
    """Fetch what is asked for; 2 for something else."""
    parts = {"llama.cpp": sources, "wheels": wheel}
    if unknown := set(asked) - set(parts):
        print(f"{', '.join(sorted(unknown))}: expected {' or '.join(parts)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        sdist = downloaded(Path(folder))
        for name in asked or parts:
            parts[name](sdist)
            print(f"{HERE / name}: of llama-cpp-python {VERSION}")
    return 0


def downloaded(folder: Path) -> Path:
    """The package's source archive."""
    pip(
        "download",
        "--no-deps",
        "--no-binary",
        "llama-cpp-python",  # what builds it may come as wheels
        "-d",
        folder,
        f"llama-cpp-python=={VERSION}",
    )
    return folder / f"{NAME}.tar.gz"


def sources(sdist: Path, target: Path = HERE / "llama.cpp") -> None:
    """Lay llama.cpp's sources beside this file, unless those of this version are there."""
    mark = target / ".version"
    if mark.exists() and mark.read_text() == VERSION:
        return
    shutil.rmtree(target, ignore_errors=True)  # files that this version no longer has
    prefix = f"{NAME}/vendor/llama.cpp/"
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # no path may lead out of the folder
            archive.extraction_filter = tarfile.data_filter
        for member in archive.getmembers():
            if member.isfile() and member.name.startswith(prefix):
                member.name = member.name.removeprefix(prefix)
                archive.extract(member, target)
    mark.write_text(VERSION)


def wheel(sdist: Path, target: Path = HERE / "wheels") -> None:
    """Build the wheel without a library."""
    settings = [word for setting in PURE for word in ("-C", setting)]
    pip("wheel", "--no-deps", "-w", target, *settings, sdist)
    made = target / f"{NAME}-py3-none-any.whl"
    if not made.is_file():
        found = ", ".join(file.name for file in target.iterdir())
        raise SystemExit(f"{made} was not made: expected a wheel for any platform, found {found}")


def pip(*words: object) -> None:
    """Run pip of this Python; ends the script if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *map(str, words)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"pip {words[0]} failed: see above")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
