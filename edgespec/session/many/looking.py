"""One sequence's own drafter, which looks up, and what is known of its drafts by whomever."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from time import perf_counter

from edgespec.drafters.ngram import NgramDrafter
from edgespec.drafters.rest import Rest
from edgespec.drafters.scored import scored
from edgespec.pace.head import MAX_WIDTH
from edgespec.pace.planner import LOOK_SHARE, MOST_RESTS
from edgespec.pace.source import Source
from edgespec.protocols import Drawing
from edgespec.types import NO_DRAFT, Draft, Round

EXPERIENCE = 32  # tested tokens, after which a sequence's own acceptance is told from a guess
LATELY = 16  # rounds without a draft, after which drafting counts as paused


class Looking:
    """Implements protocols.Speculator for one sequence: looks drafts up, and knows what its drafts
    are worth, by whom they were.
    """

    name, n_leaves, reason = "many", 1, ""

    def __init__(self) -> None:
        self.most, self.fixed = MAX_WIDTH, False  # of the answer; fixed: always as much
        self.round_s = 0.0  # what a round of one sequence takes lately
        self._ngram = NgramDrafter()
        self.sources = {"ngram": Source(), "model": Source()}
        self._rest, self._is_resting = Rest(self._n_rests), False
        self._made: list[Draft] = []  # in this round, used or not
        self.n_said, self.said_s = 0, 0.0  # tokens of this answer, and the target's time for it
        self._renew()

    def _renew(self) -> None:
        self.n_rounds = self.n_idle = 0  # that might have drafted, and those since one last did
        self._found_at = -LATELY  # the last of these rounds in which something was found
        self.n_unread = 0  # what a draft would have to read first, where that is too much
        self.beside = 1, 0  # answers in the last round, and tokens of prompts

    def begin(self, most: int, *, fixed: bool) -> None:
        """Another text."""
        for source in self.sources.values():
            source.renew(self.n_said)
        self.most, self.fixed, self.n_said, self.said_s = most, fixed, 0, 0.0
        self._made = []
        self._renew()

    @property
    def is_idle(self) -> bool:
        """Whether none of its drafts was used lately, though some might have been."""
        return 0 < min(self.n_rounds, LATELY) <= self.n_idle

    @property
    def has_found(self) -> bool:
        """Whether something was found lately, used or not."""
        return self.n_rounds - self._found_at <= LATELY

    def drafted(self, n: int, n_answers: int, n_other: int) -> None:
        """So many of its tokens are verified this round, beside other answers and prompts."""
        self.n_rounds, self.n_idle = self.n_rounds + 1, 0 if n else self.n_idle + 1
        self.beside = n_answers, n_other

    def inform(self, others: Sequence[Looking]) -> None:
        """Believe of drafts what the one with most experience does, until there is some here."""
        for name, source in self.sources.items():
            best = max((one.sources[name] for one in others), key=lambda one: one.n_tested)
            if source.n_tested < EXPERIENCE <= best.n_tested:
                source.load(best.saved())

    def _n_rests(self, look_s: float) -> int:
        return int(min(look_s / (LOOK_SHARE * self.round_s), MOST_RESTS)) if self.round_s else 0

    def propose(self, context: Sequence[int], room: int, drawing: Drawing | None) -> Draft:
        """What is found in the text."""
        self._is_resting = room < 1 or (not self.fixed and self._rest.goes_on())
        if self._is_resting:
            return NO_DRAFT
        start = perf_counter()
        found = self._ngram.draft(context, room, drawing)
        self._rest.looked(perf_counter() - start)
        if len(found):
            self._found_at = self.n_rounds
            self.made(found)
            self._rest.end()
        else:
            self._rest.lengthen()
        return found

    def made(self, draft: Draft) -> None:
        """This was drafted: what follows tells what it was worth."""
        self._made.append(draft)

    def survival(self, draft: Draft) -> list[float]:
        """P(it and all before it are accepted) of each token of an undrawn draft."""
        if not len(draft):
            return []
        return self.sources[draft.sources[0]].survival(draft.confidence)

    def to_come(self, n: int) -> list[float]:
        """The same of a draft of n tokens that the model would make."""
        return list(accumulate(self.sources["model"].to_come((), n), mul))

    def observe(self, done: Round) -> None:
        self.n_said += len(done.verdict.tokens)
        for made in self._made:
            if accepted := scored(made, done):
                self.sources[made.sources[0]].learn(made.confidence, accepted)
        self._made = []
        if not self._is_resting:
            self._ngram.observe(done)

    def close(self) -> None:
        self._ngram.close()
