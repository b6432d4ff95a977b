"""The wide model's shape and weights: the small model's in one corner, the rest without effect.

Pure arithmetic on shapes and arrays; model.py reads and writes the files. Why the wide model
computes what the small one does:

- The residual has more dimensions, and they stay exactly 0: no row of token_embd, attn_output
  or ffn_down writes to them. So weights that read them may be anything.
- Extra heads and neurons work on real data with random weights; the columns of attn_output
  and ffn_down that would pass on what they say are 0. Extra layers have only such columns.
- Extra channels of a short convolution (LFM2) work likewise: out_proj has zeros for them.
- RMSNorm divides by the root of a mean over all dimensions, D instead of d with the same sum:
  weights times sqrt(d / D) and epsilon times d / D undo it. Norms within a head stay as they are,
  but have the same epsilon, which so is a little small for them.

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
    mixers: of a hybrid, what each layer mixes tokens by, "attention" or "convolution" over
    `n_kernel` tokens; empty for a Llama.
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
    mixers: tuple[str, ...] = ()
    n_kernel: int = 0

    @property
    def output_norm(self) -> str:
        """Its name: LFM2 calls the norm before the head by another."""
        return "token_embd_norm.weight" if self.mixers else "output_norm.weight"


@dataclass(frozen=True)
class Matrix:
    """One F16 weight [rows, columns] of the wide model and what fills it.

    small: the weight of the small model that lies top left, None in an extra layer.
    real: its rows and columns. random: None for zeros everywhere else; (r, c) for random weights
    in all rows from r on and, right of the small weight, in the columns from c on.
    like: the weight of the small model whose spread the random ones have. n_parts: of as many equal
    groups of rows, each with its share of the small weight; shape, real and random are of one.
    """

    name: str
    shape: tuple[int, int]
    real: tuple[int, int]
    random: tuple[int, int] | None
    small: str | None
    like: str
    n_parts: int = 1
    dtype: ClassVar[np.dtype[np.float16]] = np.dtype(np.float16)

    @property
    def stored(self) -> tuple[int, int]:
        """The shape of the whole."""
        return self.shape[0] * self.n_parts, self.shape[1]


@dataclass(frozen=True)
class Vector:
    """One F32 weight [n]: a norm's if `shape` differs from the small one's, else a copy."""

    name: str
    shape: tuple[int]
    small: str
    dtype: ClassVar[np.dtype[np.float32]] = np.dtype(np.float32)

    @property
    def stored(self) -> tuple[int]:
        """The shape of the whole."""
        return self.shape


@dataclass(frozen=True)
class Kernel:
    """The F32 weights [channels, tokens] of a short convolution; extra ones have the first's."""

    name: str
    shape: tuple[int, int]
    small: str
    dtype: ClassVar[np.dtype[np.float32]] = np.dtype(np.float32)

    @property
    def stored(self) -> tuple[int, int]:
        """The shape of the whole."""
        return self.shape


Tensor = Matrix | Vector | Kernel
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
    wide = replace(
        small,
        n_embd=n_embd,
        n_layers=n_layers,
        n_ff=n_ff,
        n_heads=n_kv_heads * group,
        n_kv_heads=n_kv_heads,
    )
    if small.mixers:
        mixers = tuple(small.mixers[source] for source, _ in layer_sources(small, wide))
        wide = replace(wide, mixers=mixers)
    return wide


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


def tensors(small: Shape, wide: Shape) -> Iterator[Tensor]:
    """Every weight of the wide model in the order of the file; `wide` may be `small` itself."""
    vocab, d, width = small.n_vocab, small.n_embd, wide.n_embd
    embedding, head = "token_embd.weight", "output.weight"
    yield Matrix(embedding, (vocab, width), (vocab, d), None, embedding, embedding)
    yield Vector(small.output_norm, (width,), small.output_norm)
    if not small.tied:
        beside = vocab, block_end(d, width)
        yield Matrix(head, (vocab, width), (vocab, d), beside, head, head)
    if small.rotation_factors:
        yield Vector(ROTATION_FACTORS, (small.rotation_factors,), ROTATION_FACTORS)
    for layer, (source, is_real) in enumerate(layer_sources(small, wide)):
        for name in ("attn_norm", "ffn_norm"):
            yield Vector(f"blk.{layer}.{name}.weight", (width,), f"blk.{source}.{name}.weight")
        yield from mixer_vectors(small, wide, layer, source)
        for name, shape, real, random_row in layer_matrices(small, wide, layer):
            like, wide_name = f"blk.{source}.{name}.weight", f"blk.{layer}.{name}.weight"
            n_parts = 3 if name == "shortconv.in_proj" else 1
            if is_real:
                random = None if random_row is None else (random_row, block_end(d, width))
                yield Matrix(wide_name, shape, real, random, like, like, n_parts)
            else:
                random = None if random_row is None else (0, 0)
                yield Matrix(wide_name, shape, (0, 0), random, None, like, n_parts)


def mixer_vectors(small: Shape, wide: Shape, layer: int, source: int) -> Iterator[Vector | Kernel]:
    """What a hybrid's layer has beside norms and matrices."""
    if not wide.mixers:
        return
    if wide.mixers[layer] == "attention":
        for name in ("attn_q_norm", "attn_k_norm"):
            of_small = f"blk.{source}.{name}.weight"
            yield Vector(f"blk.{layer}.{name}.weight", (small.head_dim,), of_small)
    else:
        name = "shortconv.conv.weight"
        shape = (wide.n_embd, small.n_kernel)
        yield Kernel(f"blk.{layer}.{name}", shape, f"blk.{source}.{name}")


def layer_matrices(
    small: Shape, wide: Shape, layer: int
) -> Iterator[tuple[str, tuple[int, int], tuple[int, int], int | None]]:
    """Name, wide shape, small shape and first random row of a real layer's weights.

    What is said by heads and neurons in the block of the last real one is 0: quantized
    activations share a scale per block as well. Hence no random rows there in attn_v and ffn_up.
    """
    if wide.mixers and wide.mixers[layer] == "convolution":
        yield from convolution_matrices(small.n_embd, wide.n_embd)
    else:
        yield from attention_matrices(small, wide)
    d, width = small.n_embd, wide.n_embd
    yield "ffn_gate", (wide.n_ff, width), (small.n_ff, d), small.n_ff
    yield "ffn_up", (wide.n_ff, width), (small.n_ff, d), block_end(small.n_ff, wide.n_ff)
    yield "ffn_down", (width, wide.n_ff), (d, small.n_ff), None


def convolution_matrices(
    d: int, width: int
) -> Iterator[tuple[str, tuple[int, int], tuple[int, int], int | None]]:
    """As layer_matrices; in_proj by its three parts, which are multiplied."""
    yield "shortconv.in_proj", (width, width), (d, d), block_end(d, width)
    yield "shortconv.out_proj", (width, width), (d, d), None


def attention_matrices(
    small: Shape, wide: Shape
) -> Iterator[tuple[str, tuple[int, int], tuple[int, int], int | None]]:
    """As layer_matrices."""
    d, width = small.n_embd, wide.n_embd
    heads, wide_heads = small.n_heads * small.head_dim, wide.n_heads * wide.head_dim
    kv, wide_kv = small.n_kv_heads * small.head_dim, wide.n_kv_heads * wide.head_dim
    group = small.n_heads // small.n_kv_heads
    quiet_heads = -(-block_end(heads, wide_heads) // (group * small.head_dim))
    yield "attn_q", (wide_heads, width), (heads, d), heads
    yield "attn_k", (wide_kv, width), (kv, d), kv
    yield "attn_v", (wide_kv, width), (kv, d), quiet_heads * small.head_dim
    yield "attn_output", (width, wide_heads), (d, heads), None


def make(tensor: Tensor, weights: Weights, seed: int) -> NDArray[np.floating]:
    """The weight itself; the same for the same seed, whatever else is made before it.

    Raises: ModelFileError when a real weight is not finite in F16.
    """
    if isinstance(tensor, Vector):
        return wide_vector(weights[tensor.small], tensor.shape[0])
    if isinstance(tensor, Kernel):
        return wide_kernel(weights[tensor.small], tensor.shape[0])
    out = np.zeros(tensor.stored, np.float16)
    rng = np.random.default_rng([seed, zlib.crc32(tensor.name.encode())])
    for part, corner in parts(tensor, out, weights):
        fill(part, corner, tensor, weights, rng)
    return out


def parts(
    tensor: Matrix, whole: NDArray[np.floating], weights: Weights
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating] | None]]:
    """The groups of rows of a wide weight, each with what lies top left in it."""
    groups = np.split(whole, tensor.n_parts)
    if tensor.small is None:
        yield from ((group, None) for group in groups)
    else:
        corners = np.split(np.asarray(weights[tensor.small]), tensor.n_parts)
        yield from zip(groups, corners, strict=True)


def fill(
    out: NDArray[np.float16],
    corner: NDArray[np.floating] | None,
    tensor: Matrix,
    weights: Weights,
    rng: np.random.Generator,
) -> None:
    """One group of rows, which are zeros."""
    n_rows, n_columns = tensor.real
    if tensor.random is not None:
        std = float(weights[tensor.like].std(dtype=np.float64))
        row, column = tensor.random
        fill_normal(out[row:], std, rng)
        fill_normal(out[:n_rows, column:], std, rng)
    if corner is not None:
        with np.errstate(over="ignore"):
            out[:n_rows, :n_columns] = corner
        if not np.isfinite(out[:n_rows, :n_columns]).all():
            raise ModelFileError(
                f"{tensor.small} has a weight that F16 cannot hold: expected finite numbers "
                "up to 65504, choose another model"
            )


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


def wide_kernel(weight: NDArray[np.floating], n: int) -> NDArray[np.float32]:
    """Kernels [n, tokens] from the small ones [d, tokens]: the first again in channels more."""
    out = np.repeat(np.asarray(weight[:1], np.float32), n, axis=0)
    out[: len(weight)] = weight
    return out


def is_exact(tensor: Tensor, stored: NDArray[np.floating], weights: Weights) -> bool:
    """Whether `stored`, read back, holds the small weight and is 0 where it must have no effect."""
    if isinstance(tensor, Vector):
        return np.array_equal(stored, wide_vector(weights[tensor.small], tensor.shape[0]))
    if isinstance(tensor, Kernel):
        return np.array_equal(stored, wide_kernel(weights[tensor.small], tensor.shape[0]))
    return all(
        is_exact_part(tensor, part, corner) for part, corner in parts(tensor, stored, weights)
    )


def is_exact_part(
    tensor: Matrix, stored: NDArray[np.floating], small: NDArray[np.floating] | None
) -> bool:
    """As is_exact, of one group of rows."""
    n_rows, n_columns = tensor.real
    first_random = len(stored) if tensor.random is None else tensor.random[0]
    if stored[n_rows:first_random].any():
        return False
    if tensor.random is None and stored[:n_rows, n_columns:].any():
        return False
    corner = stored[:n_rows, :n_columns]
    return small is None or np.array_equal(corner, small.astype(np.float16))
