"""What a target said at m positions, as a drafter can learn it: its likeliest tokens and the rest.

A target computes these rows of logits anyway when it verifies, so every verified position is a free
label. Row i says what follows position i: it belongs to the drafter's row of logits that proposed
that token, not to the one after it.
Source: Online Speculative Decoding, Liu et al. 2023, arXiv 2310.07177, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ShapeError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

KEPT = 64  # likeliest tokens of the target; OSD's choice, arXiv 2310.07177


@dataclass(frozen=True)
class Labels:
    """What m rows of a drafter's logits should have said.

    ids: [m, K] columns of the logits, -1 unused, none twice in a row. probs: [m, K] the target's,
    0 where unused; what is missing to 1 is the tail. piece: [m] the column that is right where only
    that is known (the pieces of an n-gram), else -1. drafted: [m] the column that was proposed,
    else -1. accepted: [m] whether the target agreed.
    """

    ids: Ints
    probs: Floats
    piece: Ints
    drafted: Ints
    accepted: NDArray[np.bool_]

    @property
    def tail(self) -> Floats:
        """[m] the target's mass outside `ids`."""
        return np.asarray(np.maximum(1 - self.probs.sum(axis=1), 0))

    def __len__(self) -> int:
        return len(self.ids)


def labels(ids: Ints, probs: Floats, *, piece: Ints | None = None) -> Labels:
    """Labels of which nothing was proposed. Raises: ShapeError."""
    m = len(ids)
    if ids.shape != probs.shape or ids.ndim != 2 or (piece is not None and piece.shape != (m,)):
        raise ShapeError(
            f"ids {ids.shape} and probs {probs.shape}: expected [m, K] twice and piece [m]; "
            "pass one row for each position"
        )
    none = np.full(m, -1)
    return Labels(ids, probs, none if piece is None else piece, none, np.zeros(m, np.bool_))


def only_pieces(piece: Ints) -> Labels:
    """Labels of which one column each is known. piece: [m]."""
    m = len(piece)
    return labels(np.full((m, 1), -1), np.zeros((m, 1), np.float32), piece=piece)


@dataclass(frozen=True)
class Mapped:
    """A target's likeliest tokens as columns of a drafter's head.

    ids, probs: as in `Labels`, [m, kept], the likeliest first. mass: [m] the target's probability
    of all that became columns; the tail holds what did not: unlikely, or not to be mapped.
    """

    ids: NDArray[np.int64]
    probs: NDArray[np.float32]
    mass: NDArray[np.float32]


def mapped(logits: Floats, row_of: Ints, *, kept: int = KEPT) -> Mapped:
    """The `kept` likeliest tokens of each row of the target's logits, in the drafter's columns.

    logits: [m, V], after the temperature. row_of: [V] the column of each token, -1 for none; tokens
    of one column add up. Raises: ShapeError.
    """
    if logits.ndim != 2 or logits.shape[1] != len(row_of):
        raise ShapeError(
            f"target logits are {logits.shape}: expected [m, {len(row_of)}], one column for each "
            "entry of row_of; pass logits and map of one pair"
        )
    probs = _softmax(logits)
    kept = min(kept, logits.shape[1])
    top = np.argpartition(-logits, kept - 1, axis=1)[:, :kept]  # [m, kept]
    return in_columns(np.asarray(row_of, np.int64)[top], np.take_along_axis(probs, top, 1))


def in_columns(columns: Ints, probs: NDArray[np.float32]) -> Mapped:
    """Tokens' probabilities as those of columns: tokens of one column add up.

    columns: [m, K] of each token, -1 for none. probs: [m, K] the target's, over its whole
    vocabulary: what is missing to 1 stays missing, and so does a token without a column.
    """
    ids, values = _merged(columns, probs)
    return Mapped(ids, values, values.sum(axis=1))


def _softmax(logits: Floats) -> NDArray[np.float32]:
    """In float32, from logits of any width."""
    shifted = np.asarray(logits, np.float32)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _merged(ids: Ints, probs: Floats) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """One entry for each column that occurs, the likeliest first; -1 and 0 after them."""
    order = np.argsort(ids, axis=1, kind="stable")
    ids, probs = np.take_along_axis(ids, order, 1), np.take_along_axis(probs, order, 1)
    group = np.cumsum(np.diff(ids, axis=1, prepend=-2) != 0, axis=1) - 1  # [m, K]
    sums, first = np.zeros_like(probs), np.full_like(ids, -1)
    line = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    np.add.at(sums, (line, group), probs)
    first[line, group] = ids
    sums[first < 0] = 0
    best = np.argsort(-sums, axis=1, kind="stable")
    return np.take_along_axis(first, best, 1), np.take_along_axis(sums, best, 1)
