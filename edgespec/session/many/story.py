"""Why an answer beside others is not drafted for, in a line; nothing is worked out until asked for.

Numbers in, words out; the line of one text's session is in pace/planner.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.pace.expected import acceptance_for
from edgespec.pace.goodput import cost_of

NOTHING_FOUND = "no drafts found: the text lately says nothing that it said before"


@dataclass(frozen=True)
class CrowdCosts:
    """What a forward of all answers costs. seconds: of 1, 2, .. rows. n: answers in it. n_other:
    tokens of prompts that it reads beside them. step_s: of drafting a token for 1 and for all n.
    margin: of plain decoding's rate that drafting must bring more.
    """

    seconds: Sequence[float]
    n: int
    n_other: int
    step_s: tuple[float, float]
    margin: float

    def need(self, m: int, k: int) -> tuple[float, float, float]:
        """Of drafting k tokens for m of the answers: the acceptance at which that pays, and what
        verifying and drafting take, of a round without drafts.
        """
        base = self.n + self.n_other
        plain_s = cost_of(self.seconds, base)
        verify = cost_of(self.seconds, base + m * k) / plain_s
        drafting = k * self.step_s[m > 1] / plain_s
        more = self.n * ((1 + self.margin) * (verify + drafting) - 1) / m
        return acceptance_for(1 + more, k), verify, drafting


def too_dear(prices: CrowdCosts, rate: float, lengths: Sequence[int], most_rows: int) -> str:
    """That drafts cost more than they bring, by the numbers of the draft that lacks least.

    rate: the drafted tokens accepted lately. most_rows: of a forward.
    """
    ways = [
        (prices.need(m, k), m, k)
        for m in sorted({1, prices.n})
        for k in lengths
        if m == 1 or prices.n + m * k <= most_rows
    ]
    (need, verify, drafting), m, k = min(ways)
    if prices.n == 1:
        what, than = f"{k + 1} tokens", "one token"
    else:
        what = f"{k + 1} tokens of {'each' if m > 1 else 'one'} of {prices.n} answers"
        than = "one of each"
    also = f" and drafting them {drafting:.1f}x" if drafting >= 0.1 else ""
    reads = " beside prompts that are read" if prices.n_other else ""
    if need >= 1:
        end = f"acceptance {rate:.2f} would not pay even at 1.00"
    elif need > rate:
        end = f"acceptance {rate:.2f} would need {need:.2f}"
    else:
        end = f"acceptance {rate:.2f} may pay again, so it is tried again soon"
    return f"drafting paused: verifying {what}{reads} costs {verify:.1f}x {than} here{also}, {end}"


def too_long(n_unread: int) -> str:
    """That the draft model would have to read too much."""
    return (
        f"drafting paused: the draft model has {n_unread} tokens to read first, which would take "
        "longer than it promises to save"
    )
