"""Debian packages laid into a folder without being installed, so that no root is needed.

They are kept in the cache folder of the tests from run to run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "edgespec-tests"
KINDS = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
LINKER_SCRIPT = b"/* GNU ld script"


class Debian:
    """Packages of this system's release and its backports, for one architecture."""

    def __init__(self, architecture: str = "") -> None:
        """Skips where there is no apt, and fails there where continuous integration is."""
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            fail_or_skip("no apt-get here, which fetches Debian's packages")
        native = said("dpkg", "--print-architecture").strip()
        self._is_foreign = architecture not in ("", native)
        self._folder = CACHE / f"apt-{architecture or native}"
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._sources(self._folder / "sources.list")
        (self._folder / "status").touch()
        self._options = [
            "-qq",
            *option("Dir::Etc::SourceList", self._folder / "sources.list"),
            *option("Dir::Etc::SourceParts", "/dev/null"),
            *option("Dir::State::Lists", self._folder / "lists"),
            *option("Dir::Cache", self._folder / "cache"),
            *option("APT::Architecture", architecture or native),
            *option("APT::Architectures", architecture or native),
            *(option("Dir::State::status", self._folder / "status") if self._is_foreign else []),
        ]

    def newest(self, package: str) -> str:
        """The package of the release's backports, as `root` takes it."""
        return f"{package}/{self._codename}-backports"

    def root(self, name: str, *packages: str) -> Path:
        """A folder that holds the packages, and all they depend on that is not installed."""
        target = CACHE / name
        with alone():
            if not (target / ".whole").exists():
                self._lay(target, packages)
        return target

    def _lay(self, target: Path, packages: tuple[str, ...]) -> None:
        said("apt-get", *self._options, "update")
        names = [package.split("/")[0] for package in packages]
        wanted = [*packages, *sorted(self._missing(names) - set(names))]
        archives = target.with_name(f"{target.name}-archives")
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir()
        said("apt-get", *self._options, "download", *wanted, folder=archives)
        for archive in sorted(archives.glob("*.deb")):
            said("dpkg-deb", "-x", str(archive), str(target))
        shutil.rmtree(archives)
        (target / ".whole").touch()

    def _missing(self, packages: list[str]) -> set[str]:
        """What the packages need, and is not installed."""
        without = [f"--no-{kind}" for kind in KINDS]
        lines = said("apt-cache", *self._options[1:], "depends", "--recurse", *without, *packages)
        needed = {line for line in lines.splitlines() if line[:1].isalnum()}
        return needed if self._is_foreign else {name for name in needed if not is_installed(name)}

    def _sources(self, file: Path) -> None:
        """Where this system has its packages from, with backports."""
        form = "$(REPO_URI) $(CODENAME)"
        found = said("apt-get", "indextargets", "--format", form, "Created-By: Packages")
        mains = {line for line in found.splitlines() if line and "-" not in line.split()[-1]}
        self._codename = next(iter(mains)).split()[-1]
        file.write_text("".join(f"deb {one} main\ndeb {one}-backports main\n" for one in mains))


@contextmanager
def alone() -> Iterator[None]:
    """Within it no other worker of the tests changes the cache folder."""
    with (CACHE / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def option(name: str, value: object) -> list[str]:
    """An option of apt's, as words."""
    return ["-o", f"{name}={value}"]


def is_installed(package: str) -> bool:
    """Whether this system has it."""
    command = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.startswith("installed")


def said(*command: str, folder: Path | None = None) -> str:
    """What a command prints; skips with its last words if it fails, or fails in CI."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        fail_or_skip(f"{' '.join(command[:2])}: {done.stderr.strip()[-300:]}")
    return done.stdout


def fail_or_skip(reason: str) -> NoReturn:
    """Fails the test in continuous integration, and skips it elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def libraries(root: Path) -> str:
    """An LD_LIBRARY_PATH of all folders under `root` that hold shared libraries of its programs."""
    found = {file.parent for file in (root / "usr" / "lib").rglob("*.so*")}
    return os.pathsep.join(sorted(map(str, found)))


def unanchored(folder: Path) -> None:
    """Linker scripts that name libraries by whole paths name them by themselves."""
    for script in folder.glob("*.so"):
        text = script.read_bytes() if script.stat().st_size < 4096 else b""
        if text.startswith(LINKER_SCRIPT):
            words = [word.rsplit(b"/", 1)[-1] if word[:1] == b"/" and word[1:2] != b"*" else word
                     for word in text.split(b" ")]  # fmt: skip
            script.write_bytes(b" ".join(words))
