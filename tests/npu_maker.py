"""A small trained model exported for an NPU, once per test run for each precision."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from edgespec.export.npu.export import StaticOptions, export_static
from edgespec.export.read.gguf import open_gguf_checkpoint

CONTEXT = 96


def quiet(what: str, share: float) -> None:
    """Progress that nobody reads."""
    assert what
    assert 0 <= share <= 1


def some_text(data_folder: Path, n_characters: int = 20_000) -> str:
    """The beginning of the stories."""
    with open(data_folder / "text" / "tinystories.txt", encoding="utf-8") as file:
        return file.read(n_characters)


@cache
def static_folder(data_folder: Path, precision: str = "fp32") -> Path:
    """The 260K-parameter model with a context of CONTEXT and five tokens wide."""
    parent = Path(tempfile.mkdtemp(prefix="edgespec-static-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    checkpoint = open_gguf_checkpoint(data_folder / "models" / "stories260K-f32.gguf")
    options = StaticOptions(CONTEXT, 4, precision)
    export_static(checkpoint, parent / "model", options, some_text(data_folder), quiet)
    return parent / "model"
