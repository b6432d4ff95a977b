"""A GGUF file as a Checkpoint, its tensors mapped and read when asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from edgespec.errors import ModelFileError

from ..gguf.file import metadata, open_gguf
from .checkpoint import TOKENS, Checkpoint, Decoder, Tensor

INTERLEAVED = (
    "llama",
    "smollm3",
)  # architectures whose q and k rows are stored for pairs (2i, 2i + 1)
SCALED = ("gemma", "gemma2", "gemma3")  # token vectors are multiplied by sqrt(n_embd)
FACTORS = ("rope_freqs.weight", "rope_factors_short.weight")


class Tensors(Mapping[str, Tensor]):
    """The tensors of an open file by name."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._found = {tensor.name: tensor for tensor in reader.tensors}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._found[name]
        shape = tuple(int(n) for n in reversed(tensor.shape))  # GGUF says columns first
        return Tensor(tensor.tensor_type.name, shape, tensor.data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def open_gguf_checkpoint(path: Path) -> Checkpoint:
    """The model in `path`. Raises: ModelFileError if it is no complete decoder."""
    reader = open_gguf(path)
    architecture = str(metadata(reader, "general.architecture", ""))
    tensors = Tensors(reader)
    if not architecture or TOKENS not in tensors:
        raise ModelFileError(f"{path} has no {TOKENS}: expected a language model with weights")
    sizes = Sizes(path, reader, architecture)
    n_embd, n_heads = sizes.whole("embedding_length"), sizes.whole("attention.head_count")
    head_dim = sizes.whole("attention.key_length", n_embd // n_heads)
    factors = next((tensors[name].floats() for name in FACTORS if name in tensors), np.empty(0))
    decoder = Decoder(
        architecture=architecture,
        n_vocab=tensors[TOKENS].shape[0],
        n_embd=n_embd,
        n_layers=sizes.whole("block_count"),
        n_heads=n_heads,
        n_kv_heads=sizes.whole("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        n_ff=sizes.whole("feed_forward_length"),
        n_context=sizes.whole("context_length"),
        rms_eps=sizes.real("attention.layer_norm_rms_epsilon"),
        rope_base=sizes.real("rope.freq_base", 10000.0),
        rope_dim=sizes.whole("rope.dimension_count", head_dim),
        rope_interleaved=architecture in INTERLEAVED,
        rope_scale=sizes.rope_scale(),
        rope_factors=tuple(float(factor) for factor in factors),
        embedding_scale=math.sqrt(n_embd) if architecture in SCALED else 1.0,
    )
    name = str(metadata(reader, "general.name", path.stem))
    return Checkpoint(path, name, decoder, tensors, vocabulary=path)


class Sizes:
    """The numbers that a file's metadata state under its architecture's prefix."""

    def __init__(self, path: Path, reader: gguf.GGUFReader, architecture: str) -> None:
        self._path, self._reader, self._architecture = path, reader, architecture

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive number, the same for all layers. Raises: ModelFileError."""
        value = self._value(key, default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        if not isinstance(value, int) or value < 1:
            raise self._refusal(key, value, "one positive number for all layers")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number. Raises: ModelFileError."""
        value = self._value(key, default)
        if not isinstance(value, float):
            raise self._refusal(key, value, "a number")
        return value

    def rope_scale(self) -> float:
        """What rotary frequencies are multiplied by. Raises: ModelFileError for yarn and others."""
        kind = self._value("rope.scaling.type", "none")
        if kind not in ("none", "linear"):
            raise self._refusal("rope.scaling.type", kind, "none or linear")
        return 1.0 / self.real("rope.scaling.factor", 1.0) if kind == "linear" else 1.0

    def _value(self, key: str, default: Any) -> Any:
        return metadata(self._reader, f"{self._architecture}.{key}", default)

    def _refusal(self, key: str, seen: Any, expected: str) -> ModelFileError:
        return ModelFileError(
            f"{self._path} says {self._architecture}.{key} = {seen!r}: expected {expected}; "
            "choose another model"
        )
