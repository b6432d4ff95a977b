"""When not even to look for a draft: where looking in vain would take more than it can win."""

from __future__ import annotations

from collections.abc import Callable

FIRST_S = 3e-4  # what looking takes, until it is known: Python finds cold caches after a forward


class Rest:
    """Rounds of plain decoding between two looks: 1, 3, 7, .. while they are in vain.

    most: how many rounds at most, by the seconds a look takes. Against a target of 1 ms a look of
    150 us is 1 % of every 15 rounds, and an answer of 12 tokens is too short for a look at its
    begin; against one of 80 ms there is no rest at all.
    """

    def __init__(self, most: Callable[[float], int]) -> None:
        self._most, self.look_s = most, FIRST_S  # what looking usually takes
        self._n = self._n_left = most(FIRST_S)

    def goes_on(self) -> bool:
        """Whether the round that begins is left out; counts it."""
        self._n_left -= 1
        return self._n_left >= 0

    def looked(self, seconds: float) -> None:
        """A look took so long; a stall counts as three times the usual."""
        self.look_s += 0.1 * (min(seconds, 3 * self.look_s) - self.look_s)

    def lengthen(self) -> None:
        """It was in vain: more rounds than before are left out now."""
        self._n = self._n_left = min(2 * self._n + 1, self._most(self.look_s))

    def end(self) -> None:
        """Something was found: the next round is looked at."""
        self._n = self._n_left = 0
