"""The graph of a known pair's model, in a cache folder: made on first use."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
        raise cannot_be_made(out.parent, error) from error
    remove_stale(out)
    options = GraphOptions(precision, hidden=True)  # from which --adapt learns
    base = open_gguf_checkpoint(source)
    if layers:
        base = with_layers(base, layers)
    with ExitStack() as stack:
        if taught is not None:
            base = open_gguf_checkpoint(stack.enter_context(merged(base, taught, out)))
        if rows is not None:
            base = base.with_head(np.load(rows))
        export(base, out, options, progress=progress)
    return out


@contextmanager
def merged(base: Checkpoint, taught: Path, out: Path) -> Iterator[Path]:
    """The model with an adapter inside, a file beside `out` for as long as it is needed.

    Raises: UsageError, ModelFileError.
    """
    folder = out.with_name(f"{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        folder.mkdir()
    except OSError as error:
        raise cannot_be_made(folder, error) from error
    try:
        yield merge(base, open_gguf_lora(taught, base), folder / base.path.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # on Windows it may still be mapped


def cannot_be_made(folder: Path, error: OSError) -> UsageError:
    """What to say then."""
    return UsageError(
        f"{folder} cannot be made ({error.strerror}): expected a folder to write; set "
        "EDGESPEC_HOME to one of yours"
    )


def remove_stale(out: Path) -> None:
    """Delete what killed exports to `out` left beside it."""
    for partial in out.parent.glob(f"{out.name}.*.part"):
        if time.time() - partial.stat().st_mtime > STALE_S:
            shutil.rmtree(partial, ignore_errors=True)
