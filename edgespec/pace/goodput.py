"""How much of each of several drafts one forward verifies: most tokens per second in all.

Numbers in, numbers out: no clock, no drafter, no model.
Source: goodput as in SmartSpec, arXiv 2406.14066, section 4, with one width for each sequence and
measured costs in place of one width for all and a fitted line.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

MARGIN = 0.02  # of plain decoding's rate that drafting must bring more: estimates err


class Widths(NamedTuple):
    """ks: drafted tokens to verify, of each sequence. rate: expected tokens per second.

    price: tokens that one more row would have to bring to be worth its time.
    """

    ks: list[int]
    rate: float
    price: float


def cost_of(seconds: Sequence[float], n: int) -> float:
    """Seconds of a forward of n rows; beyond those known each row takes what they take on average.

    seconds: of 1, 2, .. rows.
    """
    known = len(seconds)
    return seconds[n - 1] if n <= known else seconds[-1] * n / known


def widths(
    survival: Sequence[Sequence[float]],
    seconds: Sequence[float],
    *,
    n_other: int = 0,
    most_rows: int = 1 << 30,
    fixed_s: float = 0.0,
    margin: float = MARGIN,
) -> Widths:
    """The ks that maximise expected tokens / t(sum(1 + k) + n_other), for any table of costs.

    survival: of each sequence, for its first, second, .. drafted token the probability that it and
    all before it are accepted, never rising; none for one without a draft. seconds: t, of 1, 2, ..
    rows. n_other: rows of others' prompts in the forward. most_rows: of all sequences, one each
    included. fixed_s: of the round beside the forward, drafting included. For each sum the best are
    the likeliest tokens of all, so the sums are gone through one by one and no step of the
    staircase hides what is behind it.
    """
    n = len(survival)
    base = n + n_other
    tokens = [
        (-alive, at, who)
        for who, chances in enumerate(survival)
        for at, alive in enumerate(accumulate(chances, min))
        if alive > 0
    ]
    tokens.sort()  # of equal ones the earlier first, so that no token comes before its parent
    expected = float(n)
    plain = expected / (cost_of(seconds, max(base, 1)) + fixed_s)
    rate, n_best = (1 + margin) * plain, 0
    for m, (minus, _, _) in enumerate(tokens[: max(most_rows - n, 0)], 1):
        expected -= minus
        reached = expected / (cost_of(seconds, base + m) + fixed_s)
        if reached > rate:
            rate, n_best = reached, m
    ks = [0] * n
    for _, _, who in tokens[:n_best]:
        ks[who] += 1
    if not n_best:
        rate = plain
    more_s = max(cost_of(seconds, max(base + n_best, 1) + 1) - cost_of(seconds, max(base, 1)), 0.0)
    return Widths(ks, rate, rate * more_s / (n_best + 1))
