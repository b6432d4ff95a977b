"""The way in: `edgespec.load` makes a session from keywords.

import edgespec
with edgespec.load("target.gguf", "drafter.gguf", ctx_size=8192) as session: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgespec.config import Config, with_values
from edgespec.errors import UsageError
from edgespec.protocols import Drafter
from edgespec.session.session import Session
from edgespec.types import Progress


def load(
    model: str | Path | None = None,
    draft_model: str | Path | None = None,
    *,
    pair: str = "demo",
    hf_repo: str = "",
    hf_repo_draft: str = "",
    offline: bool = False,
    device: str = "auto",
    device_draft: str = "auto",
    ctx_size: int = 0,
    threads: int = 0,
    threads_draft: int = 1,
    speculative: str = "auto",
    draft_tokens: int | str = "auto",
    drafter: str | Drafter = "auto",
    bridge: str = "auto",
    allow_approximate: bool = False,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repeat_penalty: float = 1.0,
    frequency_penalty: float = 0.0,
    presence_penalty: float = 0.0,
    verification: str = "auto",
    json_schema: str = "",
    grammar: str = "",
    seed: int | None = None,
    max_tokens: int = 512,
    stop: str | Sequence[str] = (),
    chat_template: str = "",
    progress: Progress | None = None,
) -> Session:
    """A session with the bundled demo pair, a pair by name, or models by path or on the hub.

    The keywords are the command line's options. drafter: a name, or an object of yours that
    follows the `Drafter` protocol. Neither config.toml nor EDGESPEC_* variables are read.
    Raises: UsageError, ModelFileError, ContextError, TokenizerError; BackendError where the hub or
    a library fails.
    """
    values = dict(locals())
    del values["progress"]
    own = None if isinstance(drafter, str) else drafter
    if own is not None:
        check_drafter(own)
        values["drafter"] = "auto"
    values["model"], values["draft_model"] = str(model or ""), str(draft_model or "")
    return Session(with_values(Config(), values, "load"), drafter=own, progress=progress)


def check_drafter(own: object) -> None:
    """Raises: UsageError for what lacks a part of the Drafter protocol, or is the class itself."""
    methods = [name for name in dir(Drafter) if not name.startswith("_")]
    parts = [*Drafter.__annotations__, *methods]
    lacks = [part for part in parts if not hasattr(own, part)]
    lacks += [name for name in methods if not callable(getattr(own, name, callable))]
    if lacks or isinstance(own, type):
        seen = f"lacks {', '.join(lacks)}" if lacks else "is a class, not an object of it"
        raise UsageError(
            f"the drafter {own!r:.60} {seen}: expected an object with {', '.join(parts)}; see "
            "edgespec.protocols.Drafter"
        )
