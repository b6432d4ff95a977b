"""Several drafters for one target: each round the one whose draft is worth most drafts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

from edgespec.decode.follow import Pays
from edgespec.drafters.rest import Rest
from edgespec.drafters.scored import scored
from edgespec.drafters.window import Reading, Reads
from edgespec.errors import UsageError
from edgespec.pace.controller import CATCH_UP
from edgespec.pace.cost import DraftCosts
from edgespec.pace.plan import Plan, Planner
from edgespec.pace.planner import MOST_SAVED, SCORE_READS, source_of
from edgespec.protocols import Drafter, Drawing
from edgespec.types import NO_DRAFT, Draft, Round

SCORED = 3  # tokens drafted to be scored
READ_STEP = 0.25  # of a step is what reading a token takes, until it was seen
USUAL = 48.0  # tokens of an answer, until some were seen


@runtime_checkable
class Stepwise(Protocol):
    """A drafter that asks before each token after the first whether one more pays.

    pays: see follow.Pays. Of a drawn draft the first token is drawn whatever it says, to be scored.
    """

    pays: Pays


@dataclass
class Candidate:
    """A drafter, what its drafts cost (nothing, until timed), and its name for the planner."""

    drafter: Drafter
    costs: DraftCosts = field(default_factory=DraftCosts)
    source: str = ""
    last_s: float = 0.0  # what its last draft took
    n_undrafted: int = CATCH_UP  # rounds since its last draft

    def __post_init__(self) -> None:
        self.reading = Reading(self.drafter) if isinstance(self.drafter, Reads) else None

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None) -> Draft:
        start = perf_counter()
        draft = self.drafter.draft(context, k, drawing)
        behind = self.n_undrafted >= CATCH_UP  # then it first read what it had missed
        self.last_s = perf_counter() - start
        self.costs.observe(len(draft), self.last_s, at_most=behind)
        self.n_undrafted = -1  # 0 once this round is over
        if draft.sources:
            self.source = draft.sources[0]
        return draft


class Mixed:
    """A speculator: lookup drafts first, which is free, and a model only where it promises more.

    step: what a model's token may take until it is known, of a plain token's time.
    free: names of the drafters that cost microseconds; they draft every round, and are then
    judged by the confidence of what they found. Any other is judged before it drafts, by its
    acceptance so far, and the best of them drafts if it beats what was found, as long as one more
    token pays. Where even microseconds count, nobody is asked for a few rounds when nothing paid
    (rest.py). Drafts are cut to what is worth verifying, perhaps to nothing: what follows scores
    all of it anyway (arXiv 2510.20064 scores every drafter by the text that one of them had
    verified). A drawn draft is not cut: which tokens are dropped would depend on them, and they
    would no longer have the law they were drawn from. It is drawn as far as the next token's law
    promises enough; where its first does not, or it is drawn to be scored, it is dropped whatever
    it is.
    """

    name = "mixed"

    def __init__(
        self,
        drafters: Sequence[Drafter],
        planner: Planner,
        *,
        free: Collection[str] = ("ngram",),
        step: float = 0.1,
    ) -> None:
        if not drafters:
            raise UsageError("no drafters to mix: expected at least one, such as ngram or model")
        self.planner = planner
        found = [Candidate(drafter, source=drafter.name) for drafter in drafters]
        self._all = found
        self.n_leaves = max(drafter.n_leaves for drafter in drafters)
        self._free = [one for one in found if one.drafter.name in free]
        self._paid = [one for one in found if one.drafter.name not in free]
        for one in self._paid:
            one.costs = DraftCosts(step * planner.plain_s)
            if isinstance(one.drafter, Stepwise):
                one.drafter.pays = partial(self._goes_on, one)
        self._made: list[Draft] = []  # drafts of this round, used or not, as they were made
        self._payer = ""  # whose draft of this round took time
        self._is_worth_drawing = True  # said of a draft's first token, before it was drawn
        self._is_drawing, self._least = False, 0.0  # tokens; what a draft has to be worth
        self._rest, self._is_resting, self._has_looked = Rest(planner.n_rests), False, False
        self._looking_s, self._n_rested = 0.0, 0  # of this round; rounds left out before it
        self._n_seen = self._n_said = 0  # ids after the last round; tokens of this answer
        self._said_s, self._usual = 0.0, USUAL  # target's time in the answer; tokens of answers
        self._saved_s = 0.0  # that may go to reading for being scored

    @property
    def most(self) -> int:
        """Tokens to draft at once, for the planner too."""
        return self.planner.most

    @most.setter
    def most(self, n: int) -> None:
        self.planner.most = n

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in a sentence; empty while something pays."""
        return self.planner.reason

    def propose(self, context: Sequence[int], room: int, drawing: Drawing | None) -> Draft:
        self._made, self._payer, self._is_resting = [], "", False
        self._is_drawing = drawing is not None
        if len(context) != self._n_seen:
            self._begin(len(context))
        self._is_resting = self._rest.goes_on()
        if self._is_resting:
            self._n_rested += 1
            return NO_DRAFT
        k, self._looking_s = min(room, self.planner.most), 0.0
        self._has_looked = k > 0  # not in an answer's last round
        if not self._has_looked:
            return NO_DRAFT
        start = perf_counter()
        for one in self._all:
            one.n_undrafted += self._n_rested
        best, draft = self._look_up(context, k)
        payer, plan = self._best_paid(best)
        self._looking_s = perf_counter() - start
        # Where less than `most` is allowed, the answer ends there.
        n_coming = min(self._usual, room) if room < self.most else self._usual
        if payer is None:
            self._score(context, k, drawing)
        elif self._may_draft(payer, context, plan.reads, n_coming):
            far = isinstance(payer.drafter, Stepwise)
            self._is_worth_drawing, self._least = True, best.worth
            drawn = payer.draft(context, k if far else min(k, plan.width), drawing)
            self._payer = payer.source
            if len(drawn):
                self._made.append(drawn)
                found = self._cut(payer, drawn)
                if found.worth > best.worth:
                    best, draft = found, drawn
                else:  # the time is the payer's all the same
                    draft = replace(draft, spent=drawn.spent)
                    if len(draft):
                        self._payer = ""
                        self.planner.pay(payer.source, payer.last_s)
            else:
                self.planner.fail(payer.source, payer.last_s)
        return first(draft, best.width)

    def _score(self, context: Sequence[int], k: int, drawing: Drawing | None) -> None:
        """Have one of those not used draft where scoring it is due; nothing of it is verified."""
        for one in self._paid:
            if not self.planner.may_score(one.source):
                continue
            if not self._may_draft(one, context, 0.0, 0):
                break
            drawn = one.draft(context, 1 if drawing else min(k, SCORED), drawing)
            self.planner.pay(one.source, one.last_s)
            if len(drawn):
                self._made.append(drawn)
            else:
                self.planner.learn(one.source, (), (0,))
            return

    def _begin(self, n: int) -> None:
        """Another answer, after n ids."""
        if self._n_said:
            self._usual += 0.3 * (self._n_said - self._usual)
        self.planner.renew(self._n_said)
        for one in self._paid:
            takes_s = one.costs.fixed_s + SCORED * one.costs.step_s
            self.planner.lend(one.source, takes_s, self._usual)
        self._n_seen, self._n_said, self._said_s = n, 0, 0.0

    def _goes_on(
        self, one: Candidate, confidence: Sequence[float], undrawn: bool = False, /
    ) -> bool:
        step_s = one.costs.step_s
        if not undrawn:
            return self.planner.go_on(one.source, confidence, step_s, whole=self._is_drawing)
        draws = self.planner.draws(one.source, confidence, step_s, self._least)
        if len(confidence) == 1:
            self._is_worth_drawing = draws
        return draws

    def _look_up(self, context: Sequence[int], k: int) -> tuple[Plan, Draft]:
        """The best free draft and the width of it that pays; width 0 if none does."""
        best, draft = Plan(0, 0.0), NO_DRAFT
        for one in self._free:
            found = one.draft(context, k, None)
            if not len(found):
                continue
            self._made.append(found)
            plan = self.planner.plan(one.source, found.confidence, 0.0)
            if plan.worth > best.worth:
                best, draft = plan, found
        return best, draft

    def _best_paid(self, best: Plan) -> tuple[Candidate | None, Plan]:
        """Who should draft instead of `best`."""
        payer: Candidate | None = None
        for one in self._paid:
            plan = self.planner.plan(one.source, (), one.costs.step_s, one.costs.fixed_s)
            if plan.width > 0 and plan.worth > best.worth:
                best, payer = plan, one
        return payer, best

    def _may_draft(
        self, payer: Candidate, context: Sequence[int], share: float, n_coming: float
    ) -> bool:
        """Whether it has read enough; where that pays in so many tokens more, or its turn to be
        scored has come, it reads on. The first token waits for nobody.
        """
        reading = payer.reading
        if reading is None:
            return True
        most_s, took_s = 0.0, reading.took_s
        if self._said_s:
            promised_s = share * max(self._said_s, n_coming * self.planner.plain_s)
            most_s = max(promised_s, self._saved_s)
        is_done = reading.is_done(context, most_s, READ_STEP * payer.costs.step_s)
        self._saved_s = max(self._saved_s - (reading.took_s - took_s), 0.0)
        return is_done

    def _cut(self, payer: Candidate, drawn: Draft) -> Plan:
        """The width of a paid draft worth verifying, now that its own confidence is known."""
        if drawn.is_drawn and not self._is_worth_drawing:
            return Plan(0, 0.0)
        if drawn.is_drawn or not drawn.confidence:
            return Plan(len(drawn), math.inf)
        return self.planner.plan(payer.source, drawn.confidence, 0.0)

    def observe(self, done: Round) -> None:
        """Every drafter learns from the round, and the planner from all drafts, used or not.

        Nobody is told of a round left out; who is next asked finds what was emitted.
        """
        self._n_seen = len(done.context)
        self._n_said += len(done.verdict.tokens)
        self._said_s += done.times.target_s
        most_s = MOST_SAVED * self.planner.plain_s
        self._saved_s = min(self._saved_s + SCORE_READS * done.times.target_s, most_s)
        if self._is_resting:
            return
        start = perf_counter()
        in_vain = not len(done.draft) and all(one.n_undrafted >= 0 for one in self._paid)
        self._learn(done)  # before a draft's law has gone
        for one in self._all:
            one.n_undrafted += 1
            one.drafter.observe(done)
        telling_s = start - done.times.told if done.times.told else 0.0
        looking_s = self._rest.look_s if telling_s and len(done.draft) else 0.0
        self.planner.observe(done, self._payer, self._n_rested, telling_s + looking_s)
        self._n_rested = 0
        if not self._has_looked:
            return
        self._rest.looked(self._looking_s + perf_counter() - start)
        if in_vain:
            self._rest.lengthen()
        elif len(done.draft):
            self._rest.end()

    def _learn(self, done: Round) -> None:
        """The planner learns from the drafts that were made, by what followed."""
        for made in self._made:
            if accepted := scored(made, done):
                said = made.confidence if made.is_chain else ()
                self.planner.learn(source_of(made), said, accepted)
        self._made = []

    @property
    def n_tested(self) -> int:
        """Drafted tokens that were scored in all."""
        return self.planner.n_tested

    def saved(self) -> dict[str, Any]:
        """What was learned of acceptance and times, for a file."""
        steps = {one.source: one.costs.step_s for one in self._paid if one.costs.step_s > 0}
        readings = {one.source: one.reading for one in self._paid if one.reading is not None}
        reads = {name: one.token_s for name, one in readings.items() if one.token_s > 0}
        planner = self.planner.saved()
        return {"planner": planner, "usual": self._usual, "steps": steps, "reads": reads}

    def load(self, saved: dict[str, Any]) -> None:
        """Begin with it. Raises: KeyError, TypeError, ValueError for what was not saved."""
        usual, steps, reads = float(saved["usual"]), saved["steps"], saved.get("reads", {})
        costs = {one.source: float(steps[one.source]) for one in self._paid if one.source in steps}
        read = {one.source: float(reads[one.source]) for one in self._paid if one.source in reads}
        if not (usual > 0 and all(0 < one_s < 60 for one_s in (*costs.values(), *read.values()))):
            raise ValueError(f"answers of {usual:g} tokens, steps of {costs}, reading of {read}")
        self.planner.load(saved["planner"])
        self._usual = usual
        for one in self._paid:
            if one.source in costs:
                one.costs = DraftCosts(costs[one.source])
                self.planner.pay(one.source, SCORED * costs[one.source])  # saved up for the first
            if one.reading is not None:
                one.reading.token_s = read.get(one.source, 0.0)

    def close(self) -> None:
        for one in self._all:
            one.drafter.close()


def first(draft: Draft, n: int) -> Draft:
    """The first n nodes of a draft; of none is left what it took."""
    if not n:
        return Draft(spent=draft.spent)
    return draft if n >= len(draft) else draft.first(n)
