"""At which acceptance drafting pays, from what was measured: numbers in, numbers out.

A round that drafts k tokens takes k draft steps and a target forward of k + 1 tokens. With
acceptance a of each token after accepted ones it emits 1 + a + ... + a^k tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.pace.cost import CostTable
from edgespec.pace.expected import acceptance_for, tokens_of
from edgespec.pace.head import MAX_WIDTH


@dataclass(frozen=True)
class Width:
    """Drafting k tokens a round. verify, round: times of one plain token that the target's forward
    and the whole round take. acceptance: per token, above which it pays; None if none does.
    """

    k: int
    verify: float
    round: float
    acceptance: float | None

    def speed(self, acceptance: float) -> float:
        """Tokens per second over those of plain decoding."""
        return tokens_of(acceptance, self.k) / self.round


def widths_of(costs: CostTable, step_s: float) -> list[Width]:
    """Every width that the costs tell of, 1 to 16. step_s: seconds of drafting one token."""
    plain_s = costs.seconds[0]
    found = []
    for k in range(1, min(len(costs.seconds) - 1, MAX_WIDTH) + 1):
        verify = costs.seconds[k] / plain_s
        whole = verify + k * step_s / plain_s
        # k + 1 tokens come out at most, and those only if every draft is accepted.
        pays = whole < k + 1
        found.append(Width(k, verify, whole, acceptance_for(whole, k) if pays else None))
    return found


def least(widths: Sequence[Width]) -> Width | None:
    """The width that pays at the lowest acceptance, None if none does at any."""
    paying = [width for width in widths if width.acceptance is not None]
    return min(paying, key=lambda width: width.acceptance or 0.0, default=None)


def fastest(widths: Sequence[Width], acceptance: float) -> Width:
    """The width that is fastest at this acceptance; widths: at least one."""
    return max(widths, key=lambda width: width.speed(acceptance))
