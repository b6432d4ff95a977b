"""When what was measured in doubt is measured again: after a while, and seldomer each time.

Knows neither what is measured nor where it is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time

GROWTH = 4  # times as long is waited after each time that did not settle it
MOST_S = 30 * 86400.0


@dataclass(frozen=True)
class Doubt:
    """Of one measurement. since: seconds since 1970, 0 for no doubt. n_again: times it was made
    anew so far, whatever for. why: in a few words.
    """

    since: float = 0.0
    n_again: int = 0
    why: str = ""

    def is_due(self, after_s: float) -> bool:
        """Whether it is to be made anew: after_s of the first doubt."""
        wait_s = min(after_s * GROWTH ** min(self.n_again, 20), MOST_S)
        return self.since > 0 and time() > self.since + wait_s

    def raised(self, why: str) -> Doubt:
        """With doubt from now on; itself if there is already."""
        return self if self.since else Doubt(time(), self.n_again, why)

    def again(self, why: str = "") -> Doubt:
        """It was made anew; why: what it is in doubt for now."""
        return Doubt(time() if why else 0.0, self.n_again + 1, why)
