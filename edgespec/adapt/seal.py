"""Bytes that tell whether they are whole: a format's name, a SHA-256, and what that is of."""

from __future__ import annotations

import hashlib
import io
import zipfile


def sealed(what: bytes, body: bytes) -> bytes:
    """A body under the name of its format."""
    return what + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def opened(what: bytes, data: bytes) -> bytes:
    """The body. Raises: ValueError unless it is of this format and whole."""
    first, _, body = data.partition(b"\n")
    if not first.startswith(what):
        raise ValueError("not of this format")
    if first[len(what) :] != hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its SHA-256 is another")
    return body


def check_stored(arrays: bytes) -> None:
    """Raises: ValueError for arrays that are not stored as they are: they might be any size."""
    with zipfile.ZipFile(io.BytesIO(arrays)) as file:
        if any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist()):
            raise ValueError("its arrays are compressed")
