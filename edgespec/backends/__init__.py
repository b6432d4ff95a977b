"""Backends by name; each is imported only when a model is opened with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgespec.errors import UsageError

BACKENDS = {
    "llamacpp": "edgespec.backends.llamacpp.trimmed:open_gguf",
    "onnx": "edgespec.backends.onnx.model:OnnxModel",
}
ENDINGS = {".gguf": "llamacpp", ".onnx": "onnx", ".json": "onnx"}
FOLDER = "onnx"  # an exported ONNX model is a folder


@dataclass(frozen=True)
class ModelOptions:
    """How a model is opened.

    n_context 0: what it was trained for, up to DEFAULT_CONTEXT. n_threads 0: all cores. counted_by:
    size of the vocabulary that n_context is counted in, 0 for the model's own. loading: of
    config.LOADING. exact: such that many widths of forwards compute alike. widths: of those that
    should be fast. windows: layers that see the last tokens only keep no more of them; then only
    chains are read. steps: it will read one token at a time and take several back, as drafters do.
    lora: a low-rank adapter that is added to its layers. progress: told the share of a file that
    is loaded, where the library says so; trying: of finding out how it is loaded
    best. known: told the context and the size of the vocabulary before a CPU loads the weights,
    where another model may be opened meanwhile. alone: returns once nothing else computes that
    would be timed.
    """

    n_context: int = 0
    n_threads: int = 0
    device: str = "auto"  # auto, cpu, or a name `edgespec devices` lists
    n_gpu_layers: int = -1  # -1 all that the device can take
    kv_type: str = "f16"  # of config.KV_TYPES
    exact: bool = False
    hidden_states: bool = False
    max_leaves: int = 8  # most leaves of a forking forward
    counted_by: int = 0
    loading: str = "auto"
    lora: str = ""
    widths: tuple[int, ...] = (1,)
    windows: bool = False
    steps: bool = False
    progress: Callable[[float], None] | None = None
    trying: Callable[[float], None] | None = None
    known: Callable[[int, int], None] | None = None
    alone: Callable[[], object] | None = None


def open_model(path: Path, options: ModelOptions) -> Any:
    """The model in `path`, by the backend its ending names; a folder is an ONNX model.

    Raises: UsageError, ModelFileError, ContextError.
    """
    module, _, attribute = BACKENDS[backend_of(path)].partition(":")
    return getattr(import_module(module), attribute)(path, options)


def backend_of(path: Path) -> str:
    """The name of the backend for this file or folder. Raises: UsageError."""
    name = FOLDER if path.is_dir() else ENDINGS.get(path.suffix)
    if name is None and not path.exists():
        raise UsageError(f"{path} does not exist: expected a model file or folder; check the path")
    if name is None:
        raise UsageError(
            f"{path.name} has ending {path.suffix!r}: expected .gguf, or the folder of an exported "
            "ONNX model; check the path"
        )
    return name


def is_adapter(path: Path) -> bool:
    """Whether the file is a low-rank adapter, of either backend. Raises: ModelFileError."""
    if path.suffix != ".gguf":
        return path.suffix == ".onnx_adapter"
    from edgespec.backends.gguf import check, file

    return file.read_header(path).metadata.get("general.type") == check.ADAPTER
