"""EdgeSpec: lossless speculative decoding on the device.

    import edgespec
    with edgespec.load() as session:
        for piece in session.chat([{"role": "user", "content": "Tell me a story."}]):
            print(piece.text, end="", flush=True)

Names below are loaded when first used, so that the import itself needs numpy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgespec.errors import (
        BackendError,
        Cancelled,
        ContextError,
        EdgeSpecError,
        ModelFileError,
        ShapeError,
        TokenizerError,
        UsageError,
    )
    from edgespec.session import Session, load
    from edgespec.types import Draft, ModelInfo, Piece, SamplingParams, Stats, Step, Verdict

__all__ = [
    "BackendError",
    "Cancelled",
    "ContextError",
    "Draft",
    "EdgeSpecError",
    "ModelFileError",
    "ModelInfo",
    "Piece",
    "SamplingParams",
    "Session",
    "ShapeError",
    "Stats",
    "Step",
    "TokenizerError",
    "UsageError",
    "Verdict",
    "load",
]

_TYPES = {"Draft", "ModelInfo", "Piece", "SamplingParams", "Stats", "Step", "Verdict"}
_SESSION = {"Session", "load"}


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'edgespec' has no attribute {name!r}")
    module = "types" if name in _TYPES else "session" if name in _SESSION else "errors"
    return getattr(import_module(f"edgespec.{module}"), name)


def __dir__() -> list[str]:
    return list(__all__)
