"""What is known of one source of drafts, and what drafting it is worth.

A draft's worth is the tokens it is expected to add, less those that would be emitted in the time
it takes: at the rate R that decoding has, a second is worth R tokens (Dinkelbach's form of a
ratio), so the width of most worth also has the most tokens per second in the long run. Source of
the rule that stops a draft once going on is worth less: SpecDec++, arXiv 2405.19715, theorem 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgespec.pace.head import MAX_WIDTH, AcceptanceHead, features, log_odds

PRIOR = 0.7  # acceptance believed before any evidence, so that drafting starts
TRUST = 0.8  # of the drafter's own log odds, before any evidence
AHEAD = 4  # tokens looked ahead while drafting
KEEP = 0.98  # weight of a rate one tested token older


class Source:
    """Acceptance, given what a draft says of itself (drafted) and before it is made (coming).

    rate: accepted of tested tokens, lately. n_tested: in all.
    """

    def __init__(self) -> None:
        self.drafted = AcceptanceHead(0.0, TRUST)
        self.coming = AcceptanceHead(log_odds(PRIOR), 0.2)
        self.rate, self.n_tested = PRIOR, 0
        self._usual = 1.0  # log odds that its tokens have
        self.balance_s = 0.0  # seconds scoring may still take; negative while paying back
        self.step_s: float | None = None  # as last planned with before drafting
        self.fixed_s = 0.0
        self.paused = False

    def learn(self, confidence: Sequence[float], n_tested: int, n_hits: int) -> None:
        """Of a draft's first tokens so many were tested and so many of those accepted."""
        said, before = features(confidence[:n_tested]), 0.0
        for i in range(min(n_tested, MAX_WIDTH)):
            accepted = i < n_hits
            self.coming.learn(i, before, accepted)
            if said:
                before = said[i]
                self.drafted.learn(i, before, accepted)
                self._usual += 0.05 * (before - self._usual)
            self.rate += (accepted - self.rate) * max(1 - KEEP, 1 / (self.n_tested + 4))
            self.n_tested += 1

    def survival(self, confidence: Sequence[float], n: int) -> list[float]:
        """P(it and all before it are accepted) of the first n tokens, drafted or still to come."""
        out, alive, before = [], 1.0, 0.0
        said = features(confidence[:n])
        for i in range(n):
            if i < len(said):
                before = said[i]
                alive *= self.drafted.p(i, before)
            else:
                alive *= self.coming.p(i, before if i <= len(said) else self._usual * bool(i))
            out.append(alive)
        return out

    def renew(self) -> None:
        """Another text begins."""
        self.drafted.renew()
        self.coming.renew()

    def saved(self) -> dict[str, Any]:
        """What was learned, for a file."""
        return {
            "drafted": self.drafted.saved(),
            "coming": self.coming.saved(),
            "rate": self.rate,
            "usual": self._usual,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Begin with what was saved. Raises: KeyError, TypeError, ValueError for what was not."""
        self.rate, self._usual = float(saved["rate"]), float(saved["usual"])
        self.drafted.load(saved["drafted"])
        self.coming.load(saved["coming"])


def worths(
    survival: Sequence[float],
    costs_s: Sequence[float],
    rate: float,
    step_s: float,
    fixed_s: float = 0.0,
) -> list[float]:
    """Expected tokens of drafting 1, 2, .. tokens beyond what their time is worth.

    survival: of each token. costs_s: of a target forward of 1, 2, .. tokens. rate: tokens per
    second. step_s, fixed_s: of drafting one token, and of any draft.
    """
    out, expected = [], 0.0
    for k, alive in enumerate(survival, 1):
        expected += alive
        out.append(expected - rate * (costs_s[k] - costs_s[0] + fixed_s + k * step_s))
    return out
