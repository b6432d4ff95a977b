"""content.py: hashes that names of cached files and manifests depend on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgespec.content import PIECE, sha256_of


def test_the_hash_is_that_of_all_bytes_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"abc")
    second.write_bytes(bytes(range(256)) * (PIECE // 256) + b"end")  # more than one piece
    assert sha256_of(first) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    whole = first.read_bytes() + second.read_bytes()
    assert sha256_of(first, second) == hashlib.sha256(whole).hexdigest()
    assert sha256_of(second, first) != sha256_of(first, second)
