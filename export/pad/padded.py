"""The padded model of any kind, in a cache folder: made on first use, then found."""

from __future__ import annotations

from pathlib import Path

from edgespec.errors import UsageError
from edgespec.types import Progress

from ..gguf.quantize import FILE_TYPES
from . import model as pad

GGUFS = ("f16", *FILE_TYPES)
# Rounded to 4 bits with text (gptq.py): two graphs for ONNX Runtime, and for llama.cpp the first
# one's weights.
FITTED = ("int4", "int4-b128", "q4_0-fitted")


def padded(kind: str, source: Path, cache: Path, progress: Progress | None = None) -> Path:
    """The padded `source` in the folder `cache`. Raises: UsageError, and as its makers do."""
    if kind in GGUFS:
        return pad.padded(kind, source, cache, progress)
    if kind not in FITTED:
        known = ", ".join((*GGUFS, *FITTED))
        raise UsageError(f"padded model {kind!r}: expected one of {known}")
    # Those need the package onnx, which the runtime's own installation has not.
    from .int4 import padded_int4, q4_0_of

    folder = padded_int4(source, cache, 128 if kind == "int4-b128" else 32, progress)
    return q4_0_of(folder) if kind == "q4_0-fitted" else folder
