"""A decoder as the exports see it: its sizes, and its tensors by GGUF name.

Where they come from is another file's: gguf.py, hf.py. Norm weights are as in
a GGUF (Gemma's with the 1 added).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

TOKENS, HEAD, HEAD_BIAS = "token_embd.weight", "output.weight", "output.bias"


@dataclass(frozen=True)
class Decoder:
    """Sizes of a decoder. architecture: GGUF's name of it (llama, qwen2, qwen3, gemma3, phi3, ..).

    rope_interleaved: rotated pairs are (2i, 2i + 1), else (i, i + rope_dim / 2).
    rope_factors: what divides each pair's frequency, empty for 1; rope_scale multiplies all.
    """

    architecture: str
    n_vocab: int
    n_embd: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_ff: int
    n_context: int
    rms_eps: float
    rope_base: float
    rope_dim: int
    rope_interleaved: bool
    rope_scale: float = 1.0
    rope_factors: tuple[float, ...] = ()
    embedding_scale: float = 1.0


class Tensor:
    """One weight as stored. shape: rows first, [n_out, n_in] for a matrix. kind: GGML's name.

    data: what `gguf` reads: float arrays of `shape`, or for a quantized kind bytes
    [n_out, row_bytes], whose rows can be taken without requantizing.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], data: NDArray[Any]) -> None:
        self.kind, self.shape, self.data = kind, shape, data

    def floats(self) -> NDArray[np.float32]:
        """The values, [*shape]; a copy unless stored so."""
        if self.kind == "F32":
            return np.asarray(self.data, np.float32)
        if self.kind == "F16":
            return self.data.astype(np.float32)
        import gguf

        values = gguf.dequantize(self.data, gguf.GGMLQuantizationType[self.kind])
        return values.reshape(self.shape).astype(np.float32, copy=False)

    def rows(self, ids: NDArray[np.integer]) -> Tensor:
        """The tensor of these rows alone, as stored."""
        return Tensor(self.kind, (len(ids), *self.shape[1:]), self.data[ids])

    @property
    def n_bytes(self) -> int:
        return int(self.data.nbytes)


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, opened. tensors: read when asked for.

    token_ids: [K] int32, the ids whose rows the head has, in order; None for all.
    vocabulary: the file that tells text from ids: a GGUF, or a folder with tokenizer.json.
    """

    path: Path
    name: str
    decoder: Decoder
    tensors: Mapping[str, Tensor]
    vocabulary: Path
    token_ids: NDArray[np.int32] | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> Tensor:
        """Raises: ModelFileError if the model has no such weight."""
        if name not in self.tensors:
            raise ModelFileError(
                f"{self.path} has no {name}: expected the weights of a complete "
                f"{self.decoder.architecture} model; fetch all its files again"
            )
        return self.tensors[name]

    @property
    def head(self) -> Tensor:
        """The output matrix [V or K, n_embd]; a tied model's is its embedding."""
        tensor = self[HEAD] if HEAD in self.tensors else self[TOKENS]
        return tensor if self.token_ids is None else tensor.rows(self.token_ids)

    @property
    def head_bias(self) -> NDArray[np.float32] | None:
        """What is added to the logits [V or K], None for nothing."""
        if HEAD_BIAS not in self.tensors:
            return None
        values = self.tensors[HEAD_BIAS].floats()
        return values if self.token_ids is None else values[self.token_ids]

    def with_head(self, token_ids: NDArray[np.int32]) -> Checkpoint:
        """The same model, its head cut to the rows `token_ids`."""
        return replace(self, token_ids=token_ids)
