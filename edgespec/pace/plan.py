"""The contract between a speculator that chooses between sources and what plans for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgespec.types import Round


@dataclass(frozen=True)
class Plan:
    """How many tokens of a source to draft, and what that is worth (source.py), in tokens.

    reads: the share of the time that may go to reading before it.
    """

    width: int
    worth: float
    reads: float = math.inf


class Planner(Protocol):
    """What a speculator that chooses between sources asks. most: tokens to draft at once."""

    most: int

    @property
    def reason(self) -> str:
        """Why nothing is drafted, in a sentence; empty while something pays."""
        ...

    @property
    def plain_s(self) -> float:
        """What a token takes without drafting, 0.0 where times are no concern."""
        ...

    def observe(
        self, done: Round, source: str = "", n_rested: int = 0, beside_s: float = 0.0
    ) -> None:
        """Learn from what a finished round took; source: who drafted, if all of it was cut.

        n_rested: tokens decoded plainly since the last one observed. beside_s: what the round took
        beside target and drafter; if nothing was drafted, what plain decoding would have so.
        """
        ...

    def plan(
        self, source: str, confidence: Sequence[float], step_s: float, fixed_s: float = 0.0
    ) -> Plan:
        """The best width for `source`; confidence: of a finished draft, or empty before drafting.

        step_s, fixed_s: seconds that drafting one more token takes, and any draft (0 for what is
        drafted already).
        """
        ...

    def go_on(
        self, source: str, confidence: Sequence[float], step_s: float, *, whole: bool = False
    ) -> bool:
        """Whether a draft that has come so far is worth another token.

        whole: what is drafted is verified whole, as what was drawn is, and not cut.
        """
        ...

    def draws(
        self, source: str, confidence: Sequence[float], step_s: float, least: float = 0.0
    ) -> bool:
        """Whether to draw the last of these tokens, whose law is known, and to verify it.

        Asked before it is drawn, because it is verified whatever it is. least: what the draft has
        to be worth for it to begin.
        """
        ...

    def learn(self, source: str, confidence: Sequence[float], accepted: Sequence[float]) -> None:
        """Of a draft's first tokens, as many as were tested, whether each was accepted: 1 or 0,
        or the chance that it would have been.
        """
        ...

    def fail(self, source: str, draft_s: float) -> None:
        """Drafting took so long and gave nothing: counts as a refused token."""
        ...

    def may_score(self, source: str) -> bool:
        """Whether a source that is not used may draft, to be scored by what follows."""
        ...

    def pay(self, source: str, draft_s: float) -> None:
        """Drafting to be scored took so long."""
        ...

    def renew(self, n: int) -> None:
        """Another text begins, after one of n tokens, or the first one, after none."""
        ...

    def lend(self, source: str, takes_s: float, n: float) -> None:
        """Scoring takes so long; it may be done at once if that is its share of n tokens."""
        ...

    def n_rests(self, look_s: float) -> int:
        """Most rounds to leave out between lookups in vain that take so long."""
        ...

    @property
    def n_tested(self) -> int:
        """Drafted tokens that it has learned from, of all sources."""
        ...

    def saved(self) -> dict[str, Any]:
        """What was learned, for a file."""
        ...

    def load(self, saved: dict[str, Any]) -> None:
        """Begin with it. Raises: KeyError, TypeError, ValueError for what was not saved."""
        ...
