"""A low-rank correction of a drafter's head: logits + B (A h) + b, for the rows that matter.

It starts without effect, is trained elsewhere (adapt/trainer.py), and knows no model: it sees the
hidden states before the head and the logits after it. Rows that are not held are never moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ShapeError, UsageError

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.int64]

RANKS = range(1, 257)  # 8 to 64 are of use; beyond 32 little was gained in arXiv 2507.02659

BLOCK = 64  # positions whose slopes are added at a time: few enough that their rows stay in cache


@dataclass(frozen=True)
class Gradients:
    """Slopes of a loss, in the shapes of `HeadAdapter.parameters`."""

    down: Floats
    up: Floats
    bias: Floats

    @property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        """As `HeadAdapter.parameters` has them."""
        return self.down, self.up, self.bias


@dataclass
class HeadAdapter:
    """The correction as it is now; training changes the arrays in place.

    rows: [n] columns of the head's logits that are held, rising. down: A, [r, d]. up: B, [n, r].
    bias: b, [n]. Float32 in use; float64 works too, for checks.
    Source: LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1, on the head alone, with a bias.
    """

    rows: Places
    down: Floats
    up: Floats
    bias: Floats

    def __post_init__(self) -> None:
        n, rank = len(self.rows), len(self.down)
        shapes = (self.down.ndim, self.up.shape, self.bias.shape)
        if shapes != (2, (n, rank), (n,)):
            raise ShapeError(
                f"B is {self.up.shape} and b {self.bias.shape}: expected {(n, rank)} and {(n,)} "
                f"for {n} rows at rank {rank}; pass arrays of one adapter"
            )
        _check_rows(self.rows)

    @property
    def parameters(self) -> tuple[Floats, Floats, Floats]:
        """What is trained: A, B and b."""
        return self.down, self.up, self.bias

    @property
    def rank(self) -> int:
        """Numbers between A and B."""
        return len(self.down)

    @property
    def n_hidden(self) -> int:
        """Numbers in a hidden state."""
        return int(self.down.shape[1])

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays."""
        return sum(part.nbytes for part in (self.rows, *self.parameters))

    def copy(self) -> HeadAdapter:
        """One that shares nothing with this one."""
        down, up, bias = (part.copy() for part in self.parameters)
        return HeadAdapter(self.rows.copy(), down, up, bias)

    def become(self, other: HeadAdapter) -> None:
        """Take over the rows and values of another, which stays its own."""
        new = other.copy()
        self.rows, self.down, self.up, self.bias = new.rows, new.down, new.up, new.bias

    def correct(self, logits: Floats, hidden: Floats) -> None:
        """Add the correction to one row of logits [V] in place; hidden: [d]."""
        if len(self.rows) == 0:
            return
        change = self.up @ (self.down @ hidden)
        change += self.bias
        first, last = int(self.rows[0]), int(self.rows[-1])
        if last - first + 1 == len(self.rows):  # a slice adds ten times as fast as indices
            logits[first : last + 1] += change
        else:
            logits[self.rows] += change

    def places(self, columns: NDArray[np.integer[Any]]) -> Places:
        """Which held row each column of the head is, -1 for those that are not held (and for -1).

        columns, result: any shape.
        """
        end = int(self.rows[-1]) + 1 if len(self.rows) else 0
        table = np.full(end + 1, -1, np.int64)  # the last entry stands for all that is not held
        table[self.rows] = np.arange(len(self.rows))
        return np.asarray(table[np.minimum(columns, end)])  # and -1 is the last entry

    def corrections(self, hidden: Floats, places: Places | None = None) -> Floats:
        """What is added to the logits: [m, n] of all held rows, or [m, s] at `places`.

        hidden: [m, d]. places: [m, s] held rows; nothing is added at -1.
        """
        inner = hidden @ self.down.T  # [m, r]
        if places is None:
            return np.asarray(inner @ self.up.T + self.bias)
        if len(self.rows) == 0:
            return np.zeros(places.shape, self.bias.dtype)
        change = np.matmul(np.take(self.up, places, 0), inner[:, :, None])[:, :, 0]
        change += self.bias[places]
        return np.where(places < 0, self.bias.dtype.type(0), change)

    def backward(self, hidden: Floats, dz: Floats, places: Places | None = None) -> Gradients:
        """Exact slopes of a loss whose slope in the corrections is `dz`.

        hidden: [m, d]. dz: [m, n], or [m, s] at `places`, which names no row twice in a line.
        """
        if places is not None:
            return self._backward_at(hidden, dz, places)
        inner = hidden @ self.down.T
        return Gradients((dz @ self.up).T @ hidden, dz.T @ inner, dz.sum(axis=0))

    def _backward_at(self, hidden: Floats, dz: Floats, places: Places) -> Gradients:
        """`backward` by way of the rows that occur."""
        n, inner = len(self.rows), hidden @ self.down.T
        up = np.zeros_like(self.up)
        if n == 0:
            return Gradients(np.zeros_like(self.down), up, np.zeros_like(self.bias))
        dz = np.where(places < 0, dz.dtype.type(0), dz)
        for start in range(0, len(dz), BLOCK):
            some = slice(start, start + BLOCK)
            _add_outer(up, places[some], dz[some], inner[some])
        back = np.matmul(dz[:, None, :], np.take(self.up, places, 0))[:, 0]  # [m, r]
        bias = np.bincount((places % (n + 1)).ravel(), dz.ravel(), n + 1)[:n]
        return Gradients(back.T @ hidden, up, bias.astype(self.bias.dtype))

    def hold(self, rows: NDArray[np.integer[Any]]) -> Places:
        """Hold these rows instead: what stays keeps its values, what is new starts at zero.

        rows: [n'], in any order. Returns [n'], for each row held now its former place, or -1: what
        belongs to rows elsewhere moves along by it.
        """
        new = np.unique(np.asarray(rows, np.int64))
        _check_rows(new)
        origin = self.places(new)
        self.rows, self.up, self.bias = new, moved(self.up, origin), moved(self.bias, origin)
        return origin


def fresh(
    rows: NDArray[np.integer[Any]], n_hidden: int, *, rank: int = 32, seed: int = 0
) -> HeadAdapter:
    """An adapter without effect: B and b are zero, A normal with deviation 1 / sqrt(n_hidden).

    rows: columns of the head, in any order. Raises: UsageError.
    """
    if rank not in RANKS:
        raise UsageError(
            f"rank {rank}: expected {RANKS.start} to {RANKS.stop - 1}; 32 is a good start"
        )
    held = np.unique(np.asarray(rows, np.int64))
    down = np.random.default_rng(seed).standard_normal((rank, n_hidden)) / np.sqrt(n_hidden)
    up = np.zeros((len(held), rank), np.float32)
    return HeadAdapter(held, down.astype(np.float32), up, np.zeros(len(held), np.float32))


def _add_outer(up: Floats, places: Places, dz: Floats, inner: Floats) -> None:
    """Add each dz[i, j] inner[i] to the row places[i, j] of `up`, none at -1.

    By a product that is dense over the rows that occur: for 256 positions of 130 places in 16k rows
    5 to 6 ms, where sorting the places and adding the outer products up took 15.
    """
    occurs = np.zeros(len(up) + 1, np.bool_)
    occurs[places] = True  # -1 marks the last, which is no row
    occurs[-1] = True
    column = np.cumsum(occurs) - 1
    dense = np.zeros((len(dz), int(column[-1]) + 1), dz.dtype)
    np.put_along_axis(dense, column[places], dz, axis=1)
    up[np.flatnonzero(occurs[:-1])] += dense[:, :-1].T @ inner


def moved(values: Floats, origin: Places) -> Floats:
    """Lines of `values` in the order of `origin`, zeros where that is -1."""
    new = np.zeros((len(origin), *values.shape[1:]), values.dtype)
    new[origin >= 0] = values[origin[origin >= 0]]
    return new


def _check_rows(rows: Places) -> None:
    """Raises: ShapeError unless the rows rise from 0 on."""
    if rows.ndim != 1 or (len(rows) and (rows[0] < 0 or (np.diff(rows) <= 0).any())):
        raise ShapeError(
            f"rows of shape {rows.shape}: expected columns of the head, 0 or more, rising; "
            "make adapters with `fresh`"
        )
