"""The graph of a known pair's model, in a cache folder: made on first use."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgespec.errors import UsageError
from edgespec.types import Progress

from ..align.gguf_lora import open_gguf_lora
from ..align.layers import with_layers
from ..align.merge import merge
from ..gguf.file import STALE_S
from ..read.checkpoint import Checkpoint
from ..read.gguf import open_gguf_checkpoint
from .export import export
from .graph import GraphOptions


def made(
    precision: str, source: Path, out: Path, progress: Progress | None = None, *,
    layers: Sequence[int] = (), taught: Path | None = None, rows: Path | None = None,
) -> Path:  # fmt: skip
    """The folder `out`, written of the GGUF `source` and compared with what it is made of.

    layers: those to keep, none: all. taught: an adapter of them (GGUF), put inside first, in 8
    bits. rows: ids (npy, int32, ascending) that the head is cut to.
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
    with TemporaryDirectory(prefix=f"{out.name}.", suffix=".part", dir=out.parent) as folder:
        base = open_gguf_checkpoint(source)
        checkpoint = with_lessons(
            with_layers(base, layers) if layers else base, Path(folder), taught, rows
        )
        export(checkpoint, out, options, progress=progress)
    return out


def with_lessons(
    base: Checkpoint, folder: Path, taught: Path | None, rows: Path | None
) -> Checkpoint:
    """A model as it was taught, its head cut; what has to be written goes to `folder`."""
    if taught is not None:
        file = merge(base, open_gguf_lora(taught, base), folder / base.path.name)
        base = open_gguf_checkpoint(file)
    return base if rows is None else base.with_head(np.load(rows))


def remove_stale(out: Path) -> None:
    """Delete what killed exports to `out` left beside it."""
    for partial in out.parent.glob(f"{out.name}.*.part"):
        if time.time() - partial.stat().st_mtime > STALE_S:
            shutil.rmtree(partial, ignore_errors=True)
