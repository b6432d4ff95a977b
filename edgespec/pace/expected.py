"""What drafting promises: expected tokens of a round, and per second.

A round that drafts k tokens, each accepted with probability a if those before it were, emits
1 + a + .. + a^k (Leviathan et al. 2022, arXiv 2211.17192, equation 1). Numbers in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def tokens_of(acceptance: float, k: int) -> float:
    """Expected tokens of a round that drafts k."""
    return float(sum(acceptance**i for i in range(k + 1)))


def rates(
    survival: Sequence[float], costs_s: Sequence[float], step_s: float, fixed_s: float = 0.0
) -> list[float]:
    """Expected tokens per second of drafting 1, 2, .. tokens.

    survival: for each the probability that it and all before it are accepted. costs_s: of a
    target forward of 1, 2, .. tokens. step_s, fixed_s: of drafting one token, and of any draft.
    """
    expected = accumulate(survival, initial=1.0)
    next(expected)  # a round without a draft
    return [tokens / (costs_s[k] + fixed_s + k * step_s) for k, tokens in enumerate(expected, 1)]


def acceptance_for(n_tokens: float, k: int) -> float:
    """The acceptance per token at which k drafted tokens emit `n_tokens`; 1 if none does."""
    low, high = 0.0, 1.0
    for _ in range(30):
        a = (low + high) / 2
        low, high = (low, a) if tokens_of(a, k) > n_tokens else (a, high)
    return high
