"""How many threads a target and its drafter are given: what forwards of both take in turns.

A draft model and its target run one after the other, so what counts is a whole round: some tokens
drafted one by one, then verified in one pass.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter

from edgespec.protocols import LanguageModel

REPEATS, CACHED, DRAFTED = 7, 32, 3  # rounds, tokens in the cache, tokens drafted
WORTH = 0.02  # fewer threads are taken where they cost no more than this


def candidates(n_cores: int) -> list[int]:
    """Numbers of threads to try: all, all but one, half, one; most first."""
    return sorted({n_cores, max(n_cores - 1, 1), max(n_cores // 2, 1), 1}, reverse=True)


def round_s(
    target: LanguageModel, drafter: LanguageModel | None, clock: Callable[[], float] = perf_counter
) -> float:
    """Median seconds of a plain token and, with a drafter, of drafting and verifying.

    Empties both caches.
    """
    models = [target] if drafter is None else [target, drafter]
    for model in models:
        model.truncate(0)
        model.extend([1] * CACHED)
    samples = []
    for number in range(REPEATS + 1):
        start = clock()
        _timed_round(target, drafter)
        if number:  # the first of a width pays for its graph
            samples.append(clock() - start)
    for model in models:
        model.truncate(0)
    return statistics.median(samples)


def _timed_round(target: LanguageModel, drafter: LanguageModel | None) -> None:
    if drafter is not None:
        for _ in range(DRAFTED):
            drafter.forward([1])
        drafter.truncate(CACHED)
        target.forward([1] * (DRAFTED + 1))
    target.truncate(CACHED)
    target.forward([1])
    target.truncate(CACHED)


def chosen(numbers: Sequence[int], seconds: Sequence[float]) -> int:
    """The fewest threads that are as good as the best."""
    least = min(seconds)
    good = [n for n, s in zip(numbers, seconds, strict=True) if s <= least * (1 + WORTH)]
    return min(good)
