"""The SHA-256 that files are known by: in manifests, in names of cached files, in reports."""

from __future__ import annotations

import hashlib
from pathlib import Path

PIECE = 1 << 20  # bytes read at a time


def sha256_of(*paths: Path) -> str:
    """One hash, in hexadecimal, over what the files hold, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()
