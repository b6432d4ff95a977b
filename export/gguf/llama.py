"""A Llama or LFM2 model in a GGUF file: sizes and weights, checked before anything is made of them.

Refuses in one line what is not plain and in F16 or F32: experts, biases, quantized weights, layers
of different sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

from ..pad.widen import ROTATION_FACTORS, Shape, tensors
from .file import metadata, open_gguf

UNQUANTIZED = (GGMLQuantizationType.F16, GGMLQuantizationType.F32)


class PlainFile:
    """An open model file; `weights` by name still lie in it, and are read when they are used."""

    def __init__(self, path: Path) -> None:
        """Raises: ModelFileError."""
        self.path = path
        self.reader = open_gguf(path)
        self.weights: dict[str, NDArray[np.floating]] = {}
        self.architecture = str(metadata(self.reader, "general.architecture", "none"))
        if self.architecture not in ("llama", "lfm2"):
            raise self._refusal(f"architecture {self.architecture!r}", "'llama' or 'lfm2'")
        for tensor in self.reader.tensors:
            if tensor.tensor_type not in UNQUANTIZED:
                seen = f"{tensor.name} in {tensor.tensor_type.name}"
                raise self._refusal(seen, "F16 or F32 (the model it was quantized from)")
            self.weights[tensor.name] = tensor.data
        self.shape = self._read_shape()
        self._check_weights()

    def _refusal(self, seen: str, expected: str) -> ModelFileError:
        return ModelFileError(f"{self.path} has {seen}: expected {expected}, choose another model")

    def _size(self, key: str, default: int | None = None) -> int:
        value = metadata(self.reader, f"{self.architecture}.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise self._refusal(
                f"{self.architecture}.{key} {value!r}", "one positive number for all layers"
            )
        return value

    def _read_shape(self) -> Shape:
        if metadata(self.reader, f"{self.architecture}.expert_count", 0):
            raise self._refusal("experts", "a model without")
        if "token_embd.weight" not in self.weights:
            raise self._refusal("no token_embd.weight", "a model with weights")
        n_embd, n_heads = self._size("embedding_length"), self._size("attention.head_count")
        mixers, n_kv_heads = self._mixers(n_heads)
        head_dim = self._size("attention.key_length", n_embd // n_heads)
        if n_heads % n_kv_heads:
            raise self._refusal(f"{n_heads} heads over {n_kv_heads} key heads", "whole groups")
        if self._size("attention.value_length", head_dim) != head_dim:
            raise self._refusal("values of another length than keys", "one head size")
        return Shape(
            n_vocab=len(self.weights["token_embd.weight"]),
            n_embd=n_embd,
            n_layers=self._size("block_count"),
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            n_ff=self._size("feed_forward_length"),
            tied="output.weight" not in self.weights,
            rotation_factors=len(self.weights.get(ROTATION_FACTORS, ())),
            mixers=mixers,
            n_kernel=self._size("shortconv.l_cache") if mixers else 0,
        )

    def _mixers(self, n_heads: int) -> tuple[tuple[str, ...], int]:
        """A hybrid's mixers, layer by layer, and the key heads of those that attend."""
        if self.architecture == "llama":
            return (), self._size("attention.head_count_kv", n_heads)
        by_layer = metadata(self.reader, f"{self.architecture}.attention.head_count_kv", None)
        heads = set(by_layer) - {0} if isinstance(by_layer, list) else set()
        if len(heads) != 1:
            raise self._refusal(f"key heads {by_layer!r}", "a number for each layer, 0 or the same")
        return tuple("attention" if n else "convolution" for n in by_layer), heads.pop()

    def _check_weights(self) -> None:
        expected = {tensor.name: tensor.stored for tensor in tensors(self.shape, self.shape)}
        for name in self.weights:
            if name not in expected:
                raise self._refusal(name, "a plain model, which has none")
        for name, shape in expected.items():
            seen = self.weights[name].shape if name in self.weights else None
            if seen != shape:
                raise self._refusal(f"{name} of shape {seen}", f"{shape}")

    @property
    def name(self) -> str:
        """The model's own name, or the file's."""
        return str(metadata(self.reader, "general.name", self.path.stem))

    @property
    def rms_eps(self) -> float:
        """Epsilon of the norms."""
        value = metadata(self.reader, f"{self.architecture}.attention.layer_norm_rms_epsilon", None)
        if not isinstance(value, float):
            raise self._refusal(f"norm epsilon {value!r}", "a number")
        return value
