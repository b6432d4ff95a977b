"""Whole files: the SHA-256 they are known by, texts read, and bytes written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from edgespec.errors import UsageError

PIECE = 1 << 20  # bytes read at a time


def sha256_of(*paths: Path) -> str:
    """One hash, in hexadecimal, over what the files hold, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()


def in_words(n_bytes: int) -> str:
    """A size as people say it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            digits = 2 if n_bytes < 10 * scale else 1 if n_bytes < 100 * scale else 0
            return f"{n_bytes / scale:.{digits}f} {unit}"
    return f"{n_bytes} bytes"


def place(path: str | Path) -> Path:
    """The file or folder that is meant, "~" replaced. Raises: UsageError."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # nobody of that name, or HOME is not set
        raise UsageError(
            f"{path}: no home folder is known for it: expected one; set HOME, or name a whole path"
        ) from error


def text_of(path: str | Path, flag: str = "", *, expected: str = "a text file") -> str:
    """What a file in UTF-8 holds, without a byte order mark.

    flag: what named the file. Raises: UsageError saying so, and what was expected.
    """
    file = place(path)
    name = f"{flag} {file}".strip()
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 at byte {error.start}: expected {expected}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {why(error)}: expected {expected}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name and rename it; a link stays one. Raises: UsageError."""
    try:
        real = Path(os.path.realpath(path))
        if real.exists() and not real.is_file():  # renamed over, a device would be gone
            raise ValueError("not an ordinary file")
        part, name = tempfile.mkstemp(dir=real.parent, prefix=real.name)
        try:
            with open(part, "wb") as file:
                file.write(data)
            if real.exists():
                shutil.copymode(real, name)
            os.replace(name, real)
        except BaseException:  # an interrupt too
            with suppress(OSError):
                os.remove(name)
            raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {why(error)}: expected a file to write; name another") from error


def why(error: Exception) -> str:
    """What went wrong with a file, without its name."""
    return getattr(error, "strerror", None) or str(error)
