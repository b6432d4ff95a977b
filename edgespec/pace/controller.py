"""How much one drafter drafts: always the same, or what pays by a planner (planner.py)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Any

from edgespec.errors import UsageError
from edgespec.pace.cost import CostTable, DraftCosts, LiveCosts
from edgespec.pace.head import MAX_WIDTH
from edgespec.pace.plan import Plan
from edgespec.pace.planner import AutoPlanner
from edgespec.pace.source import Source, outcomes
from edgespec.types import Round

CATCH_UP = 2  # rounds after which a draft first has to read what it missed, which takes longer
ONLY = "drafter"  # the name of a source that is alone


class FixedController:
    """Always the same draft length; between sources the one that has been right more often."""

    reason, plain_s = "", 0.0

    def __init__(self, k: int) -> None:
        if not 0 <= k <= MAX_WIDTH:
            raise UsageError(f"draft length {k}: expected 0 to {MAX_WIDTH}, or auto")
        self.most = k
        self._sources: dict[str, Source] = {}

    def next_length(self) -> int:
        return self.most

    def observe(
        self, done: Round, source: str = "", n_rested: int = 0, beside_s: float = 0.0
    ) -> None:
        """Nothing to learn from what it took."""

    def plan(
        self, source: str, confidence: Sequence[float], step_s: float, fixed_s: float = 0.0
    ) -> Plan:
        """The whole draft, worth the tokens it is expected to add: times are no concern here."""
        known = self._of(source)
        if confidence:
            survival = known.survival(confidence[: self.most])
            return Plan(len(survival), sum(survival))
        survival = list(accumulate(map(known.coming.p, range(self.most)), mul))
        return Plan(self.most, sum(survival))

    def go_on(
        self, source: str, confidence: Sequence[float], step_s: float, *, whole: bool = False
    ) -> bool:
        return len(confidence) < self.most

    def draws(
        self, source: str, confidence: Sequence[float], step_s: float, least: float = 0.0
    ) -> bool:
        return True

    def learn(self, source: str, confidence: Sequence[float], accepted: Sequence[float]) -> None:
        self._of(source).learn(confidence, accepted)

    def fail(self, source: str, draft_s: float) -> None:
        self.learn(source, (), (0,))

    def may_score(self, source: str) -> bool:
        return True  # one that is right more often is used, however long it takes

    def pay(self, source: str, draft_s: float) -> None:
        """Times are no concern."""

    def renew(self, n: int) -> None:
        """Nothing that would be of one text only."""

    def lend(self, source: str, takes_s: float, n: float) -> None:
        """Times are no concern."""

    def n_rests(self, look_s: float) -> int:
        return 0

    @property
    def n_tested(self) -> int:
        return sum(known.n_tested for known in self._sources.values())

    def saved(self) -> dict[str, Any]:
        return {}

    def load(self, saved: dict[str, Any]) -> None:
        """Nothing is kept."""

    def _of(self, source: str) -> Source:
        return self._sources.setdefault(source, Source())


class AutoController:
    """Drafts as much of one source as pays, by an AutoPlanner and what its drafts take.

    overhead_s: seconds per round beside target and drafter.
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
        planner = self.planner
        self._asked = planner.plan(ONLY, (), costs.step_s, costs.fixed_s).width
        if not self._asked and planner.is_paused(ONLY) and planner.may_score(ONLY):
            self._asked = 1
        return self._asked

    def observe(self, done: Round) -> None:
        draft, verdict = done.draft, done.verdict
        n_drafted = len(draft) + draft.n_cut
        asked = n_drafted or self._asked
        if asked:
            behind = self._n_undrafted >= CATCH_UP
            self.draft_costs.observe(n_drafted, done.times.draft_s, at_most=behind)
        self._n_undrafted = 0 if asked else self._n_undrafted + 1
        if n_drafted:
            self.planner.learn(ONLY, (), outcomes(verdict.n_tested, len(verdict.accepted)))
        elif self._asked:
            self.planner.learn(ONLY, (), (0,))  # it was asked and gave nothing
        self.planner.observe(done, ONLY)
        self._asked = 0

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in one sentence; empty while drafting pays."""
        return self.planner.story(ONLY)
