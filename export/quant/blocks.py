"""Weights in blocks with one scale each, as ONNX Runtime's MatMulNBits reads them.

A row of n_in values is cut into blocks of 16 to 256; a value is (code - zero) * scale with zero 8
for 4 bits and 128 for 8. GGML's Q4_0 and Q8_0 are such blocks of 32 and are carried over exactly;
everything else is rounded here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..read.checkpoint import Tensor

GGML_BLOCK = 32
EXACT = {"Q4_0": 4, "Q8_0": 8}  # GGML kinds that are blocks of 32 already: bits
SHRINKS = np.linspace(0.7, 1.0, 13)  # scales tried, as shares of the one that reaches the extreme


@dataclass(frozen=True)
class Blocks:
    """codes: [n_out, n_blocks, block] uint8 below 2^bits. scales: [n_out, n_blocks] float32."""

    bits: int
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]

    @property
    def block(self) -> int:
        return self.codes.shape[2]

    def floats(self) -> NDArray[np.float32]:
        """[n_out, n_blocks * block]."""
        values = (self.codes.astype(np.float32) - (1 << (self.bits - 1))) * self.scales[:, :, None]
        return values.reshape(len(values), -1)

    def packed(self) -> NDArray[np.uint8]:
        """[n_out, n_blocks, block * bits / 8], the even value of a pair in the low half."""
        if self.bits == 8:
            return self.codes
        return self.codes[:, :, 0::2] | self.codes[:, :, 1::2] << 4


def blocks_of(tensor: Tensor, bits: int, block: int) -> Blocks:
    """The matrix in blocks of `block`, without rounding if it is stored so already."""
    if EXACT.get(tensor.kind) == bits and block == GGML_BLOCK:
        return stored_blocks(tensor)
    return rounded(tensor.floats(), bits, block)


def stored_blocks(tensor: Tensor) -> Blocks:
    """The blocks of a Q4_0 or Q8_0 tensor, as they are."""
    bits = EXACT[tensor.kind]
    raw = tensor.data.reshape(tensor.shape[0], -1, 2 + GGML_BLOCK * bits // 8)
    scales = raw[:, :, :2].copy().view(np.float16)[:, :, 0].astype(np.float32)
    if bits == 8:
        codes = (raw[:, :, 2:].view(np.int8).astype(np.int16) + 128).astype(np.uint8)
    else:  # the first half of a block lies in the low halves of its bytes
        codes = np.concatenate([raw[:, :, 2:] & 15, raw[:, :, 2:] >> 4], axis=2)
    return Blocks(bits, codes, scales)


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
