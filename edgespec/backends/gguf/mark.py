"""A mark on the disk while an unknown model is opened, where no child process can open it first.

llama.cpp ends the process on some damaged files, and so may the system where memory runs out. A
phone's app writes down what it is about to open; if that ends the app, its next start finds the
mark and refuses the file once, in words. A file that was survived is remembered as after a trial.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from edgespec.backends.gguf.file import refusal
from edgespec.backends.gguf.tried import Tried, remember, remembered
from edgespec.config import cache_folder
from edgespec.errors import UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec.llamacpp")


@contextmanager
def marked(files: Sequence[Path], way: str, version: str) -> Iterator[None]:
    """Around opening a model's files by `way` (llamacpp/layout.py) and running a few tokens.

    None where that way was survived before, and where nothing can be written. Raises:
    ModelFileError if opening them ended the process the last time.
    """
    tried = remembered(files, version) or Tried({})
    if tried.ways.get(way) is not None:
        yield
        return
    mark = _mark(files)
    if mark.exists():
        mark.unlink()
        raise refusal(
            files[0], "ended the app when it was opened the last time",
            "a sound model that fits this device's memory", "open it again to try once more",
        )  # fmt: skip
    try:
        write_whole(mark, str(files[0]).encode(), ours=True)
    except UsageError as error:
        log.info("%s; %s is opened without a mark", error, files[0].name)
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink()
    remember(files, version, replace(tried, ways={**tried.ways, way: {}}))


def _mark(files: Sequence[Path]) -> Path:
    """The mark's own place."""
    name = hashlib.sha256(str(files[0].resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "opening" / name
