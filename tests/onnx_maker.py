"""Models exported for ONNX Runtime, quickly, and llama.cpp in 32 bits to compare them with."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import llama_cpp
import numpy as np
from edgespec.export.onnx import check as onnx_check
from edgespec.export.onnx.export import Demands, OnnxReport, export
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.read.gguf import open_gguf_checkpoint

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp import opening
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.onnx.model import OnnxModel

ANY_LOSS = Demands(max_loss=9.0)  # for models of random weights, whose likeliest tokens are near


@contextmanager
def quick() -> Iterator[None]:
    """No trial of model files in a child process, and one thread: on a busy machine more wait."""
    one_thread = partial(ModelOptions, n_threads=1)
    with (
        patch.object(opening, "safe_loading", lambda *_: opening.MAP),
        patch.object(onnx_check, "ModelOptions", one_thread),
    ):
        yield


def exported(
    source: Path,
    out: Path,
    options: GraphOptions | None = None,
    demands: Demands | None = None,
    token_ids: np.ndarray | None = None,
) -> OnnxReport:
    """`export` of a GGUF, in 32 bits unless told."""
    checkpoint = checkpoint_of(source)
    if token_ids is not None:
        checkpoint = checkpoint.with_head(token_ids)
    with quick():
        return export(checkpoint, out, options or GraphOptions("fp32"), demands)


checkpoint_of = cache(open_gguf_checkpoint)  # of a model that does not change: 0.2 s for each


@cache
def dynamic_folder(source: Path) -> Path:
    """The model exported in 32 bits, once per test run."""
    parent = Path(tempfile.mkdtemp(prefix="edgespec-dynamic-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    exported(source, parent / source.stem)
    return parent / source.stem


def opened(folder: Path, n_context: int = 96, **options: Any) -> OnnxModel:
    """The folder's model on one thread."""
    return OnnxModel(folder, ModelOptions(n_context, n_threads=1, **options))


@contextmanager
def llama_cpp_exact(path: Path, **options: Any) -> Iterator[LlamaCppModel]:
    """The model by llama.cpp, whose cache and attention are of 32 bits as those of the graphs."""
    usual = opening.context_params

    def exact(*given: Any) -> Any:
        params = usual(*given)
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return params

    with patch.object(opening, "context_params", exact):
        model = LlamaCppModel(path, ModelOptions(96, 1, "cpu", **options), loading=opening.MAP)
    with closing(model):
        yield model
