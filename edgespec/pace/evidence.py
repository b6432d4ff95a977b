"""How likely drafted tokens are accepted, by position, from what was tested lately.

Knows nothing of times (cost.py) or of what is worth drafting (controller.py).
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_WIDTH = 16
PRIOR_WEIGHT = 4.0  # tested tokens the prior counts for; six refusals in a row stop most drafting
POOL_WEIGHT = 4.0  # tested tokens for which a position leans on all positions together
IDLE_WEIGHT = 1.5  # what is left of old evidence after a long pause: three hits reopen drafting


class Evidence:
    """Acceptance by position given that the tokens before were accepted, recent rounds foremost.

    A position leans on all positions together until it has evidence of its own. With predictions
    it is the ratio of accepted to predicted instead, which calibrates a drafter's confidence.
    """

    def __init__(self, prior: float) -> None:
        self._hits: list[float] = []  # as many positions as were ever tested
        self._expected: list[float] = []
        self._all_hits, self._all_expected = prior * PRIOR_WEIGHT, PRIOR_WEIGHT

    @property
    def rate(self) -> float:
        """All positions together."""
        return self._all_hits / self._all_expected

    def fade(self, keep: float) -> None:
        """Forget: rates stay, their weight shrinks, but not to nothing."""
        weight = self._all_expected
        keep = min(1.0, max(keep, IDLE_WEIGHT / weight))
        self._all_hits *= keep
        self._all_expected *= keep
        self._hits = [keep * x for x in self._hits]
        self._expected = [keep * x for x in self._expected]

    def learn(self, predicted: Sequence[float], n_tested: int, n_hits: int) -> None:
        """One draft: predicted acceptance of each tested position (1 without a prediction)."""
        n_tested = min(n_tested, len(predicted), MAX_WIDTH)
        while len(self._hits) < n_tested:
            self._hits.append(0.0)
            self._expected.append(0.0)
        for i in range(n_tested):
            self._expected[i] += predicted[i]
        for i in range(min(n_hits, n_tested)):
            self._hits[i] += 1
        self._all_expected += sum(predicted[:n_tested])
        self._all_hits += min(n_hits, n_tested)

    def survival(self, predicted: Sequence[float]) -> list[float]:
        """Probability for each position that it and all before it are accepted.

        Ends at twice the depth tested so far: a few lucky first rounds promise nothing for 16.
        """
        out, alive, rate, depth = [], 1.0, self.rate, len(self._hits)
        for i, one in enumerate(predicted[: max(4, 2 * depth + 1)]):
            own = rate
            if i < depth:
                own = (self._hits[i] + POOL_WEIGHT * rate) / (self._expected[i] + POOL_WEIGHT)
            alive *= min(own * one, 1.0)
            out.append(alive)
        return out


BLIND = (1.0,) * MAX_WIDTH  # predictions of a draft not made yet


def conditional(confidence: Sequence[float]) -> list[float]:
    """Cumulative confidences as one probability per position, given the positions before."""
    out, before = [], 1.0
    for one in confidence:
        out.append(max(one / before, 1e-3) if before > 0 else 1e-3)
        before = one
    return out
