"""Which of several ways to decode is fastest on given prompts, within a time budget.

All ways that are left answer the same prompt one after the other, in turns; those that are behind
for good are left out, so that what the budget has left goes to those that are close. Prompts are
asked again, of ways that have forgotten them, until no difference is in doubt. Knows neither models
nor options: it is handed a function that answers a prompt.

Source: successive halving, Jamieson and Talwalkar 2015, arXiv 1502.07943; deviation: a way leaves
when it is behind by a margin, not at fixed halves, and the first way is never left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
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

    @property
    def n_answers(self) -> int:
        """Of all kinds; fewer than another's where it was left out."""
        return sum(map(len, self.stats.values()))

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

    def doubt(self, over: Way) -> float:
        """By how much that mean's logarithm may be wrong: its standard error, prompt by prompt.

        Infinite where a kind has had one prompt only.
        """
        squares = 0.0
        for kind, runs in self.stats.items():
            logs = [
                math.log(max(_token_s(b), 1e-9) / max(_token_s(a), 1e-9))
                for a, b in zip(runs, over.stats[kind], strict=False)
            ]
            squares += statistics.variance(logs) / len(logs) if len(logs) > 1 else math.inf
        return math.sqrt(squares) / max(len(self.stats), 1)


def _token_s(run: Stats) -> float:
    return run.decode_s / max(run.n_tokens, 1)


@dataclass(frozen=True)
class Race(Generic[Question]):
    """Ways against each other. told: the share of the budget that is used. forget: called before
    questions are asked again; without it each is asked once.
    """

    questions: Mapping[str, Sequence[Question]]
    answer: Callable[[str, Question], Stats]
    told: Callable[[float], None]
    clock: Callable[[], float] = perf_counter
    forget: Callable[[], None] | None = None

    def run(self, names: Sequence[str], budget_s: float) -> list[Way]:
        """The ways in the order of `names`, each tried on at least one prompt of every kind."""
        ways = [Way(name, {kind: [] for kind in self.questions}) for name in names]
        start, left = self.clock(), list(ways)
        n_questions = max(map(len, self.questions.values()))
        for number in count():
            if number >= n_questions and number % n_questions == 0:
                if self.forget is None or settled(left):
                    break
                self.forget()
            began = self.clock()
            self._pass(left, number % n_questions, start, budget_s)
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


def settled(ways: Sequence[Way]) -> bool:
    """Whether it is known which of them is the fastest, up to a difference that is none."""
    return all(way.doubt(ways[0]) <= TIE for way in ways[1:])


def best(ways: Sequence[Way]) -> Way:
    """The fastest way that is slower than the first on no kind, or one as fast as can be told.

    The first, unless another is surely faster. Then the last, which can do what the others can and
    leaves out what does not pay, unless the fastest is surely faster; else the simplest of those.
    """
    plain, ablest = ways[0], ways[-1]
    left = [way for way in ways if way.n_answers == plain.n_answers]
    fit = [way for way in left if min(way.gain(plain, kind) for kind in way.stats) >= SLOWER]
    top = max(fit, key=lambda way: way.gains(plain))
    near = [way for way in fit if not surely_faster(top, way)]
    return ablest if ablest in near and plain not in near else near[0]


def surely_faster(top: Way, way: Way) -> bool:
    """By more than a tie, and by more than two prompts of a kind let doubt, if there were two."""
    doubt = top.doubt(way)
    return math.log(top.gains(way)) > max(math.log(1 + TIE), doubt if doubt < math.inf else 0.0)
