"""How much of which source to draft: the width that is worth most tokens, nothing included.

What is known of a source comes from source.py, seconds from cost.py. No clock is read here: times
arrive through `observe`, so every decision can be replayed.
Source: goodput as in SmartSpec, arXiv 2406.14066, with measured costs in place of a fitted line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgespec.pace.beside import Beside
from edgespec.pace.cost import CostTable, LiveCosts
from edgespec.pace.expected import acceptance_for, rates
from edgespec.pace.head import MAX_WIDTH
from edgespec.pace.plan import Plan
from edgespec.pace.source import (
    AHEAD,
    Prices,
    Source,
    best_drafted,
    best_to_come,
    best_with,
    goes_on,
)
from edgespec.types import Draft, Round

# What a draft must be worth, of a round's tokens: estimates err, and "never slower" is promised.
STAY, RESUME = 0.02, 0.04  # in use, and of a paused source to be used again
PROBE_SHARE = 0.009  # of the time, at most, is lost to trying whether drafting pays again
HOPED, HOPE = 0.9, 0.5  # all of it where a text with this acceptance would gain so much
KNOWN = 0.9  # acceptance at which a source that is right is no news
MOST_DEBT = -8.0  # plain tokens' time that is paid back before another try
KNOWN_DEBT = -1.0  # the same at first of a source that is known from earlier sessions
# What drafting promises of an answer's time may go to reading before it for this part, and for
# READS of the time at most. Promises are guesses until ENOUGH tokens were tested, and of a text
# that is short after all: where all that was promised might be spent, SmolLM2 slowed 96 tokens of
# Qwen2.5-Coder-1.5B after a prompt of 2,000 to 0.83 of plain, and 24 after one of 40 to 0.89.
READ_GUESS, READ_PART, READS, ENOUGH = 0.25, 0.5, 0.2, 32
# To be scored, for this part of all time, saved up from answer to answer for so many plain tokens:
# one answer alone seldom allows what reading takes, and who never reads is never known better.
SCORE_READS, MOST_SAVED = 0.01, 8.0
# Rounds after which plain decoding is timed, again and again; the first of a table in doubt.
PLAIN_DOUBT, PLAIN_FIRST, PLAIN_EVERY = 8, 24, 128
PLAIN_OFF = 0.1  # plain decoding is timed on as long as it differs this much from what is believed
PLAIN_MOST = 8  # rounds, at most: where times jump between levels no belief is ever right
LOOK_SHARE = 0.004  # of plain decoding's time for lookups in vain
MOST_RESTS = 64  # rounds between two lookups, though they take more than that
LATELY = 0.98  # weight of a round in the rate of decoding, one round later


class AutoPlanner:
    """Says for any source how much of it pays by measured costs and acceptance; nothing, if so.

    A source that is not used drafts now and then, to be scored by what follows without a pass of
    the target's; what this takes is paid from PROBE_SHARE of the time, so a cheap one is tried
    soon and a dear one late. costs: may be shared by all that use the target. most: tokens to
    draft at once. overhead_s: seconds per round beside target and drafter, until they were seen.
    """

    def __init__(
        self, costs: CostTable | LiveCosts, *, most: int = MAX_WIDTH, overhead_s: float = 0.0
    ) -> None:
        self.costs = LiveCosts(costs) if isinstance(costs, CostTable) else costs
        self.most = min(len(costs.seconds) - 1, most)
        self._beside = Beside(overhead_s)
        self.sources: dict[str, Source] = {}
        self._said = self._took = 10.0  # tokens lately, and in how many plain tokens' time
        self._n_since_plain = self._n_timed = self._n_texts = 0
        self._plain_every = PLAIN_DOUBT if self.costs.in_doubt else PLAIN_FIRST

    @property
    def plain_s(self) -> float:
        """What a token takes without drafting."""
        return self._round_s(0)

    @property
    def gain(self) -> float:
        """Tokens per second lately over those of plain decoding; at least 1, the alternative."""
        return max(self._said / self._took, 1.0)

    def plan(
        self, source: str, confidence: Sequence[float], step_s: float, fixed_s: float = 0.0
    ) -> Plan:
        """See Planner."""
        known, plain = self._of(source), Plan(0, 0.0)
        if self._is_timing:
            return plain
        most, rate, risk = self.most, self._rate, 0.0  # drafting itself shows what a text is worth
        if confidence:
            step_s = fixed_s = 0.0
            survival = known.survival(confidence[:most])
            prices = Prices(self.rounds_s, rate)
            k, worth, expected = best_drafted(survival, prices)
            risk = known.doubt * prices.risk(survival[0], k)
        else:
            known.step_s, known.fixed_s = step_s, fixed_s
            prices = Prices(self.rounds_s, rate, step_s)
            k, worth, expected = best_to_come(known.to_come((), most), prices)
            worth -= rate * fixed_s
        resuming = known.paused and not confidence
        margin = RESUME if resuming else STAY
        if not confidence:
            margin *= 1 - known.doubt  # what a text is worth is not known before it was asked
        pays = k > 0 and worth > margin * (1 + expected) + risk
        if not confidence or known.step_s is None:  # one poor draft is no reason to pause a source
            known.paused = not pays
        if not pays:
            if not confidence:
                known.hope = self._hope(step_s, fixed_s)
            return plain
        takes_s = self._round_s(k) + fixed_s + k * step_s
        gain = (1 + expected) * self.plain_s / takes_s - 1
        part = READ_GUESS if known.n_tested < ENOUGH else READ_PART
        return Plan(k, worth, reads=min(part * gain, READS))

    def _hope(self, step_s: float, fixed_s: float) -> float:
        """The part of PROBE_SHARE that scoring such a source is worth."""
        survival = [HOPED**k for k in range(1, self.most + 1)]
        best = max(rates(survival, self.rounds_s, step_s, fixed_s), default=0.0)
        return min(max(best * self.plain_s - 1, 0.0) / HOPE, 1.0)

    def is_paused(self, source: str) -> bool:
        """Whether it was not worth drafting when last asked."""
        return self._of(source).paused

    def go_on(
        self, source: str, confidence: Sequence[float], step_s: float, *, whole: bool = False
    ) -> bool:
        """See Planner. Compares what is drafted with up to AHEAD tokens more."""
        n_more = min(AHEAD, self.most - len(confidence))
        if n_more < 1:
            return False
        known = self._of(source)
        prices = Prices(self.rounds_s, self._rate, step_s)
        survival, chances = known.grown(confidence), known.to_come(confidence, n_more)
        return goes_on(survival, chances, prices, whole=whole)

    def draws(
        self, source: str, confidence: Sequence[float], step_s: float, least: float = 0.0
    ) -> bool:
        """See Planner. What is drawn before is verified whether or not more is."""
        known, k = self._of(source), len(confidence)
        prices, survival = Prices(self.rounds_s, self._rate, step_s), known.grown(confidence)
        chances = known.to_come(confidence, min(AHEAD, self.most - k))
        width, worth, expected = best_with(survival, chances, prices)
        if k > 1:
            return worth > prices.worth(sum(survival[:-1]), k - 1)
        risk = known.doubt * prices.risk(survival[0], width)
        return worth > max(least, STAY * (1 + expected) + risk)

    @property
    def _is_timing(self) -> bool:
        """Whether plain decoding is timed: a draft before the forward, too, would be felt in it."""
        is_due = self.costs.in_doubt or self._n_since_plain >= self._plain_every
        return is_due and self._n_timed < PLAIN_MOST

    @property
    def _rate(self) -> float:
        return self.gain / self.plain_s

    def _round_s(self, k: int) -> float:
        """Seconds of a round that verifies k drafted tokens, without drafting them."""
        return self.costs.seconds[k] + self._beside.of(k)

    @property
    def rounds_s(self) -> list[float]:
        """[k] the same for every k, as far as is hoped (cost.py)."""
        return [seconds + self._beside.of(k) for k, seconds in enumerate(self.costs.hoped)]

    def _of(self, source: str) -> Source:
        if source not in self.sources:
            self.sources[source] = Source()
            if self._n_texts:
                self.sources[source].renew(0)
        return self.sources[source]

    def observe(
        self, done: Round, source: str = "", n_rested: int = 0, beside_s: float = 0.0
    ) -> None:
        """See Planner."""
        source = source or source_of(done.draft)
        draft, n_hits, draft_s = done.draft, len(done.verdict.accepted), done.times.draft_s
        k, target_s = len(draft), done.times.target_s
        off = abs(target_s / self.costs.seconds[0] - 1)
        is_plain = self.costs.observe(k + 1, target_s, after_draft=done.is_felt)
        self._timed(is_plain, off < PLAIN_OFF)
        if beside_s:
            self._beside.observe(k, beside_s)
        plain_s = self.plain_s
        for known in self.sources.values():
            known.balance_s += known.hope * PROBE_SHARE * plain_s * (n_hits + 1 + n_rested)
        if k + draft.n_cut or (source in self.sources and draft_s > PROBE_SHARE * plain_s):
            self._keep_books(source, k, n_hits, draft_s)
        for known in self.sources.values():
            known.balance_s = min(known.balance_s, 0.0)
        if k <= self.most:
            took_s = self._round_s(k) + min(draft_s, 4 * plain_s)
            self._said = LATELY * self._said + n_hits + 1
            self._took = LATELY * self._took + took_s / plain_s

    def _timed(self, is_plain: bool, as_believed: bool) -> None:
        """A round was one of plain decoding or not, and took what was believed of that or not."""
        if not is_plain:
            self._n_since_plain += 1
            if self._n_since_plain == self._plain_every:
                self._n_timed = 0
            return
        self._n_timed += self._is_timing
        settled = as_believed or self._n_since_plain < self._plain_every
        if settled and not self.costs.in_doubt:
            self._n_timed = 0
        if settled or self._n_timed >= PLAIN_MOST:
            self._n_since_plain = 0
            self._plain_every = min(2 * self._plain_every, PLAIN_EVERY)

    def learn(self, source: str, confidence: Sequence[float], accepted: Sequence[float]) -> None:
        """See Planner."""
        self._of(source).learn(confidence, accepted)

    def fail(self, source: str, draft_s: float) -> None:
        """See Planner."""
        self.learn(source, (), (0,))
        self._keep_books(source, 0, 0, draft_s)

    def may_score(self, source: str) -> bool:
        """See Planner."""
        if self.most < 1 or self._is_timing:
            return False
        known = self._of(source)
        # Once it was right, the next rounds tell at once whether it is so again; paid for later.
        is_news = known.streak > 0 and known.coming.p(0) < KNOWN
        return known.balance_s >= (known.hope * MOST_DEBT * self.plain_s if is_news else 0.0)

    def pay(self, source: str, draft_s: float) -> None:
        """See Planner."""
        known, plain_s = self._of(source), self.plain_s
        debt_s = MOST_DEBT * plain_s
        known.balance_s = max(known.balance_s - min(draft_s, 4 * plain_s), debt_s)

    def renew(self, n: int) -> None:
        """See Planner."""
        self._n_texts += 1
        for known in self.sources.values():
            known.renew(n)

    def lend(self, source: str, takes_s: float, n: float) -> None:
        """See Planner."""
        known = self._of(source)
        if takes_s <= known.hope * PROBE_SHARE * n * self.plain_s:
            known.balance_s = max(known.balance_s, 0.0)

    def n_rests(self, look_s: float) -> int:
        """See Planner."""
        return int(min(look_s / (LOOK_SHARE * self.plain_s), MOST_RESTS))

    def _keep_books(self, source: str, k: int, n_hits: int, draft_s: float) -> None:
        """What drafting lost or won against plain decoding, in seconds; k: tokens verified.

        Estimates of the target's time, not clock readings: a slow round must not decide when to
        try again. A probe's draft counts as long as it took, reading what it missed included.
        """
        if k > self.most:
            return
        plain_s, known = self.plain_s, self._of(source)
        won_s = (n_hits + 1) * plain_s - self._round_s(k) - min(draft_s, 4 * plain_s)
        # What regular drafting lost before it paused is no reason to wait for long.
        floor_s = MOST_DEBT * plain_s if known.paused else min(plain_s - self._round_s(1), 0.0)
        known.balance_s = max(known.balance_s + won_s, floor_s)

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in one sentence; empty while any source pays."""
        stories = [self.story(name) for name in self.sources]
        return "" if not stories or "" in stories else stories[-1]

    def story(self, source: str) -> str:
        """Why one source is paused, "" while it is not."""
        known = self._of(source)
        if self.most < 1:
            return "drafting paused: the cost table has one width"
        if not known.paused:
            return ""
        step_s, fixed_s, plain_s = known.step_s or 0.0, known.fixed_s, self.plain_s
        prices = Prices(self.rounds_s, self._rate, step_s)
        k, _, _ = best_to_come(known.to_come((), self.most), prices)
        verify, drafting = self._round_s(k) / plain_s, (fixed_s + k * step_s) / plain_s
        also = f" and drafting them {drafting:.1f}x" if drafting >= 0.1 else ""
        need = acceptance_for((1 + RESUME) * (verify + drafting), k)
        if need >= 1:
            end = f"acceptance {known.rate:.2f} would not pay even at 1.00"
        elif need > known.rate:
            end = f"acceptance {known.rate:.2f} would need {need:.2f}"
        else:
            end = f"acceptance {known.rate:.2f} may pay again, so it is tried again soon"
        return (
            f"drafting paused: verifying {k + 1} tokens costs {verify:.1f}x one token here{also}, "
            f"{end}"
        )

    @property
    def n_tested(self) -> int:
        """See Planner."""
        return sum(known.n_tested for known in self.sources.values())

    def saved(self) -> dict[str, Any]:
        """See Planner."""
        # What is drafted for nothing is scored in every round: it learns anew at once.
        kept = {name: one for name, one in self.sources.items() if one.step_s is not None}
        sources = {name: one.saved() for name, one in kept.items() if one.n_tested}
        return {"gain": self.gain, "sources": sources}

    def load(self, saved: dict[str, Any]) -> None:
        """See Planner."""
        known = {str(name): Source() for name in saved["sources"]}
        for name, one in known.items():
            one.load(saved["sources"][name])
            one.balance_s, one.step_s = KNOWN_DEBT * self.plain_s, 0.0
        self._said = self._took * max(1.0, min(float(saved["gain"]), 16.0))
        self.sources = known


def source_of(draft: Draft) -> str:
    """Who proposed the draft: its first node's source."""
    return draft.sources[0] if draft.sources else "draft"
