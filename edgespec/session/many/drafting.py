"""Drafts of all sequences of a round: n-grams for each, the draft model for those it is worth.

What is worth drafting and verifying is decided for all together (pace/goodput.py), by the
acceptance of each sequence and what the target's and the draft model's passes take.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

from edgespec.adapt.learned import Learned
from edgespec.decode.round import Want
from edgespec.drafters.guarded import GuardedTexts
from edgespec.drafters.mixed import USUAL, first
from edgespec.drafters.together import Wish
from edgespec.errors import Cancelled
from edgespec.pace.cost import LiveCosts
from edgespec.pace.goodput import MARGIN, Widths, widths
from edgespec.pace.planner import READ_GUESS, READS
from edgespec.session.many.looking import EXPERIENCE, Looking
from edgespec.session.many.story import NOTHING_FOUND, CrowdCosts, too_dear, too_long
from edgespec.session.many.worth import Worth
from edgespec.session.methods import NOTHING
from edgespec.types import NO_DRAFT, Draft

LENGTHS = (1, 2, 3, 4, 6, 8)  # of the model's drafts that are compared
MODEL_MARGIN = 0.03  # that drafting with the model must bring more than without
SCORED, SCORE_SHARE = 3, 0.01  # tokens drafted to be scored, and the time that may go to it
# What a draft may read first: tokens that are always read along, and the share of an answer's time
# for more, as in pace/planner.py of what drafting promises.
NEW = 8


@dataclass(eq=False)
class Wanted:
    """A sequence that may draft. draft: as it comes to be."""

    who: int
    looking: Looking
    want: Want
    draft: Draft = NO_DRAFT


class Drafting:
    """Who drafts how much in a round. costs: of the target's forwards by rows.

    names: of drafters, "ngram" and "model". together: the draft model, None for none. worth: what
    earlier runs knew of its drafts. learned: what is to be kept.
    """

    def __init__(
        self,
        costs: LiveCosts,
        names: Collection[str],
        together: GuardedTexts | None = None,
        *,
        worth: Worth | None = None,
        learned: Learned = NOTHING,
    ) -> None:
        self.worth, self.learned = worth or Worth(), learned
        self.costs, self._together = costs, together if "model" in names else None
        self._looks_up = "ngram" in names
        self._score_s = 0.0  # what scoring may take
        self.took_s = 0.0  # of the last round's drafting
        self._most_rows = 1  # of the last round's logits

    @property
    def failed(self) -> str:
        """What happened to the draft model; empty while nothing has."""
        return "" if self._together is None else self._together.guard.failed

    def inform(self, one: Looking, others: Sequence[Looking]) -> None:
        """Tell a sequence that begins another answer what others know, or earlier runs."""
        one.inform(others)
        source = one.sources["model"]
        if source.n_tested < EXPERIENCE <= self.worth.n_tested:
            source.load(self.worth.source.saved())

    def end(self, one: Looking) -> Callable[[], str]:
        """An answer is over; what tells why nothing was drafted for it lately, in a line, empty
        while drafts were used, or where none were wanted. Asked for from any thread.
        """
        self.worth.learn(one.sources["model"])
        line = self._line(one)
        if line is not None:
            return lambda: line
        n, n_other = one.beside
        together, step_s, margin = self._together, (0.0, 0.0), MARGIN
        if together is not None:
            step_s, margin = (together.step_s(1), together.step_s(n)), MODEL_MARGIN
        prices = CrowdCosts(tuple(self.costs.seconds), n, n_other, step_s, margin)
        rate = one.sources["ngram" if together is None else "model"].rate
        return cache(partial(too_dear, prices, rate, LENGTHS, self._most_rows))

    def _line(self, one: Looking) -> str | None:
        """The same where it is no matter of costs, else None."""
        if one.most < 1 or self.failed:
            return self.failed if one.most else ""
        if not one.is_idle:
            return ""
        if self._together is None and not one.has_found:
            return NOTHING_FOUND
        if one.fixed:
            return ""
        return too_long(one.n_unread) if one.n_unread else None

    def forget(self) -> None:
        """Know nothing of earlier runs, nor learn for others."""
        self.worth = Worth()

    def cancel(self) -> None:
        """End the draft model's forward in progress with Cancelled; from any thread."""
        if self._together is not None:
            self._together.cancel()

    def begin(self, who: int, ids: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> None:
        """The who-th sequence answers another prompt, of these messages."""
        if self._together is not None:
            self._together.begin(who, ids, messages)

    def draft(self, all_: Sequence[Wanted], n_other: int, most_rows: int) -> None:
        """Set the drafts. n_other: tokens of prompts in the same forward; most_rows: of logits."""
        start = perf_counter()
        for one in all_:
            if self._looks_up:
                one.draft = one.looking.propose(*one.want)
        survival = [one.looking.survival(one.draft) for one in all_]
        plan = self._widths(all_, survival, n_other, most_rows)
        if self._together is not None and not self.failed:
            survival, plan = self._by_model(all_, survival, plan, n_other, most_rows)
        # What was drawn is never cut: it would no longer have the law in `probs`.
        left = most_rows - len(all_) - sum(len(one.draft) for one in all_ if one.draft.is_drawn)
        for one, k in zip(all_, plan.ks, strict=True):
            if not one.draft.is_drawn:
                k = min(len(one.draft) if one.looking.fixed else k, left)
                one.draft = first(one.draft, k) if k else NO_DRAFT
                left -= k
            if one.want.room:
                one.looking.drafted(len(one.draft), len(all_), n_other)
        self._most_rows = most_rows
        self.took_s = perf_counter() - start

    def _widths(
        self,
        all_: Sequence[Wanted],
        survival: Sequence[Sequence[float]],
        n_other: int,
        most_rows: int,
        fixed_s: float = 0.0,
    ) -> Widths:
        """What to verify of each; what is drawn or fixed is verified whole."""
        n_whole = 0
        for one in all_:
            if one.draft.is_drawn or one.looking.fixed:
                n_whole += len(one.draft)
        free = [
            [] if one.draft.is_drawn or one.looking.fixed else chances
            for one, chances in zip(all_, survival, strict=True)
        ]
        return widths(
            free,
            self.costs.seconds,
            n_other=n_other + n_whole,
            most_rows=most_rows - n_whole,
            fixed_s=fixed_s,
        )

    def _by_model(
        self,
        all_: Sequence[Wanted],
        survival: list[list[float]],
        plan: Widths,
        n_other: int,
        most_rows: int,
    ) -> tuple[list[list[float]], Widths]:
        """The plan with drafts of the model, made now, where it promises more with them."""
        assert self._together is not None
        coming = [self._to_come(one, chances) for one, chances in zip(all_, survival, strict=True)]
        n_able = sum(map(bool, coming))
        best, chosen = plan, [0] * len(all_)
        least = (1 + MODEL_MARGIN) * plan.rate
        for length in LENGTHS if n_able else ():
            mixed = [new[:length] or old for new, old in zip(coming, survival, strict=True)]
            drafting_s = length * self._together.step_s(n_able)
            found = self._widths(all_, mixed, n_other, most_rows, drafting_s)
            if found.rate > least:
                best, least = found, found.rate
                chosen = [k if new else 0 for k, new in zip(found.ks, coming, strict=True)]
        share = min(READ_GUESS * (best.rate / plan.rate - 1), READS)
        for i, one in enumerate(all_):
            one.looking.n_unread = 0
            if chosen[i] and not self._may_read(one, share):
                chosen[i] = 0
        chosen = self._fixed(all_, survival, chosen, most_rows - len(all_))
        scored = None if any(chosen) else self._scored(all_)
        if scored is not None:
            chosen[scored] = SCORED
        if not any(chosen):
            return survival, plan
        price = best.price + best.rate * self._together.step_s(1) / max(sum(map(bool, chosen)), 1)
        wishes = [
            self._wish(one, chosen[i], price, is_scored=i == scored)
            for i, one in enumerate(all_)
            if chosen[i]
        ]
        start = perf_counter()
        by_who = dict(zip([wish.who for wish in wishes], self._made(wishes), strict=True))
        if scored is not None:
            self._score_s -= perf_counter() - start
        for i, one in enumerate(all_):
            drawn = by_who.get(one.who, NO_DRAFT)
            if len(drawn):
                one.looking.made(drawn)
            if len(drawn) and i != scored:
                one.draft = drawn
                survival[i] = [] if drawn.is_drawn else one.looking.survival(drawn)
        return survival, self._widths(all_, survival, n_other, most_rows)

    def _to_come(self, one: Wanted, found: Sequence[float]) -> list[float]:
        """What a draft by the model promises, nothing where it is not to draft."""
        assert self._together is not None
        looking, room = one.looking, one.want.room
        if room < 1 or looking.fixed or looking.n_said < 1:
            return []
        coming = looking.to_come(min(room, LENGTHS[-1]))
        return coming if sum(coming) > sum(found) else []

    def _may_read(self, one: Wanted, share: float) -> bool:
        """Whether what its draft has to read first takes no more than this share of the time that
        the target has spent on its answer, or will if that is as long as most.
        """
        assert self._together is not None
        n, looking = self._together.n_unread(one.who, one.want.context), one.looking
        answer_s = max(looking.said_s, USUAL * looking.round_s)
        if n <= NEW or self._together.read_s(n) <= share * answer_s:
            return True
        looking.n_unread = n
        return False

    def _fixed(
        self,
        all_: Sequence[Wanted],
        survival: Sequence[Sequence[float]],
        chosen: Sequence[int],
        left: int,
    ) -> list[int]:
        """With those that always draft, where the model promises more; at most `left` tokens."""
        ks = list[int]()
        for one, found, k in zip(all_, survival, chosen, strict=True):
            room, looking = one.want.room, one.looking
            if looking.fixed:
                k = room if sum(looking.to_come(room)) > sum(found) else 0
            ks.append(min(k, left))
            left -= ks[-1]
        return ks

    def _scored(self, all_: Sequence[Wanted]) -> int | None:
        """Whose draft by the model is due to be made for what it tells: the one that has least to
        read before it.
        """
        assert self._together is not None
        together = self._together
        if self._score_s < SCORED * together.step_s(1):
            return None
        able = [i for i, one in enumerate(all_) if one.want.room and one.looking.n_said]
        unread = {i: together.n_unread(all_[i].who, all_[i].want.context) for i in able}
        at = min(able, key=unread.__getitem__, default=None)
        if at is None or self._score_s < SCORED * together.step_s(1) + together.read_s(unread[at]):
            return None
        return at

    def _wish(self, one: Wanted, k: int, price: float, *, is_scored: bool) -> Wish:
        looking, want = one.looking, one.want

        def pays(confidence: Sequence[float], undrawn: bool = False, /) -> bool:
            return looking.fixed or looking.sources["model"].grown(confidence)[-1] > price

        # What is scored is compared with what follows, whatever that is drawn from.
        drawing = None if is_scored else want.drawing
        return Wish(one.who, want.context, min(k, want.room), drawing, pays)

    def _made(self, wishes: Sequence[Wish]) -> list[Draft]:
        """The model's drafts."""
        together = self._together
        assert together is not None
        try:
            return together.drafts(wishes)
        except Cancelled:
            together.forget()
            raise

    def observe(self, n_rows: int, seconds: float, all_: Sequence[Wanted]) -> None:
        """A forward of so many rows and tokens took this long."""
        drafted = self.took_s > 0.05 * seconds
        self.costs.observe(n_rows, seconds, after_draft=drafted)
        self._score_s += SCORE_SHARE * seconds
        for one in all_:
            looking, round_s = one.looking, seconds / len(all_)
            looking.said_s += round_s
            looking.round_s += (round_s - looking.round_s) * (0.1 if looking.round_s else 1.0)
