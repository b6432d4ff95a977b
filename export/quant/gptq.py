"""Rounding that knows what a matrix is fed: columns still to be rounded make up for earlier errors.

Plain rounding takes the nearest weights; this takes those whose outputs differ least on inputs
that were seen. Arrays alone: moments.py looks at the inputs.

Source: Frantar et al. 2022, GPTQ, arXiv 2210.17323. Columns keep their order; each block's scale
is the one of several that leaves the least error once the block's own columns have made up for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .blocks import Blocks, best_scales, codes_of

Floats = NDArray[np.float32]

DAMPING = 0.01  # of the mean second moment, added to each: unseen inputs count a little
# Scales tried, as shares of the one by which the largest value takes the one code that has no
# opposite; a negative one gives it a code of the other sign.
SHARES = (0.75, 0.8, 0.85, 0.9, 0.95, 1.0, -0.95, -1.05, -1.14)
ROWS = 256  # rounded together: what is kept of them while scales are tried stays in the cache


@dataclass(frozen=True)
class Moments:
    """Inputs of a matrix. columns: [n] those that count, ascending. sums: [n, n], their X^T X."""

    columns: NDArray[np.intp]
    sums: Floats


def calibrated(weights: Floats, moments: Moments, bits: int, block: int) -> Blocks:
    """Blocks for weights [n_out, n_in] whose product with the inputs seen is nearest to theirs.

    Scales are float16 numbers, so that 4-bit blocks of 32 are a Q4_0 tensor. Columns whose weights
    are all 0 stay 0, and blocks of columns whose inputs never moved are rounded plainly; neither
    takes over an error.
    """
    values = in_blocks(weights, block)
    scales = halves(best_scales(values, bits))
    codes = codes_of(values, scales, bits)
    live, sums = counted(weights, moments, block)
    if len(live):
        factor = inverse_factor(sums)
        for start in range(0, len(weights), ROWS):
            rows = slice(start, start + ROWS)
            turned = np.ascontiguousarray(weights[rows, live].T)
            round_live(turned, factor, live, bits, codes[rows], scales[rows])
    return Blocks(bits, codes, scales)


def in_blocks(weights: Floats, block: int) -> Floats:
    """[n_out, n_blocks, block], columns missing in the last block 0."""
    n_out, n_in = weights.shape
    n_blocks = -(-n_in // block)
    values = np.zeros((n_out, n_blocks * block), np.float32)
    values[:, :n_in] = weights
    return values.reshape(n_out, n_blocks, block)


def halves(scales: Floats) -> Floats:
    """The nearest float16 numbers."""
    return scales.astype(np.float16).astype(np.float32)


def counted(weights: Floats, moments: Moments, block: int) -> tuple[NDArray[np.intp], Floats]:
    """The columns to round by what was seen, and their sums.

    Those with weights, in the blocks that have one with weights and an input that moved.
    """
    columns = moments.columns
    alive = weights[:, columns].any(axis=0)
    moved = np.unique(columns[alive & (moments.sums.diagonal() > 0)] // block)
    at = np.flatnonzero(alive & np.isin(columns // block, moved))
    return columns[at], moments.sums[np.ix_(at, at)]


def inverse_factor(sums: Floats) -> Floats:
    """Upper triangular U with U^T U the inverse of the damped sums."""
    damped = sums.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * damped.diagonal().mean()
    # damped = R R^T with R upper triangular; then U is the inverse of R.
    root = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    return np.linalg.inv(root).astype(np.float32)


def round_live(
    left: Floats,
    factor: Floats,
    live: NDArray[np.intp],
    bits: int,
    codes: NDArray[np.uint8],
    scales: Floats,
) -> None:
    """Round the columns `live` of some rows into `codes` and `scales`, one block after another.

    left: [n_live, n_rows] weights of those columns, overwritten. codes: [n_rows, n_blocks, block].
    """
    block = codes.shape[2]
    numbers, starts = np.unique(live // block, return_index=True)
    for number, start, end in zip(numbers, starts, [*starts[1:], len(live)], strict=True):
        inside = slice(start, end)
        scale, code, error = best_block(left[inside], factor[inside, inside], bits)
        scales[:, number] = scale
        codes[:, number, live[inside] % block] = code.T
        left[end:] -= factor[inside, end:].T @ error


def best_block(
    values: Floats, factor: Floats, bits: int
) -> tuple[Floats, NDArray[np.uint8], Floats]:
    """Scales [n_rows], codes and errors [n, n_rows] of one block's values [n, n_rows].

    Of the scales tried, each row's with the least sum of squared errors.
    """
    half, n_rows = 1 << (bits - 1), values.shape[1]
    at = np.abs(values).argmax(axis=0)
    extreme = values[at, np.arange(n_rows)] / -half
    shares = np.array(SHARES, np.float32) if bits == 4 else np.ones(1, np.float32)
    tried = halves(shares[:, None] * extreme)
    codes, errors = rounded_in_turn(values, factor, tried, half)
    best = np.square(errors).sum(axis=0).argmin(axis=0), np.arange(n_rows)
    return tried[best], codes[:, best[0], best[1]], errors[:, best[0], best[1]]


def rounded_in_turn(
    values: Floats, factor: Floats, scales: Floats, half: int
) -> tuple[NDArray[np.uint8], Floats]:
    """Codes and errors [n, n_scales, n_rows] of values [n, n_rows] with scales [n_scales, n_rows].

    An error is what a column could not say, over the factor's diagonal: times the factor's row it
    is what the columns behind have to say less.
    """
    n, (n_scales, n_rows) = len(values), scales.shape
    codes = np.empty((n, n_scales, n_rows), np.uint8)
    errors = np.empty((n, n_scales, n_rows), np.float32)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    for i in range(n):
        owed = factor[:i, i] @ errors[:i].reshape(i, n_scales * n_rows)
        wanted = values[i] - owed.reshape(n_scales, n_rows)
        steps = np.clip(np.rint(wanted * inverse), -half, half - 1)
        codes[i] = steps + half
        errors[i] = (wanted - steps * scales) / factor[i, i]
    return codes, errors
