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

    def corrections(self, hidden: Floats) -> Floats:
        """What is added to the logits of the held rows, [m, n + 1], at last a column of zeros.

        hidden: [m, d].
        """
        up, bias = np.pad(self.up, ((0, 1), (0, 0))), np.pad(self.bias, (0, 1))
        change = hidden @ self.down.T @ up.T
        change += bias
        return np.asarray(change)

    def backward(self, hidden: Floats, dz: Floats, held: Places) -> Gradients:
        """Exact slopes of a loss whose slope in the corrections of some rows is `dz`.

        hidden: [m, d]. dz: [m, k]. held: [k] which of the held rows, none twice.
        """
        up, bias = np.zeros_like(self.up), np.zeros_like(self.bias)
        up[held], bias[held] = dz.T @ (hidden @ self.down.T), dz.sum(axis=0)
        return Gradients((dz @ self.up[held]).T @ hidden, up, bias)

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
