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
        BusyError,
        Cancelled,
        ContextError,
        EdgeSpecError,
        ModelFileError,
        ShapeError,
        TokenizerError,
        UsageError,
    )
    from edgespec.option import LoadOptions, Options
    from edgespec.server.running import Server, serve
    from edgespec.session.conversation import Conversation
    from edgespec.session.load import load
    from edgespec.session.session import Session
    from edgespec.types import (
        Draft,
        ModelInfo,
        Piece,
        SamplingParams,
        Stats,
        Step,
        TokenScore,
        Verdict,
    )

__all__ = [
    "BackendError",
    "BusyError",
    "Cancelled",
    "ContextError",
    "Conversation",
    "Draft",
    "EdgeSpecError",
    "LoadOptions",
    "ModelFileError",
    "ModelInfo",
    "Options",
    "Piece",
    "SamplingParams",
    "Server",
    "Session",
    "ShapeError",
    "Stats",
    "Step",
    "TokenScore",
    "TokenizerError",
    "UsageError",
    "Verdict",
    "load",
    "serve",
]

_MODULES = {
    "option": ("LoadOptions", "Options"),
    "types": ("Draft", "ModelInfo", "Piece", "SamplingParams", "Stats", "Step", "TokenScore",
              "Verdict"),
    "server.running": ("Server", "serve"),
    "session.session": ("Session",),
    "session.load": ("load",),
    "session.conversation": ("Conversation",),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a public name from its module at first use."""
    if name not in __all__:
        raise AttributeError(f"module 'edgespec' has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), "errors")
    return getattr(import_module(f"edgespec.{module}"), name)


def __dir__() -> list[str]:
    return list(__all__)
