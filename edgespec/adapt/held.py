"""Which rows of the drafter's head are corrected: those that labels have named latest."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adapter import Places
from edgespec.adapt.trainer import Trainer

MOST, SPARE = 8192, 512  # rows; and how many leave at once where there is no room, not each step


class HeldRows:
    """Of all heads of a pair; n_columns: of the drafter's.

    Where there is no room rows leave that were named longest ago, of equal ones those that move
    their logit least.
    """

    def __init__(self, n_columns: int, *, most: int = MOST, spare: int = SPARE) -> None:
        self._most, self._spare = most, spare
        self._new: set[int] = set()
        self._last = np.zeros(n_columns, np.int64)  # when each was named
        self._now = 0

    def name(self, columns: Iterable[int]) -> None:
        """Labels have named these; -1 stands for none."""
        self._new.update(columns)

    def follow(self, trainer: Trainer, has: NDArray[np.bool_] | None = None) -> None:
        """Have a head hold what was named since, and no row that a trimmed head has lost.

        has: [n_columns] which ones it has; None: all.
        """
        named = np.array(sorted(self._new - {-1}), np.int64)
        self._new.clear()
        self._now += 1
        self._last[named] = self._now
        known = trainer.adapter.rows
        stay = known
        if has is not None:
            stay, named = known[has[known]], named[has[named]]
        new = np.setdiff1d(named, stay)[: self._most]
        if len(stay) + len(new) > self._most:
            stay = self._latest(trainer, stay, self._most - max(len(new), self._spare))
        if len(new) or len(stay) < len(known):
            trainer.hold(np.union1d(stay, new))

    def _latest(self, trainer: Trainer, rows: Places, n: int) -> Places:
        """The n of these held rows that were named last."""
        adapter = trainer.adapter
        moves = np.abs(adapter.up).sum(axis=1) + np.abs(adapter.bias)
        order = np.lexsort((moves[adapter.places(rows)], self._last[rows]))
        return rows[order[len(rows) - n :]]
