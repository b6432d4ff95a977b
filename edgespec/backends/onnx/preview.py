"""What the folder of an exported ONNX model says of it (preview)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions
from edgespec.backends.onnx import folder as onnx_folder
from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.dynamic import PAST, ROWS
from edgespec.backends.onnx.inputs import inputs_of
from edgespec.backends.onnx.model import check_options
from edgespec.backends.preview import Cache, Preview
from edgespec.backends.vocabulary import open_tokenizer
from edgespec.errors import ModelFileError

PARTED = 5  # times the logits: two parts of each, together, apart, and added
STATIC = ("key.", "value.")  # inputs of a static graph that are its cache


def preview_of(path: Path, options: ModelOptions) -> Preview:
    """The preview of one folder. Raises: ModelFileError if none was exported, UsageError."""
    folder = onnx_folder.folder_of(path)
    check_options(options, folder.name)
    about = onnx_folder.description(folder)
    ids, n_vocab = onnx_folder.token_ids(folder, about), int(about["n_vocab"])
    parted = about["quant"] == onnx_folder.CHANNEL
    problems, tokenizer, cache = list[str](), None, None
    try:
        tokenizer = open_tokenizer(folder, about["tokenizer"], n_vocab=n_vocab)
        cache = _cache(folder, about)
    except ModelFileError as error:
        problems.append(str(error))
    return Preview(
        path=folder,
        backend="onnx",
        architecture=str(about["architecture"]),
        quant=str(about["quant"]),
        n_params=int(about["n_params"]),
        weights_bytes=onnx_folder.size_of(folder),
        logits_bytes=4 * ROWS * (n_vocab if ids is None else len(ids)) * (PARTED if parted else 1),
        n_vocab=n_vocab,
        tokenizer=tokenizer,
        token_ids=ids,
        cache=cache,
        shares_memory=onnx_providers.find(options.device)[0].kind == "cpu",
        problems=tuple(problems),
    )


def _cache(folder: Path, about: Mapping[str, Any]) -> Cache:
    """What the graph declares of its cache. Raises: ModelFileError."""
    most = int(about["n_context"])
    if about["kind"] == "static":
        inputs = inputs_of(folder / str(about["graphs"]["1"]))
        sizes = [value for name, value in inputs.items() if name.startswith(STATIC)]
        n_bytes = sum(size * prod(shape) for size, shape in sizes)
        return Cache(n_bytes // most, most, is_fixed=True)
    inputs = inputs_of(folder / onnx_folder.GRAPH)
    sizes = [value for name, value in inputs.items() if name.startswith(PAST)]
    token_bytes = sum(size * shape[1] * shape[3] for size, shape in sizes if len(shape) == 4)
    return Cache(token_bytes, most, n_more=int("attention_bias" in inputs), is_capped=True)
