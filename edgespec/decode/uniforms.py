"""Where random choices come from: uniforms by position or by round, and what they pick."""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from edgespec.types import FloatArray, SamplingParams


class UniformStream:
    """Uniforms [n, 3] (draft, accept, pick) for the tokens from a position on.

    Matching reads them by position, so that the text is a function of the seed alone, however
    the rounds fall. The other rules need fresh ones every round: a refused position's uniforms
    have already shaped what was emitted before it.
    """

    def __init__(self, seed: int | None, *, by_position: bool) -> None:
        self._rng = np.random.default_rng(seed)
        self._by_position = by_position
        self._drawn: NDArray[np.float64] = np.empty((0, 3))

    def take(self, position: int, n: int) -> NDArray[np.float64]:
        if not self._by_position:
            return self._rng.random((n, 3))
        while len(self._drawn) < position + n:
            self._drawn = np.concatenate((self._drawn, self._rng.random((256, 3))))
        return self._drawn[position : position + n]


def rule_of(params: SamplingParams) -> str:
    """How drafts are verified: greedily or with a seed by matching, whose text ignores drafts."""
    if params.verification != "auto":
        return params.verification
    return "match" if params.greedy or params.seed is not None else "rejection"


def uniforms_of(params: SamplingParams) -> UniformStream:
    """The uniforms of one generation."""
    return UniformStream(params.seed, by_position=rule_of(params) == "match")


class Uniforms:
    """Implements types.Chances: the uniforms given, then as many more as are asked for.

    The further ones come from a generator that the last one given has seeded, so that a choice
    with an unknown number of steps is a function of the uniforms of its round.
    """

    def __init__(self, *given: float) -> None:
        self._given = list(reversed(given))
        self._more: Random | None = None

    def pick(self, weights: FloatArray) -> int:
        return pick(weights, self._next())

    def under(self, share: float) -> bool:
        return self._next() < share

    def _next(self) -> float:
        if self._more is None and len(self._given) > 1:
            return self._given.pop()
        if self._more is None:
            last = self._given.pop()
            self._more = Random(last)
            return last
        return self._more.random()


def pick(p: FloatArray, u: float) -> int:
    """The id at which the running sum of p [V] (need not sum to 1) passes the share u of its total.

    An id of probability 0 is never picked. For u uniform in [0, 1) the id has law p / sum(p).
    """
    top = int(p.argmax())
    if p[top] == 1:  # a point mass, the greedy case
        return top
    passed = np.cumsum(p, dtype=np.float64)
    token = int(np.searchsorted(passed, u * passed[-1], side="right"))
    if token == len(p):  # u * total rounded up to the total
        token = int(np.flatnonzero(p)[-1])
    return token
