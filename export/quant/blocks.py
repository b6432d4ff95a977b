"""Weights in blocks with a scale and a zero each, as ONNX Runtime's MatMulNBits reads them.

A row of n_in values is cut into blocks of 16 to 256; a value is (code - zero) * scale + rest. The
kernel's zeros are whole numbers, so a block's rest is what GGML's minimum has beyond them: it is to
be multiplied by the sum of the block's inputs. GGML's blocks of 32 and 16 are carried over,
everything else is rounded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gguf
import numpy as np
from numpy.typing import NDArray

from ..read.checkpoint import Tensor

GGML_BLOCK = 32
# GGML kinds that are such blocks, of 32 or of what SMALLER says, and the bits for their codes.
EXACT = {"Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q5_0": 8, "Q5_1": 8, "Q5_K": 8, "Q6_K": 8, "Q8_0": 8}
SMALLER = {"Q6_K": 16}
SYMMETRIC = ("Q4_0", "Q5_0", "Q6_K", "Q8_0")
SHRINKS = np.linspace(0.7, 1.0, 13)  # scales tried, as shares of the one that reaches the extreme
ROWS = 4096  # taken at a time: a head of 150,000 rows would need gigabytes


@dataclass(frozen=True)
class Blocks:
    """codes: [n_out, n_blocks, block] uint8 below 2^bits. scales: [n_out, n_blocks] float32.

    zeros: [n_out, n_blocks] uint8 below 2^bits; None for the middle one everywhere.
    rests: [n_out, n_blocks] float32; None for nothing.
    """

    bits: int
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None = None
    rests: NDArray[np.float32] | None = None

    @property
    def block(self) -> int:
        return self.codes.shape[2]

    def floats(self) -> NDArray[np.float32]:
        """[n_out, n_blocks * block]."""
        zeros = self.all_zeros()[:, :, None].astype(np.float32)
        values = (self.codes.astype(np.float32) - zeros) * self.scales[:, :, None]
        if self.rests is not None:
            values += self.rests[:, :, None]
        return values.reshape(len(values), -1)

    def all_zeros(self) -> NDArray[np.uint8]:
        """The zeros, also where they are the middle one."""
        middle = np.uint8(1 << (self.bits - 1))
        return np.full(self.scales.shape, middle) if self.zeros is None else self.zeros

    def packed(self) -> NDArray[np.uint8]:
        """[n_out, n_blocks, block * bits / 8], the even value of a pair in the low half."""
        return self.codes if self.bits == 8 else in_pairs(self.codes)

    def packed_zeros(self) -> NDArray[np.uint8]:
        """[n_out, n_blocks * bits / 8], rounded up."""
        zeros = self.all_zeros()
        return (
            zeros if self.bits == 8 else in_pairs(np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2))))
        )

    def with_rests_behind(self) -> Blocks:
        """The same with the rests as columns behind the others, rounded themselves.

        They are multiplied by the sums of the input's blocks then.
        """
        if self.rests is None:
            return self
        rests = rounded(self.rests, self.bits, self.block)
        return Blocks(
            self.bits,
            np.concatenate([self.codes, rests.codes], axis=1),
            np.concatenate([self.scales, rests.scales], axis=1),
            np.concatenate([self.all_zeros(), rests.all_zeros()], axis=1),
        )


def in_pairs(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two codes of 4 bits to a byte."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


def joined(parts: Sequence[Blocks]) -> Blocks:
    """The rows of all parts, which have the same bits, one below the other."""
    rests = [np.zeros_like(part.scales) if part.rests is None else part.rests for part in parts]
    return Blocks(
        parts[0].bits,
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scales for part in parts]),
        None
        if all(part.zeros is None for part in parts)
        else np.concatenate([part.all_zeros() for part in parts]),
        None if all(part.rests is None for part in parts) else np.concatenate(rests),
    )


def blocks_of(tensor: Tensor, bits: int, block: int) -> Blocks:
    """The matrix in blocks of `block`, without rounding if it is stored so already.

    What is stored in SMALLER blocks keeps them where `block` is 32.
    """
    is_stored = EXACT.get(tensor.kind) == bits and block == GGML_BLOCK
    rows = (tensor.rows(part) for part in in_parts(tensor.shape[0]))
    return joined(
        [stored_blocks(part) if is_stored else rounded(part.floats(), bits, block) for part in rows]
    )


def in_parts(n: int) -> list[NDArray[np.intp]]:
    """0 to n - 1, at most ROWS together."""
    return [np.arange(at, min(at + ROWS, n)) for at in range(0, n, ROWS)]


def stored_blocks(tensor: Tensor) -> Blocks:
    """The blocks of a tensor of a kind in EXACT: its codes, and zeros and rests for its minimum."""
    bits = EXACT[tensor.kind]
    scales, least = steps(tensor, bits)
    values = tensor.floats().reshape(*scales.shape, -1)
    flat = scales == 0  # such a block's values are all its minimum: that is its scale here
    scales, least = np.where(flat, least, scales), np.where(flat, 0, least)
    whole = np.where(scales == 0, 1, scales)
    codes = np.rint((values - least[:, :, None]) / whole[:, :, None]).astype(np.uint8)
    if tensor.kind in SYMMETRIC:
        codes[scales == 0] = 1 << (bits - 1)  # as rounding writes an empty block
        return Blocks(bits, codes, scales)
    zeros = np.clip(np.rint(-least / whole), 0, (1 << bits) - 1).astype(np.uint8)
    return Blocks(bits, codes, scales, zeros, least + zeros * scales)


def steps(tensor: Tensor, bits: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[n_out, n_blocks] distance of neighbouring codes, and the value of code 0."""
    kind = gguf.GGMLQuantizationType[tensor.kind]
    raw = tensor.data.reshape(tensor.shape[0], -1, gguf.GGML_QUANT_SIZES[kind][1])
    if tensor.kind == "Q6_K":
        step = raw[:, :, 208:].copy().view(np.float16).astype(np.float32)
        step = (step * raw[:, :, 192:208].view(np.int8)).reshape(len(raw), -1)
        return step, step * -(1 << (bits - 1))
    heads = raw[:, :, :4].copy().view(np.float16).astype(np.float32)  # d and, where it is, m
    if tensor.kind in SYMMETRIC:
        return heads[:, :, 0], heads[:, :, 0] * -(1 << (bits - 1))
    if not tensor.kind.endswith("_K"):
        return heads[:, :, 0], heads[:, :, 1]
    shares = gguf.quants.Q4_K.get_scale_min(raw[:, :, 4:16].reshape(-1, 12))  # 8 to 256 values
    step, least = (
        (heads[:, :, i, None] * share.reshape(*heads.shape[:2], -1)).reshape(len(raw), -1)
        for i, share in enumerate(shares)
    )
    return step, -least


def rounded(weights: NDArray[np.float32], bits: int, block: int) -> Blocks:
    """The nearest codes of weights [n_out, n_in], each block's scale with the least square error.

    Columns missing in the last block count as 0.
    """
    n_out, n_in = weights.shape
    n_blocks = -(-n_in // block)
    padded = np.zeros((n_out, n_blocks * block), np.float32)
    padded[:, :n_in] = weights
    values = padded.reshape(n_out, n_blocks, block)
    scales = best_scales(values, bits)
    return Blocks(bits, codes_of(values, scales, bits), scales)


def best_scales(values: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """[n_out, n_blocks] scales for values [n_out, n_blocks, block]; signed as in Q4_0.

    The value of largest magnitude takes the one code that has no opposite, as in GGML, and a
    little less of it is tried: rounding the rest better may outweigh cutting it off.
    """
    at = np.abs(values).argmax(axis=2)[:, :, None]
    extreme = np.take_along_axis(values, at, axis=2)[:, :, 0] / -(1 << (bits - 1))
    best, least = extreme.copy(), np.full(extreme.shape, np.inf, np.float32)
    for share in SHRINKS if bits == 4 else (1.0,):
        scales = (extreme * share).astype(np.float32)
        back = Blocks(bits, codes_of(values, scales, bits), scales).floats()
        error = np.square(back.reshape(values.shape) - values).sum(axis=2)
        better = error < least
        best[better], least[better] = scales[better], error[better]
    return best


def codes_of(
    values: NDArray[np.float32], scales: NDArray[np.float32], bits: int
) -> NDArray[np.uint8]:
    """The nearest code of each value; shapes as in `best_scales`."""
    half = 1 << (bits - 1)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1 / scales[:, :, None]
    inverse[~np.isfinite(inverse)] = 0  # nothing but zeros, or too small to matter
    codes = np.rint(values * inverse) + half
    return np.clip(codes, 0, 2 * half - 1).astype(np.uint8)
