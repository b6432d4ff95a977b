"""Which of two heads is right more often where neither has learned: a sign test that goes on.

Positions count before they are learned from, so each is a fair question. Those that both get right,
or both wrong, say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 8  # positions at which they differ; of fewer nothing follows


@dataclass
class Rivals:
    """sigmas: what is believed. n_better, n_worse: positions at which the one alone, or the other
    alone, was right.
    """

    sigmas: float
    n_better: int = 0
    n_worse: int = 0

    def add(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        """one, other: [m] 1 where that head was right, else 0."""
        self.n_better += int((one > other).sum())
        self.n_worse += int((one < other).sum())

    @property
    def verdict(self) -> int:
        """1 if the one is better for sure, -1 if it is worse, 0 if that is not known."""
        n, ahead = self.n_better + self.n_worse, self.n_better - self.n_worse
        if n < FEWEST or abs(ahead) <= self.sigmas * n**0.5:
            return 0
        return 1 if ahead > 0 else -1
