"""The wide model's shape and weights: the small model's in one corner, the rest without effect.

Pure arithmetic on shapes and arrays; model.py reads and writes the files. Why the wide model
computes what the small one does:

- The residual has more dimensions, and they stay exactly 0: no row of token_embd, attn_output
  or ffn_down writes to them. So weights that read them may be anything.
- Extra heads and neurons work on real data with random weights; the columns of attn_output
  and ffn_down that would pass on what they say are 0. Extra layers have only such columns.
- RMSNorm divides by the root of a mean over all dimensions, D instead of d with the same sum:
  weights times sqrt(d / D) and epsilon times d / D undo it.

A block of columns that is quantized with one scale holds real or random weights, never both.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError, UsageError

BLOCK = 256  # columns of a K-quant super-block, the longest block llama.cpp quantizes by
ROTATION_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model.

    tied: the embedding is the output head as well. rotation_factors: length of rope_freqs, one
    number per rotated pair of a head whatever the width; 0 where there is none (before Llama 3.1).
    """

    n_vocab: int
    n_embd: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_ff: int
    tied: bool
    rotation_factors: int = 0


@dataclass(frozen=True)
class Matrix:
    """One F16 weight [rows, columns] of the wide model and what fills it.

    small: the weight of the small model that lies top left, None in an extra layer.
    real: its rows and columns. random: None for zeros everywhere else; (r, c) for random weights
    in all rows from r on and, right of the small weight, in the columns from c on.
    like: the weight of the small model whose spread the random ones have.
    """

    name: str
    shape: tuple[int, int]
    real: tuple[int, int]
    random: tuple[int, int] | None
    small: str | None
    like: str
    dtype: ClassVar[np.dtype[np.float16]] = np.dtype(np.float16)


@dataclass(frozen=True)
class Vector:
    """One F32 weight [n]: a norm's if `shape` differs from the small one's, else a copy."""

    name: str
    shape: tuple[int]
    small: str
    dtype: ClassVar[np.dtype[np.float32]] = np.dtype(np.float32)


Weights = Mapping[str, NDArray[np.floating]]
"""The small model's weights by name."""


def block_end(n: int, limit: int) -> int:
    """The first block boundary at or after n, at most `limit`."""
    return min(-(-n // BLOCK) * BLOCK, limit)


def widened(small: Shape, n_embd: int, n_layers: int, n_ff: int) -> Shape:
    """The wide shape; as many heads as fill n_embd. Raises: UsageError for what does not fit."""
    group = small.n_heads // small.n_kv_heads
    wanted = (
        ("n_embd", n_embd, max(small.n_embd, small.n_heads * small.head_dim), BLOCK),
        ("n_ff", n_ff, small.n_ff, BLOCK),
        ("n_layers", n_layers, small.n_layers, 1),
    )
    for name, seen, least, step in wanted:
        if seen < least or seen % step:
            multiple = f" and a multiple of {step}" if step > 1 else ""
            fitting = max(-(-seen // step), -(-least // step)) * step
            raise UsageError(
                f"{name} is {seen}: expected at least {least}{multiple}, try {fitting}"
            )
    n_kv_heads = max(n_embd // (small.head_dim * group), small.n_kv_heads)
    return replace(
        small,
        n_embd=n_embd,
        n_layers=n_layers,
        n_ff=n_ff,
        n_heads=n_kv_heads * group,
        n_kv_heads=n_kv_heads,
    )


def layer_sources(small: Shape, wide: Shape) -> list[tuple[int, bool]]:
    """For each wide layer the small layer it is or resembles, and whether it is that layer.

    Real layers are spread evenly, so that a share of the depth means the same in both.
    """
    places = {i * wide.n_layers // small.n_layers: i for i in range(small.n_layers)}
    out, last = [], 0
    for layer in range(wide.n_layers):
        last = places.get(layer, last)
        out.append((last, layer in places))
    return out


def tensors(small: Shape, wide: Shape) -> Iterator[Matrix | Vector]:
    """Every weight of the wide model in the order of the file; `wide` may be `small` itself."""
    vocab, d, width = small.n_vocab, small.n_embd, wide.n_embd
    embedding, head = "token_embd.weight", "output.weight"
    yield Matrix(embedding, (vocab, width), (vocab, d), None, embedding, embedding)
    yield Vector("output_norm.weight", (width,), "output_norm.weight")
    if not small.tied:
        beside = vocab, block_end(d, width)
        yield Matrix(head, (vocab, width), (vocab, d), beside, head, head)
    if small.rotation_factors:
        yield Vector(ROTATION_FACTORS, (small.rotation_factors,), ROTATION_FACTORS)
    for layer, (source, is_real) in enumerate(layer_sources(small, wide)):
        for name in ("attn_norm", "ffn_norm"):
            yield Vector(f"blk.{layer}.{name}.weight", (width,), f"blk.{source}.{name}.weight")
        for name, shape, real, random_row in layer_matrices(small, wide):
            like, wide_name = f"blk.{source}.{name}.weight", f"blk.{layer}.{name}.weight"
            if is_real:
                random = None if random_row is None else (random_row, block_end(d, width))
                yield Matrix(wide_name, shape, real, random, like, like)
            else:
                random = None if random_row is None else (0, 0)
                yield Matrix(wide_name, shape, (0, 0), random, None, like)


def layer_matrices(
    small: Shape, wide: Shape
) -> Iterator[tuple[str, tuple[int, int], tuple[int, int], int | None]]:
    """Name, wide shape, small shape and first random row of a real layer's weights.

    What is said by heads and neurons in the block of the last real one is 0: quantized
    activations share a scale per block as well. Hence no random rows there in attn_v and ffn_up.
    """
    d, width = small.n_embd, wide.n_embd
    heads, wide_heads = small.n_heads * small.head_dim, wide.n_heads * wide.head_dim
    kv, wide_kv = small.n_kv_heads * small.head_dim, wide.n_kv_heads * wide.head_dim
    group = small.n_heads // small.n_kv_heads
    quiet_heads = -(-block_end(heads, wide_heads) // (group * small.head_dim))
    yield "attn_q", (wide_heads, width), (heads, d), heads
    yield "attn_k", (wide_kv, width), (kv, d), kv
    yield "attn_v", (wide_kv, width), (kv, d), quiet_heads * small.head_dim
    yield "attn_output", (width, wide_heads), (d, heads), None
    yield "ffn_gate", (wide.n_ff, width), (small.n_ff, d), small.n_ff
    yield "ffn_up", (wide.n_ff, width), (small.n_ff, d), block_end(small.n_ff, wide.n_ff)
    yield "ffn_down", (width, wide.n_ff), (d, small.n_ff), None


def make(tensor: Matrix | Vector, weights: Weights, seed: int) -> NDArray[np.floating]:
    """The weight itself; the same for the same seed, whatever else is made before it.

    Raises: ModelFileError when a real weight is not finite in F16.
    """
    if isinstance(tensor, Vector):
        return wide_vector(weights[tensor.small], tensor.shape[0])
    out = np.zeros(tensor.shape, np.float16)
    n_rows, n_columns = tensor.real
    if tensor.random is not None:
        rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
        std = float(weights[tensor.like].std(dtype=np.float64))
        row, column = tensor.random
        fill_normal(out[row:], std, rng)
        fill_normal(out[:n_rows, column:], std, rng)
    if tensor.small is not None:
        with np.errstate(over="ignore"):
            out[:n_rows, :n_columns] = weights[tensor.small]
        if not np.isfinite(out[:n_rows, :n_columns]).all():
            raise ModelFileError(
                f"{tensor.small} has a weight that F16 cannot hold: expected finite numbers "
                "up to 65504, choose another model"
            )
    return out


def fill_normal(out: NDArray[np.float16], std: float, rng: np.random.Generator) -> None:
    """Overwrite `out` [rows, columns] with normal numbers, some rows at a time to spare memory."""
    for start in range(0, len(out), 256):
        part = out[start : start + 256]
        numbers = rng.standard_normal(part.shape, np.float32)
        numbers *= std
        part[...] = numbers


def wide_vector(weight: NDArray[np.floating], n: int) -> NDArray[np.float32]:
    """RMSNorm weight [n] from the small one's [d]; what is added only ever meets zeros."""
    weight = np.asarray(weight, np.float64)
    out = np.full(n, weight.mean())
    out[: len(weight)] = weight
    return (out * math.sqrt(len(weight) / n)).astype(np.float32)


def is_exact(tensor: Matrix | Vector, stored: NDArray[np.floating], weights: Weights) -> bool:
    """Whether `stored`, read back, holds the small weight and is 0 where it must have no effect."""
    if isinstance(tensor, Vector):
        return np.array_equal(stored, wide_vector(weights[tensor.small], tensor.shape[0]))
    n_rows, n_columns = tensor.real
    first_random = len(stored) if tensor.random is None else tensor.random[0]
    if stored[n_rows:first_random].any():
        return False
    if tensor.random is None and stored[:n_rows, n_columns:].any():
        return False
    corner = stored[:n_rows, :n_columns]
    return tensor.small is None or np.array_equal(corner, weights[tensor.small].astype(np.float16))
