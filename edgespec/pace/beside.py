"""What rounds take beside target and drafter: comparing, emitting, looking for drafts.

A large target's rounds hardly notice; of the demo pair's, whose token takes 1.4 ms, verifying 3
tokens takes 0.25 ms more than plain decoding so, and more at a temperature, where every row of
logits becomes a law.
"""

from __future__ import annotations

from edgespec.pace.cost import DraftCosts


class Beside:
    """Seconds of a round beside target and drafter, by the drafted tokens it verifies.

    first_s: until any round was seen.
    """

    def __init__(self, first_s: float = 0.0) -> None:
        self.plain_s = first_s
        self._drafted = DraftCosts()
        self._known = False

    def observe(self, k: int, seconds: float) -> None:
        """A round that verified k tokens took so much more."""
        if k:
            self._drafted.observe(k, seconds)
        elif self._known:
            self.plain_s += 0.05 * (min(seconds, 3 * self.plain_s) - self.plain_s)
        else:
            self.plain_s, self._known = seconds, True

    def of(self, k: int) -> float:
        """Expected of a round of k tokens; never less than plain decoding takes."""
        if not k:
            return self.plain_s
        return max(self._drafted.fixed_s + k * self._drafted.step_s, self.plain_s)
