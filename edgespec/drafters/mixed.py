"""Several drafters for one target: each round the one with the best expected rate drafts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from edgespec.drafters.window import Reading, Reads
from edgespec.errors import UsageError
from edgespec.pace.controller import CATCH_UP, Plan, Planner
from edgespec.pace.cost import DraftCosts
from edgespec.protocols import Drafter, Drawing
from edgespec.types import NO_DRAFT, Draft, Round

FIRST_S = 1e-4  # what a lookup may take before it is known what it takes


@dataclass
class Candidate:
    """A drafter, what its drafts cost (nothing, until timed), and its name for the planner."""

    drafter: Drafter
    costs: DraftCosts = field(default_factory=DraftCosts)
    source: str = ""
    last_s: float = 0.0  # what its last draft took
    n_undrafted: int = CATCH_UP  # rounds since its last draft
    usual_s: float = 0.0  # what its drafts take, stalls and long prompts hardly counted
    rest: int = 0  # rounds it was left out the last time, and those it still is
    rests_left: int = 0

    def __post_init__(self) -> None:
        self.reading = Reading(self.drafter) if isinstance(self.drafter, Reads) else None

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None) -> Draft:
        start = perf_counter()
        draft = self.drafter.draft(context, k, drawing)
        behind = self.n_undrafted >= CATCH_UP  # then it first read what it had missed
        self.last_s = perf_counter() - start
        self.costs.observe(len(draft), self.last_s, at_most=behind)
        self.usual_s += 0.1 * (min(self.last_s, 3 * self.usual_s + FIRST_S) - self.usual_s)
        self.n_undrafted = -1  # 0 once this round is over
        if draft.sources:
            self.source = draft.sources[0]
        return draft

    def leave_out(self, most: int) -> None:
        """After a lookup in vain: for one round, then for 3, 7, ... up to `most`."""
        self.rest = self.rests_left = min(2 * self.rest + 1, most)


class Mixed:
    """A speculator: lookup drafts first, which is free, and a model only where it promises more.

    free: names of the drafters that cost microseconds; they draft every round, and are then
    judged by the confidence of what they found. Where even microseconds count, they rest for a
    few rounds when nothing paid. Any other is judged before it drafts, by its acceptance so far,
    and the best of them drafts if it beats what was found. Drafts are cut to the planned width. A
    draft with `probs` is never cut after it was drawn: which tokens are dropped would depend on
    them, and they would no longer have the law in `probs`.
    """

    name = "mixed"

    def __init__(
        self, drafters: Sequence[Drafter], planner: Planner, *, free: Collection[str] = ("ngram",)
    ) -> None:
        if not drafters:
            raise UsageError("no drafters to mix: expected at least one, such as ngram or model")
        self._planner, self.most = planner, planner.most
        found = [Candidate(drafter, source=drafter.name) for drafter in drafters]
        self._all = found
        self.n_leaves = max(drafter.n_leaves for drafter in drafters)
        self._free = [one for one in found if one.drafter.name in free]
        self._paid = [one for one in found if one.drafter.name not in free]
        self._unused: list[tuple[int, Draft]] = []  # free drafts of this round, after how many ids
        self._n_seen, self._said_s = 0, 0.0  # ids after the last round; target's time in the answer

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in a sentence; empty while something pays."""
        return self._planner.reason

    def propose(self, context: Sequence[int], room: int, drawing: Drawing | None) -> Draft:
        self._unused = []
        if len(context) != self._n_seen:
            self._said_s = 0.0
        k = min(room, self.most)
        if k < 1:
            return NO_DRAFT
        best, draft = self._look_up(context, k)
        payer, plan = self._best_paid(best)
        if payer is not None and self._may_draft(payer, context, plan):
            drawn = payer.draft(context, min(k, plan.width), drawing)
            if len(drawn):
                best, draft = self._cut(payer, drawn), drawn
            else:
                self._planner.fail(payer.source, payer.last_s)
        self._unused = [(n, other) for n, other in self._unused if other is not draft]
        return first(draft, best.width)

    def _look_up(self, context: Sequence[int], k: int) -> tuple[Plan, Draft]:
        """The best free draft and the width of it that pays; width 0 if none does."""
        best, draft = Plan(0, 0.0), NO_DRAFT
        for one in self._free:
            if one.rests_left:
                one.rests_left -= 1
                continue
            found, plan = one.draft(context, k, None), Plan(0, 0.0)
            if len(found):
                self._unused.append((len(context), found))
                plan = self._planner.plan(one.source, found.confidence, 0.0)
            if plan.width == 0:
                one.leave_out(self._planner.n_rests(one.usual_s))
                continue
            one.rest = 0
            if plan.tokens_per_s > best.tokens_per_s:
                best, draft = plan, found
        return best, draft

    def _best_paid(self, best: Plan) -> tuple[Candidate | None, Plan]:
        """Who should draft instead of `best`; probes are for rounds in which nothing free pays."""
        payer: Candidate | None = None
        nothing = best.width == 0
        for one in self._paid:
            plan = self._planner.plan(one.source, (), one.costs.mean_s)
            if plan.probe and nothing:
                return one, plan
            if plan.width > 0 and not plan.probe and plan.tokens_per_s > best.tokens_per_s:
                best, payer = plan, one
        return payer, best

    def _may_draft(self, payer: Candidate, context: Sequence[int], plan: Plan) -> bool:
        return payer.reading is None or payer.reading.is_done(context, plan.gain, self._said_s)

    def _cut(self, payer: Candidate, drawn: Draft) -> Plan:
        """The width of a paid draft worth verifying, now that its own confidence is known."""
        if drawn.is_drawn or not drawn.confidence:
            return Plan(len(drawn), 0.0)
        plan = self._planner.plan(payer.source, drawn.confidence, 0.0)
        return plan if plan.width > 0 else Plan(1, 0.0)  # one token tells whether it still pays

    def observe(self, done: Round) -> None:
        """Every drafter learns from the round, and the planner from free drafts nobody used."""
        self._n_seen = len(done.context)
        self._said_s += done.times.target_s
        for n_before, found in self._unused:
            followed = done.context[n_before:]
            if found.is_chain and followed:
                n_seen = min(len(followed), len(found))
                hits = [found.tokens[i] == followed[i] for i in range(n_seen)]
                n_hits = (*hits, False).index(False)
                n_tested = min(n_hits + 1, n_seen)
                self._planner.learn(found.sources[0], found.confidence, n_tested, n_hits)
        self._unused = []
        for one in self._all:
            one.n_undrafted += 1
            one.drafter.observe(done)
        self._planner.observe(done)

    def close(self) -> None:
        for one in self._all:
            one.drafter.close()


def first(draft: Draft, n: int) -> Draft:
    """The first n nodes of a draft."""
    return draft if n >= len(draft) else draft.first(n)
