"""How much to draft: the width with the most expected tokens per second, zero included.

Expected tokens come from evidence.py, seconds from cost.py. No clock is read here: times arrive
through `observe`, so every decision can be replayed.
Source: goodput as in SmartSpec, arXiv 2406.14066, with measured costs in place of a fitted line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgespec.errors import UsageError
from edgespec.pace.cost import CostTable, DraftCosts, LiveCosts
from edgespec.pace.evidence import BLIND, MAX_WIDTH, Evidence, conditional
from edgespec.pace.expected import acceptance_for, rates
from edgespec.types import Draft, Round

KEEP = 0.98  # weight of evidence one round older: a change is 87 % believed after 100 rounds
KEEP_IDLE = 0.985  # the same for a round without a draft
PRIOR = 0.8  # acceptance believed before any evidence, so that drafting starts
RESUME = 1.04  # a paused source must promise this much over plain decoding to be used again
PROBE_SHARE = 0.009  # of the time, at most, is lost to trying whether drafting pays again
# Of an answer's time so far, reading before a draft may take this share at most, whatever is
# promised, and before a mere try that. Promises are guesses at first: without the limit, after a
# prompt of 2,000 tokens, SmolLM2 slowed 96 tokens of Qwen2.5-Coder-1.5B to 0.83 of plain.
READS, PROBE_READS = 0.2, 0.1
CATCH_UP = 2  # rounds after which a draft first has to read what it missed, which takes longer
PLAIN_FIRST, PLAIN_EVERY = 8, 128  # rounds after which plain decoding is timed, again and again
PLAIN_OFF = 0.1  # plain decoding is timed on as long as it differs this much from what is believed
LOOK_SHARE = 0.01  # of plain decoding's time for lookups in vain
MOST_RESTS = 16  # rounds between two lookups, though they take more than that


@dataclass(frozen=True)
class Plan:
    """How many tokens of a source to draft and the rate that promises.

    probe: nothing is promised, one token is drafted to see how it fares. gain: over plain
    decoding, less one; what has to be read first must be worth that.
    """

    width: int
    tokens_per_s: float
    probe: bool = False
    gain: float = math.inf


class Planner(Protocol):
    """What a speculator that chooses between sources asks. most: tokens to draft at once."""

    most: int

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in a sentence; empty while something pays."""
        ...

    def observe(self, done: Round) -> None:
        """Learn from a finished round and what it cost."""
        ...

    def plan(self, source: str, confidence: Sequence[float], step_s: float) -> Plan:
        """The best width for `source`; confidence: of a finished draft, or empty before drafting.

        step_s: seconds that drafting one more token takes (0 for what is drafted already).
        """
        ...

    def learn(self, source: str, confidence: Sequence[float], n_tested: int, n_hits: int) -> None:
        """Of a draft's first tokens `n_tested` were tested and `n_hits` of those accepted."""
        ...

    def fail(self, source: str, draft_s: float) -> None:
        """Drafting took so long and gave nothing: counts as a refused token."""
        ...

    def n_rests(self, look_s: float) -> int:
        """Most rounds to leave out between lookups in vain that take so long."""
        ...


class Source:
    """What is known of one source of drafts."""

    def __init__(self, prior: float) -> None:
        self.blind = Evidence(prior)
        self.informed = Evidence(1.0)  # accepted / predicted: confidences are believed at first
        self.n_idle = 0  # rounds since it last learnt something
        self.balance_s = 0.0  # seconds probing may still lose; negative while paying back
        self.step_s: float | None = None  # as last planned with before drafting
        self.paused = False
        self.probing = False

    def learn(self, confidence: Sequence[float], n_tested: int, n_hits: int) -> None:
        keep: float = KEEP * KEEP_IDLE ** max(self.n_idle - 1, 0)
        self.n_idle = 0
        self.blind.fade(keep)
        self.blind.learn(BLIND, n_tested, n_hits)
        if confidence:
            self.informed.fade(keep)
            self.informed.learn(conditional(confidence), n_tested, n_hits)


class FixedController:
    """Always the same draft length; between sources the one that has been right more often."""

    reason = ""

    def __init__(self, k: int) -> None:
        if not 0 <= k <= MAX_WIDTH:
            raise UsageError(f"draft length {k}: expected 0 to {MAX_WIDTH}, or auto")
        self.most = k
        self._sources: dict[str, Source] = {}

    def next_length(self) -> int:
        return self.most

    def observe(self, done: Round) -> None:
        draft = done.draft
        if len(draft) + draft.n_cut:
            n_hits = len(done.verdict.accepted)
            self.learn(source_of(draft), draft.confidence, done.verdict.n_tested, n_hits)

    def plan(self, source: str, confidence: Sequence[float], step_s: float) -> Plan:
        """The whole draft; the rate is in tokens per round, times being no concern here."""
        known = self._sources.setdefault(source, Source(PRIOR))
        evidence, predicted = (
            (known.informed, conditional(confidence)) if confidence else (known.blind, BLIND)
        )
        width = min(self.most, len(predicted))
        return Plan(width, 1 + sum(evidence.survival(predicted[:width])))

    def learn(self, source: str, confidence: Sequence[float], n_tested: int, n_hits: int) -> None:
        self._sources.setdefault(source, Source(PRIOR)).learn(confidence, n_tested, n_hits)

    def fail(self, source: str, draft_s: float) -> None:
        self.learn(source, (), 1, 0)

    def n_rests(self, look_s: float) -> int:
        return 0


class AutoController:
    """Drafts as much of one source as pays, by an AutoPlanner and what its drafts take.

    overhead_s: seconds per round outside target and drafter.
    """

    def __init__(
        self,
        costs: CostTable | LiveCosts,
        *,
        most: int = MAX_WIDTH,
        overhead_s: float = 0.0,
        step_s: float | None = None,
    ) -> None:
        self.planner = AutoPlanner(costs, most=most, overhead_s=overhead_s)
        self.most = self.planner.most
        self.draft_costs = DraftCosts(costs.seconds[0] / 20 if step_s is None else step_s)
        self._asked = 0  # tokens the drafter was asked for in this round
        self._n_undrafted = CATCH_UP  # rounds since the last draft

    def next_length(self) -> int:
        costs = self.draft_costs
        self._asked = self.planner.plan("", (), costs.step_s, costs.fixed_s).width
        return self._asked

    def observe(self, done: Round) -> None:
        n_drafted = len(done.draft) + done.draft.n_cut
        asked = n_drafted or self._asked
        if asked:
            behind = self._n_undrafted >= CATCH_UP
            self.draft_costs.observe(n_drafted, done.times.draft_s, at_most=behind)
        self._n_undrafted = 0 if asked else self._n_undrafted + 1
        self.planner.account(done, "", in_vain=self._asked > 0 and not n_drafted)
        self._asked = 0

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in one sentence; empty while drafting pays."""
        return self.planner.story("", self.draft_costs.step_s, self.draft_costs.fixed_s)


class AutoPlanner:
    """Says for any source how much of it pays by measured costs and acceptance; nothing, if so.

    While a source is paused it now and then drafts one token to see whether that has changed; what
    this loses is paid from PROBE_SHARE of the time, so a cheap probe comes soon and a dear one
    late. costs: may be shared by all that use the target. most: tokens to draft at once.
    overhead_s: seconds per round outside target and drafter.
    """

    def __init__(
        self, costs: CostTable | LiveCosts, *, most: int = MAX_WIDTH, overhead_s: float = 0.0
    ) -> None:
        self.costs = LiveCosts(costs) if isinstance(costs, CostTable) else costs
        self.most = min(len(costs.seconds) - 1, most)
        self.overhead_s = overhead_s
        self._sources: dict[str, Source] = {}
        self._n_since_plain, self._plain_every = 0, PLAIN_FIRST

    def plan(
        self, source: str, confidence: Sequence[float], step_s: float, fixed_s: float = 0.0
    ) -> Plan:
        """See Planner. fixed_s: seconds that drafting takes, however little is drafted."""
        known = self._sources.setdefault(source, Source(PRIOR))
        plain = Plan(0, 1 / self._round_s(0))
        if self.costs.in_doubt or self._n_since_plain >= self._plain_every:
            return plain
        promised = self._rates(known, confidence, step_s, fixed_s)
        best = max(promised, default=0.0)
        resuming = known.paused and not confidence
        pays = best > plain.tokens_per_s * (RESUME if resuming else 1.0)
        if not confidence:
            known.step_s = step_s
            known.probing = not pays and bool(promised) and known.balance_s >= 0
        if not confidence or known.step_s is None:  # one poor draft is no reason to pause a source
            known.paused = not pays
        if pays:
            gain = min(best / plain.tokens_per_s - 1, READS)
            return Plan(1 + promised.index(best), best, gain=gain)
        if known.probing and not confidence:
            return Plan(1, promised[0], probe=True, gain=PROBE_READS)
        return plain

    def _rates(
        self, known: Source, confidence: Sequence[float], step_s: float, fixed_s: float
    ) -> list[float]:
        """Expected tokens per second of every width from 1 up."""
        if confidence:
            survival = known.informed.survival(conditional(confidence[: self.most]))
        else:
            survival = known.blind.survival(BLIND[: self.most])
        return rates(survival, self.costs.seconds, step_s, self.overhead_s + fixed_s)

    def _round_s(self, k: int) -> float:
        """Seconds of a round that verifies k drafted tokens, without drafting them."""
        return self.costs.seconds[k] + self.overhead_s

    def observe(self, done: Round) -> None:
        self.account(done, source_of(done.draft))

    def account(self, done: Round, source: str, *, in_vain: bool = False) -> None:
        """Learn from a round that `source` drafted; in_vain: it was asked and gave nothing."""
        draft, n_hits, draft_s = done.draft, len(done.verdict.accepted), done.times.draft_s
        k, n_drafted, target_s = len(draft), len(draft) + draft.n_cut, done.times.target_s
        off = abs(target_s / self.costs.seconds[0] - 1)
        self.costs.observe(k + 1, target_s)
        if k:
            self._n_since_plain += 1
        elif off < PLAIN_OFF or self._n_since_plain < self._plain_every:
            self._n_since_plain = 0
            self._plain_every = min(2 * self._plain_every, PLAIN_EVERY)
        for known in self._sources.values():
            known.n_idle += 1
            known.balance_s += PROBE_SHARE * self._round_s(0) * (n_hits + 1)
        if n_drafted:
            confidence = draft.confidence if draft.is_chain else ()
            self.learn(source, confidence, done.verdict.n_tested, n_hits)
            self._keep_books(source, k, n_hits, draft_s)
        elif in_vain and draft_s > PROBE_SHARE * self._round_s(0):
            self.fail(source, draft_s)
        for known in self._sources.values():
            known.balance_s = min(known.balance_s, 0.0)

    def learn(self, source: str, confidence: Sequence[float], n_tested: int, n_hits: int) -> None:
        self._sources.setdefault(source, Source(PRIOR)).learn(confidence, n_tested, n_hits)

    def fail(self, source: str, draft_s: float) -> None:
        self.learn(source, (), 1, 0)
        self._keep_books(source, 0, 0, draft_s)

    def n_rests(self, look_s: float) -> int:
        return int(min(look_s / (LOOK_SHARE * self._round_s(0)), MOST_RESTS))

    def _keep_books(self, source: str, k: int, n_hits: int, draft_s: float) -> None:
        """What drafting lost or won against plain decoding, in seconds; k: tokens verified.

        Estimates of the target's time, not clock readings: a slow round must not decide when to
        try again. A probe's draft counts as long as it took, reading what it missed included.
        """
        if k > self.most:
            return
        plain_s, known = self._round_s(0), self._sources[source]
        won_s = (n_hits + 1) * plain_s - self._round_s(k) - min(draft_s, 4 * plain_s)
        # What regular drafting lost before it paused is no reason to wait for long.
        floor_s = -8 * plain_s if known.probing else min(plain_s - self._round_s(1), 0.0)
        known.balance_s = max(known.balance_s + won_s, floor_s)

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in one sentence; empty while any source pays."""
        stories = [self.story(name, one.step_s or 0.0) for name, one in self._sources.items()]
        return "" if not stories or "" in stories else stories[-1]

    def story(self, source: str, step_s: float, fixed_s: float = 0.0) -> str:
        """Why one source is paused, "" while it is not."""
        known = self._sources.setdefault(source, Source(PRIOR))
        promised = self._rates(known, (), step_s, fixed_s)
        if not promised:
            return "drafting paused: the cost table has one width"
        best, plain_s = max(promised), self._round_s(0)
        if not known.paused:
            return ""
        k = 1 + promised.index(best)
        verify, drafting = self._round_s(k) / plain_s, (fixed_s + k * step_s) / plain_s
        also = f" and drafting them {drafting:.1f}x" if drafting >= 0.1 else ""
        need = acceptance_for(RESUME * (verify + drafting), k)
        rate = known.blind.rate
        if need >= 1:
            end = f"acceptance {rate:.2f} would not pay even at 1.00"
        elif need > rate:
            end = f"acceptance {rate:.2f} would need {need:.2f}"
        else:
            end = f"acceptance {rate:.2f} may pay again, so it is tried again soon"
        return (
            f"drafting paused: verifying {k + 1} tokens costs {verify:.1f}x one token here{also}, "
            f"{end}"
        )


def source_of(draft: Draft) -> str:
    """Who proposed the draft: its first node's source."""
    return draft.sources[0] if draft.sources else "draft"
