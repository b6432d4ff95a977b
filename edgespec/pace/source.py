"""What is known of one source of drafts, and what drafting it is worth.

A draft's worth is the tokens it is expected to add, less those that would be emitted in the time
it takes: at the rate R that decoding has, a second is worth R tokens (Dinkelbach's form of a
ratio), so the width of most worth also has the most tokens per second in the long run. Source of
the rule that stops a draft once going on is worth less: SpecDec++, arXiv 2405.19715, theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgespec.pace.head import MAX_WIDTH, AcceptanceHead, features, last_said, log_odds

PRIOR = 0.7  # acceptance believed before any evidence, so that drafting starts
TRUST = 0.8  # of the drafter's own log odds, before any evidence
FIRST = 4  # most tokens of a first draft
AHEAD = 4  # tokens looked ahead while drafting
KEEP = 0.98  # weight of a rate one tested token older
FEW = 8  # tokens tested in a text, by which half is known of it


class Source:
    """Acceptance, given what a draft says of itself (drafted) and before it is made (coming).

    rate: accepted of tested tokens, lately. n_tested: in all.
    """

    def __init__(self) -> None:
        self.drafted = AcceptanceHead(0.0, TRUST)
        self.coming = AcceptanceHead(log_odds(PRIOR), 0.2)
        self.rate, self.n_tested = PRIOR, 0
        self._n_before: int | None = None  # of them in earlier texts, where texts are told apart
        self.reach = 0  # most tokens of a draft that were ever tested
        self._usual = 1.0  # log odds that its tokens have
        self._grown, self._told = list[float](), (0, 0.0)  # of the last draft, and its last token
        self.balance_s = 0.0  # seconds scoring may still take; negative while paying back
        self.hope = 1.0  # the part of the usual share that scoring is worth
        self.step_s: float | None = None  # as last planned with before drafting
        self.fixed_s = 0.0
        self.paused = False
        self.streak = 0  # drafts lately all right, up to 3; a wrong one takes two away

    def learn(self, confidence: Sequence[float], accepted: Sequence[float]) -> None:
        """Of a draft's first tokens, as many as were tested, whether each was accepted: 1 or 0,
        or the chance that it would have been.
        """
        said, before = features(confidence[: len(accepted)]), 0.0
        right = min(accepted, default=1.0) > 0.5
        self.streak = min(self.streak + 1, 3) if right else max(self.streak - 2, 0)
        for i, one in enumerate(accepted[:MAX_WIDTH]):
            self.coming.learn(i, before, one)
            if said:
                before = said[i]
                self.drafted.learn(i, before, one)
                self._usual += 0.05 * (before - self._usual)
            self.rate += (one - self.rate) * max(1 - KEEP, 1 / (self.n_tested + 4))
            self.n_tested += 1
        self.reach = max(self.reach, min(len(accepted), MAX_WIDTH))

    def survival(self, confidence: Sequence[float]) -> list[float]:
        """P(it and all before it are accepted) of each drafted token."""
        out, alive = list[float](), 1.0
        for i, said in enumerate(features(confidence)):
            alive *= self.drafted.p(i, said)
            out.append(alive)
        return out

    def grown(self, confidence: Sequence[float]) -> list[float]:
        """The same for a draft that grows from call to call; only its last token is looked at."""
        told, self._told = self._told, (len(confidence), confidence[-1])
        k = len(confidence)
        if k > 1 and told == (k - 1, confidence[-2]):
            self._grown.append(self._grown[-1] * self.drafted.p(k - 1, last_said(confidence)))
        elif told != self._told:
            self._grown = self.survival(confidence)
        return self._grown

    def to_come(self, confidence: Sequence[float], n: int) -> Iterator[float]:
        """P(accepted) of each of n tokens that would follow, those before it being accepted.

        Fewer where so long a draft was never near to being tested: a few lucky first rounds
        promise nothing for sixteen tokens.
        """
        k, most = len(confidence), max(FIRST, 2 * self.reach + 1)
        for i in range(k, min(k + n, most, MAX_WIDTH)):
            said = self._usual if i > k else last_said(confidence) if k else 0.0
            yield self.coming.p(i, said)

    def renew(self, n: int) -> None:
        """Another text begins, after one of n tokens."""
        self.drafted.renew(n)
        self.coming.renew(n)
        self._n_before = self.n_tested

    @property
    def doubt(self) -> float:
        """1 where a text has tested nothing yet, less the more it has; 0 where all are one."""
        return 0.0 if self._n_before is None else FEW / (FEW + self.n_tested - self._n_before)

    def saved(self) -> dict[str, Any]:
        """What was learned, for a file."""
        return {
            "drafted": self.drafted.saved(),
            "coming": self.coming.saved(),
            "rate": self.rate,
            "tested": self.n_tested,
            "usual": self._usual,
            "reach": self.reach,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Begin with what was saved. Raises: KeyError, TypeError, ValueError for what was not."""
        self.rate, self._usual = float(saved["rate"]), float(saved["usual"])
        self.n_tested = max(0, int(saved["tested"]))
        self.reach = max(0, min(int(saved["reach"]), MAX_WIDTH))
        self.drafted.load(saved["drafted"])
        self.coming.load(saved["coming"])


def outcomes(n_tested: int, n_hits: int) -> list[float]:
    """1 for each of the first n_hits of the tested tokens, 0 for the others."""
    return [1.0] * n_hits + [0.0] * (n_tested - n_hits)


@dataclass(frozen=True)
class Prices:
    """What tokens and seconds are worth. seconds: of a target forward of 1, 2, .. tokens.

    rate: tokens per second that decoding gives. step_s: of drafting one token.
    """

    seconds: Sequence[float]
    rate: float
    step_s: float = 0.0

    def worth(self, expected: float, k: int, n_drafting: int = 0) -> float:
        """Of verifying k tokens, `expected` accepted, if so many are still to be drafted."""
        more_s = self.seconds[k] - self.seconds[0] + n_drafting * self.step_s
        return expected - self.rate * more_s

    def risk(self, first: float, k: int) -> float:
        """Tokens that verifying k loses, times the chance that none is accepted.

        first: the chance of the first one.
        """
        return (1 - first) * self.rate * (self.seconds[k] - self.seconds[0])


def best_drafted(survival: Sequence[float], prices: Prices) -> tuple[int, float, float]:
    """The width of most worth of a draft, its worth, and the tokens expected; 0 if none has any."""
    width, best, at_best, expected = 0, 0.0, 0.0, 0.0
    for k, alive in enumerate(survival, 1):
        expected += alive
        worth = prices.worth(expected, k)
        if worth > best:
            width, best, at_best = k, worth, expected
    return width, best, at_best


def best_to_come(chances: Iterable[float], prices: Prices) -> tuple[int, float, float]:
    """The same of a draft that is not made yet; its first width's where none has any worth."""
    width, best, at_best, expected, alive = 0, -math.inf, 0.0, 0.0, 1.0
    for k, chance in enumerate(chances, 1):
        alive *= chance
        expected += alive
        worth = prices.worth(expected, k, k)
        if worth > best:
            width, best, at_best = k, worth, expected
        elif k >= width + AHEAD:
            break
    return width, best, at_best


def best_with(
    survival: Sequence[float], chances: Iterable[float], prices: Prices
) -> tuple[int, float, float]:
    """The width of most worth that holds all of these tokens, and perhaps some that would follow,
    its worth, and the tokens expected.
    """
    expected, alive, n_drafted = sum(survival), survival[-1], len(survival)
    width, best, at_best = n_drafted, prices.worth(expected, n_drafted), expected
    for n, chance in enumerate(chances, 1):
        alive *= chance
        expected += alive
        worth = prices.worth(expected, n_drafted + n, n)
        if worth > best:
            width, best, at_best = n_drafted + n, worth, expected
    return width, best, at_best


def goes_on(
    survival: Sequence[float], chances: Iterable[float], prices: Prices, *, whole: bool = False
) -> bool:
    """Whether a draft is worth more with any number of tokens that would follow.

    whole: than all of it, else than the best part of it.
    """
    _, now, _ = best_drafted(survival, prices)
    if whole:
        now = prices.worth(sum(survival), len(survival))
    _, then, _ = best_with(survival, chances, prices)
    return then > now
