"""The way in: `edgespec.load` makes a session from keywords.

    import edgespec
    with edgespec.load("target.gguf", "drafter.gguf", ctx_size=8192) as session: ...

Neither a configuration file nor variables are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgespec.config import Config, check_known, options
from edgespec.errors import UsageError
from edgespec.option import LoadOptions, Unpack
from edgespec.protocols import Drafter
from edgespec.session.session import Session
from edgespec.store import tuned
from edgespec.types import Progress


def load(
    model: str | Path | None = None,
    draft_model: str | Path | None = None,
    *,
    drafter: str | Drafter = "auto",
    progress: Progress | None = None,
    **keywords: Unpack[LoadOptions],
) -> Session:
    """A session with the bundled demo pair, a pair by name, or models by path or on the hub.

    The keywords are the command line's options, with its defaults; see option.LoadOptions.
    drafter: a name, or an object of yours that follows the `Drafter` protocol.
    Raises: UsageError, ModelFileError, ContextError, TokenizerError; BackendError where the hub or
    a library fails.
    """
    own = None if isinstance(drafter, str) else drafter
    return Session(config_of(model, draft_model, drafter, keywords), drafter=own, progress=progress)


def config_of(
    model: str | Path | None,
    draft_model: str | Path | None,
    drafter: str | Drafter,
    keywords: LoadOptions,
) -> Config:
    """What `load` is told, as a configuration. Raises: UsageError."""
    check_known(keywords, [one.name for one, opt in options() if not opt.only], "load")
    values: dict[str, Any] = {name: v for name, v in keywords.items() if v is not None}
    paths = {"model": model, "draft_model": draft_model}
    values |= {name: str(path) for name, path in paths.items() if path}
    if not isinstance(drafter, str):
        check_drafter(drafter)
    elif drafter != "auto":  # which a tuned pair may settle
        values["drafter"] = drafter
    return tuned.applied([(values, "load")], Config())


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
