"""The graph of a known pair's model, in a cache folder: made on first use."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from edgespec.errors import UsageError
from edgespec.types import Progress

from ..gguf.file import STALE_S
from ..read.gguf import open_gguf_checkpoint
from .export import export
from .graph import GraphOptions


def made(precision: str, source: Path, out: Path, progress: Progress | None = None) -> Path:
    """The folder `out`, written of the GGUF `source` and compared with it.

    Two processes may ask at once: both make it, and the later one replaces its equal.
    Raises: UsageError, and as `export`.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{out.parent} cannot be made ({error.strerror}): expected a folder to write; set "
            "EDGESPEC_HOME to one of yours"
        ) from error
    remove_stale(out)
    options = GraphOptions(precision, hidden=True)  # from which --adapt learns
    export(open_gguf_checkpoint(source), out, options, progress=progress)
    return out


def remove_stale(out: Path) -> None:
    """Delete what killed exports to `out` left beside it."""
    for partial in out.parent.glob(f"{out.name}.*.part"):
        if time.time() - partial.stat().st_mtime > STALE_S:
            shutil.rmtree(partial, ignore_errors=True)
