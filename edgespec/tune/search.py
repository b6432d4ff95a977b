"""Which of several ways to decode is fastest on given prompts, within a time budget.

All ways that are left answer the same prompt one after the other, in turns; those that are behind
for good are left out, so that what the budget has left goes to those that are close. Knows
neither models nor options: it is handed a function that answers a prompt.

Source: successive halving, Jamieson and Talwalkar 2015, arXiv 1502.07943; deviation: a way leaves
when it is behind by a margin, not at fixed halves, and the first way is never left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

from edgespec.types import Stats

BEHIND = 1.15  # times as long as the best, over a whole pass: left out
SLOWER = 0.95  # times as fast on a kind: below is not what was promised
TIE = 0.015  # less is no difference on a machine that others use, too
Question = TypeVar("Question")


@dataclass
class Way:
    """A way to decode and what it took, by kind of prompt: seconds and tokens."""

    name: str
    stats: dict[str, list[Stats]] = field(default_factory=dict)

    def token_s(self, kind: str) -> float:
        """Seconds per token on a kind."""
        runs = self.stats[kind]
        return sum(one.decode_s for one in runs) / max(sum(one.n_tokens for one in runs), 1)

    def gain(self, over: Way, kind: str) -> float:
        """Times as fast as another way on a kind, over the prompts that both answered."""
        n = min(len(self.stats[kind]), len(over.stats[kind]))
        mine, others = Way("", {kind: self.stats[kind][:n]}), Way("", {kind: over.stats[kind][:n]})
        return others.token_s(kind) / max(mine.token_s(kind), 1e-12)

    def gains(self, over: Way) -> float:
        """Times as fast as another way: the geometric mean over kinds."""
        logs = [math.log(max(self.gain(over, kind), 1e-9)) for kind in self.stats]
        return math.exp(sum(logs) / len(logs)) if logs else 1.0


@dataclass(frozen=True)
class Race(Generic[Question]):
    """Ways against each other. told: the share of the budget that is used."""

    questions: Mapping[str, Sequence[Question]]
    answer: Callable[[str, Question], Stats]
    told: Callable[[float], None]
    clock: Callable[[], float] = perf_counter

    def run(self, names: Sequence[str], budget_s: float) -> list[Way]:
        """The ways in the order of `names`, each tried on at least one prompt of every kind."""
        ways = [Way(name, {kind: [] for kind in self.questions}) for name in names]
        start, left = self.clock(), list(ways)
        for number in range(max(map(len, self.questions.values()))):
            began = self.clock()
            self._pass(left, number, start, budget_s)
            left = [way for way in left if way is ways[0] or not behind(way, left, ways[0])]
            now = self.clock()
            if len(left) < 2 or now - start + (now - began) > budget_s:
                break
        return ways

    def _pass(self, ways: Sequence[Way], number: int, start: float, budget_s: float) -> None:
        """Every way answers the prompt of that number of each kind."""
        for at, (kind, questions) in enumerate(self.questions.items()):
            if number < len(questions):
                turn = (number + at) % len(ways)
                for way in (*ways[turn:], *ways[:turn]):
                    way.stats[kind].append(self.answer(way.name, questions[number]))
                    self.told((self.clock() - start) / max(budget_s, 1e-9))


def behind(way: Way, others: Sequence[Way], plain: Way) -> bool:
    """Whether a way is too slow to be tried further."""
    return way.gains(plain) * BEHIND < max(other.gains(plain) for other in others)


def best(ways: Sequence[Way]) -> Way:
    """The fastest way that is slower than the first on no kind.

    Of those as good as equal the first: the simplest comes first.
    """
    plain = ways[0]
    fit = [way for way in ways if min(way.gain(plain, kind) for kind in way.stats) >= SLOWER]
    top = max(way.gains(plain) for way in fit)
    return next(way for way in fit if way.gains(plain) >= top * (1 - TIE))
