"""Which of two heads is right more often where neither has learned.

Positions count before they are learned from, so each is a fair question. Those that both get right,
or both wrong, say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGMAS = 3.0
FEWEST = 8  # positions at which they differ; of fewer nothing follows
WORTH = 0.02  # of all positions; a smaller lead is not worth what it may cost when the text changes
BEHIND, DRIFT = 6.0, 0.25

Right = NDArray[np.float64]
"""[m] 1 where a head was right, else 0."""


@dataclass
class Lead:
    """A sign test over all that was asked. n_better, n_worse: positions at which the one alone, or
    the other alone, was right; of n.
    """

    n_better: int = 0
    n_worse: int = 0
    n: int = 0

    def add(self, one: Right, other: Right) -> None:
        """What both said at some positions."""
        self.n_better += int((one > other).sum())
        self.n_worse += int((one < other).sum())
        self.n += len(one)

    @property
    def is_sure(self) -> bool:
        """Whether the one is better, beyond its noise and by what is of use."""
        n, ahead = self.n_better + self.n_worse, self.n_better - self.n_worse
        return n >= FEWEST and ahead > max(SIGMAS * n**0.5, WORTH * self.n)


@dataclass
class Decline:
    """Whether the one has fallen behind lately, however far ahead it was: Page's cumulative sum.

    Each position where they differ moves `behind` by 1, less DRIFT, never below 0. Of heads that
    are alike it reaches BEHIND after 160 such positions (median of 400 simulations); where the
    other is right at 75 % of them after 16, where it is at 30 % after 9,100.
    Source: Page 1954, Continuous inspection schemes, Biometrika 41.
    """

    behind: float = 0.0

    def add(self, one: Right, other: Right) -> None:
        """What both said at some positions, in the order of the text."""
        for step in (other - one)[one != other].tolist():
            self.behind = max(self.behind + step - DRIFT, 0.0)
            if self.is_sure:
                return

    @property
    def is_sure(self) -> bool:
        """Whether it has."""
        return self.behind >= BEHIND
