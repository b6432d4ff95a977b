"""What a round costs: the target's time by width, measured once and kept current, and a draft's.

Knows nothing of acceptance or of what is worth drafting (controller.py). The table is measured,
never fitted: on a CPU the time of n tokens is a staircase and now and then falls as n grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from edgespec.errors import ContextError, UsageError
from edgespec.protocols import LanguageModel
from edgespec.types import Stats

# Steps of the staircase first (powers of two and their neighbours), so that a budget that runs
# out leaves the gaps where a straight line between two widths is least wrong.
WIDTHS = (1, 2, 4, 8, 3, 6, 5, 16, 12, 7, 9, 10, 17, 14, 11, 13, 15)
CLIP = 0.3  # one observation moves an estimate as if it were off by at most e^0.3 = 1.35x


@dataclass(frozen=True)
class CostTable:
    """seconds[n - 1]: a target forward of n tokens, n = 1 .. len(seconds); not assumed monotone."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds or not all(0 < s < float("inf") for s in self.seconds):
            raise UsageError(f"cost table {self.seconds}: expected one positive time per width")

    def __str__(self) -> str:
        first = self.seconds[0]
        return f"{first * 1e3:.2f} ms, then " + " ".join(
            f"{n}:{s / first:.2f}" for n, s in enumerate(self.seconds[1:], 2)
        )


def measure_costs(
    target: LanguageModel,
    *,
    max_width: int = 17,
    budget_s: float = 2.0,
    repeats_s: float | None = None,
    clock: Callable[[], float] = perf_counter,
) -> CostTable:
    """Times of 1 .. max_width tokens on top of what the target's cache holds, which stays as it is.

    Lower quartiles of repeats interleaved over the widths, because what else runs on the device
    only ever makes a repeat slower, often most of them. After `repeats_s` (None: all of the
    budget) nothing is repeated any more. Widths that do not fit the budget lie on the line between
    measured ones; widths that do not fit the cache are left out.
    Raises: ContextError if the cache has no room for a single token.
    """
    length = target.length
    max_width = min(max_width, target.n_context - length)
    if max_width < 1:
        raise ContextError(f"{length} tokens fill the context: expected room for at least one")
    tokens = [i % target.n_vocab for i in range(max_width)]

    def timed(n: int) -> float:
        try:
            start = clock()
            target.forward(tokens[:n])
            return clock() - start
        finally:
            target.truncate(length)

    start = clock()
    samples = _sweep(timed, [n for n in WIDTHS if n <= max_width], start + budget_s, clock)
    end = start + (budget_s if repeats_s is None else repeats_s)
    while clock() < end and len(samples[1]) < 9:
        for n in samples:
            if n == 1:
                timed(1)  # plain decoding repeats this width, so its graph is made only once
            if clock() < end:
                samples[n].append(timed(n))
    known = {n: max(quartile(times), 1e-9) for n, times in samples.items()}
    return CostTable(tuple(interpolated(known, n) for n in range(1, max_width + 1)))


def quartile(times: Sequence[float]) -> float:
    """The lower one: what else runs here only ever makes a repeat slower."""
    return sorted(times)[(len(times) - 1) // 4]


def _sweep(
    timed: Callable[[int], float], widths: Sequence[int], end: float, clock: Callable[[], float]
) -> dict[int, list[float]]:
    """One time per width, in order, as far as the budget goes; 1 and 2 tokens always."""
    timed(widths[0])  # buffers are made and pages read at the first call
    samples: dict[int, list[float]] = {}
    for n in widths:
        expected = interpolated({m: min(t) for m, t in samples.items()}, n) if samples else 0.0
        if n <= 2 or clock() + 2 * expected < end:
            timed(n)  # a width's first call pays for its graph
            samples[n] = [timed(n)]
    return samples


def interpolated(known: dict[int, float], n: int) -> float:
    """Time of n tokens on the line between the nearest known widths, or beyond the last two."""
    if n in known:
        return known[n]
    below = [m for m in known if m < n]
    above = [m for m in known if m > n]
    if not above and len(below) < 2:
        return known[below[0]] * n / below[0]
    high = min(above) if above else max(below)
    low = max(m for m in below if m != high)
    slope = (known[high] - known[low]) / (high - low)
    if not above:  # a falling last step must not be carried on below what was measured
        slope = max(slope, 0.0)
        return known[high] + slope * (n - high)
    return known[low] + slope * (n - low)


def plain_token_s(stats: Stats, costs: CostTable) -> float:
    """What a token would have taken without drafting, on the device as busy as it was meanwhile.

    The measured cost of one token, times what the rounds' forwards took over what their widths
    cost when they were measured.
    """
    seconds = costs.seconds
    expected = sum(
        n * seconds[min(length, len(seconds) - 1)]
        for length, n in enumerate(stats.rounds_by_length)
    )
    return seconds[0] * stats.target_s / expected + stats.overhead_s / stats.n_rounds


class LiveCosts:
    """A cost table kept current: one factor for all widths, and a slow correction of each.

    The common factor (a longer context, a hot or busy device) follows within tens of rounds; a
    width's own correction only what stays after it. Both average logarithms of clipped ratios,
    so that a round which another process made ten times slower shifts an estimate by a few
    per cent.
    """

    def __init__(self, table: CostTable) -> None:
        self._n_seen = [0] * len(table.seconds)
        self.seconds = list(table.seconds)  # [n - 1]: n tokens now

    def observe(self, n: int, seconds: float) -> None:
        """A forward of n tokens took this long; widths beyond the table are ignored."""
        if not (1 <= n <= len(self.seconds) and seconds > 0):
            return
        error = math.log(seconds / self.seconds[n - 1])
        error = min(max(error, -CLIP), CLIP)
        self._n_seen[n - 1] += 1
        common = math.exp(error * 0.1)
        self.seconds = [s * common for s in self.seconds]
        self.seconds[n - 1] *= math.exp(error * max(0.02, 0.4 / self._n_seen[n - 1]))


class DraftCosts:
    """Seconds a draft of k tokens takes: a fixed part and one per token, from recent drafts.

    Exponentially forgotten least squares, drawn towards a line through the origin as long as
    the drafts are all of one length. Outliers count as three times the expected time.
    step_s: first guess per token; None for none, every estimate is then 0 until the first draft.
    """

    def __init__(self, step_s: float | None = None) -> None:
        first = step_s or 0.0
        self._known = step_s is not None
        self._sums = [1.0, 1.0, 1.0, first, first] if self._known else [0.0] * 5
        self.fixed_s, self.step_s = 0.0, first
        self.mean_s = first  # per token, the fixed part spread over the drafts seen

    def observe(self, k: int, seconds: float, *, at_most: bool = False) -> None:
        """A draft of k tokens (0: it was tried in vain) took this long, or with `at_most` less."""
        if self._known:
            expected = self.fixed_s + max(k, 1) * self.step_s
            seconds = min(seconds, expected if at_most else 3 * expected + 1e-6)
        elif at_most:
            return
        self._known = True
        new = (1, k, k * k, seconds, k * seconds)
        self._sums = [0.95 * old + x for old, x in zip(self._sums, new, strict=True)]
        n, k1, k2, t1, kt = self._sums
        if k1 <= 0:
            self.fixed_s = t1 / n
            return
        self.mean_s = t1 / k1
        spread = k2 / n - (k1 / n) ** 2
        slope = (kt / n - k1 * t1 / n**2 + 0.5 * self.mean_s) / (spread + 0.5)
        self.step_s = min(max(slope, 0.0), self.mean_s)
        self.fixed_s = max(t1 / n - self.step_s * k1 / n, 0.0)
