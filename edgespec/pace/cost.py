"""What a round costs: the target's time by width, measured once and kept current, and a draft's.

Knows nothing of acceptance or of what is worth drafting (controller.py). The table is measured,
never fitted: on a CPU the time of n tokens is a staircase and now and then falls as n grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgespec.device import Others, waited_s
from edgespec.errors import ContextError, UsageError
from edgespec.protocols import LanguageModel
from edgespec.types import Stats

# Steps of the staircase first (powers of two and their neighbours), so that a budget that runs
# out leaves the gaps where a straight line between two widths is least wrong.
WIDTHS = (1, 2, 4, 8, 3, 6, 5, 16, 12, 7, 9, 10, 17, 14, 11, 13, 15)
WIDER = (32, 24, 64, 48, 40, 56)  # of several texts at once; rows between lie on a line
FALL = 1.3  # a width dearer than a wider one by this much is timed again; real falls reach 1.1
AGAIN = 3  # times, at most
LEAST, MOST, NOW_S = 6, 17, 0.5  # repeats of one plain token, and seconds for them

# Of a table, in logarithms: how far it is off for all widths alike, and for each on its own. One
# measured beside other processes was off up to 33-fold, and some of its widths another ten-fold.
COMMON, OWN, DOUBTED, DOUBTED_OWN = 0.1, 0.1, 2.0, 1.0
DRAFTED, LONE = 0.2, 0.3  # the same for what drafting and a new graph add
DRIFT, OWN_DRIFT = 0.01, 0.002  # from round to round: a longer context, a warmer device
NOISE = 0.1  # of one forward's time
UNSURE = 0.3  # deviation of a width's time, in logarithms, beyond which it is hoped to be less
FAR, FAR_RUN = 3.0, 3  # deviations beyond which a time is ignored, until so many in a row are


@dataclass(frozen=True)
class CostTable:
    """seconds[n - 1]: a target forward of n tokens, n = 1 .. len(seconds); not assumed monotone.

    in_doubt: it was measured on a busy device, so it is not to be kept.
    """

    seconds: tuple[float, ...]
    in_doubt: bool = False

    def __post_init__(self) -> None:
        if not self.seconds or not all(0 < s < float("inf") for s in self.seconds):
            raise UsageError(f"cost table {self.seconds}: expected one positive time per width")

    def __str__(self) -> str:
        first = self.seconds[0]
        return (
            f"{first * 1e3:.2f} ms, then "
            + " ".join(f"{n}:{s / first:.2f}" for n, s in enumerate(self.seconds[1:], 2))
            + " (measured on a busy device)" * self.in_doubt
        )


def measure_costs(
    target: LanguageModel,
    *,
    max_width: int = 17,
    budget_s: float = 2.0,
    repeats_s: float | None = None,
    clock: Callable[[], float] = perf_counter,
    waited: Callable[[], float] = waited_s,
) -> CostTable:
    """Times of 1 .. max_width tokens on top of what the target's cache holds, which stays as it is.

    Lower quartiles of repeats interleaved over the widths, because what else runs on the device
    only ever makes a repeat slower, often most of them. After `repeats_s` (None: all of the
    budget) nothing is repeated any more, but for widths dearer than a wider one, which a stall
    explains best. Widths that do not fit the budget lie on the line between measured ones; widths
    that do not fit the cache are left out. Where this process's threads `waited` for a core
    meanwhile, others compute here too: the table is in doubt.
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
            target.keep(())

    start, others = clock(), Others(clock, waited)
    samples = _sweep(
        timed, [n for n in (*WIDTHS, *WIDER) if n <= max_width], start + budget_s, clock
    )
    end = start + (budget_s if repeats_s is None else repeats_s)
    while clock() < end and len(samples[1]) < 9:
        for n in samples:
            if n == 1:
                timed(1)  # plain decoding repeats this width, so its graph is made only once
            if clock() < end:
                samples[n].append(timed(n))
    for _ in range(AGAIN):
        for n in _dearer_than_wider(samples):
            samples[n].append(timed(n))
    is_busy = others.compute
    known = {n: max(quartile(times), 1e-9) for n, times in samples.items()}
    seconds = tuple(interpolated(known, n) for n in range(1, max_width + 1))
    return CostTable(seconds, is_busy or bool(_dearer_than_wider(samples)))


def _dearer_than_wider(samples: dict[int, list[float]]) -> list[int]:
    """Widths that took FALL times what a wider one took."""
    best = {n: min(times) for n, times in samples.items()}
    return [n for n in best if any(best[n] > FALL * best[m] for m in best if m > n)]


def plain_seconds(target: LanguageModel, *, clock: Callable[[], float] = perf_counter) -> float:
    """What one token takes on top of what the cache holds."""
    length, times = target.length, list[float]()
    end = clock() + NOW_S
    while len(times) < LEAST or (clock() < end and len(times) < MOST):
        start = clock()
        target.forward([0])
        times.append(clock() - start)
        target.truncate(length)
    return quartile(times[1:])  # the first one makes the graph


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
            # A width's first call pays for its graph, but it tells when the second one stalled.
            samples[n] = [timed(n), timed(n)]
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


class LiveCosts:
    """A cost table kept current by what forwards take: what all widths share, and each its own.

    A Kalman filter over the logarithms of the times, whose beliefs about two widths depend on each
    other: a forward that surprises moves all of them, and when a second width then takes what it
    always took, only the first stays moved. One far off (another process had the core) is ignored;
    FAR_RUN of them in a row, all slower or all faster, are a change of the device and believed at
    once. A table in doubt gives way to the first forwards seen.
    Plain decoding repeats single tokens. Any other forward finds what drafting left in the caches;
    how much that takes is believed in like a width is, so that no device is blamed for what
    drafting does to its target. A single token after another width pays for a new graph besides
    (demo pair: 1.29 times), and counts as a width of its own.
    in_doubt: until plain decoding has been timed, which tells what of a change all widths share.
    hoped: as seconds, but the lower end of what is believed where a width of a table in doubt was
    not seen yet. Who plans by it tries such a width once, and then knows; by `seconds` a table
    measured beside other processes could keep drafting off, and so was never corrected.
    """

    def __init__(self, table: CostTable) -> None:
        self.in_doubt = table.in_doubt
        n = self._n = len(table.seconds)
        # Widths 1 .. n, a lone token, and what drafting adds to all but the first.
        self._logs = np.log([*table.seconds, table.seconds[0], 1.0])  # [n + 2]
        self._spread = covariance(n + 1, COMMON, OWN, DRAFTED)  # [n + 2, n + 2] of what is believed
        if table.in_doubt:
            self._spread[: n + 1, : n + 1] += doubted([*range(1, n + 1), 1])
        self._spread[n, n] += LONE**2
        self._may_hope = table.in_doubt
        self._drift = covariance(n + 1, DRIFT, OWN_DRIFT, OWN_DRIFT)
        self._far: list[float] = []
        self._last = 1  # tokens of the last forward
        self.seconds = list(table.seconds)  # [n - 1]: n tokens now; a single one in plain decoding
        self.lone_s = table.seconds[0]  # a single one after a draft or another width
        self.hoped = self._lower_ends()

    def observe(self, n: int, seconds: float, *, after_draft: bool = False) -> bool:
        """A forward of n tokens took this long; returns whether it was one of plain decoding.

        Widths beyond the table are ignored.
        """
        is_plain, self._last = n == self._last == 1 and not after_draft, n
        if 1 <= n <= self._n and seconds > 0:
            i = self._n if n == 1 and not is_plain else n - 1
            self._spread += self._drift
            expected = [*self.seconds, self.lone_s][i]
            off = self._believed(i, math.log(seconds / expected))
            if off is not None:
                self._move(i, off)
        return is_plain

    def _believed(self, i: int, off: float) -> float | None:
        """How far width i is off, None while it may be a stall; a change widens `_spread`."""
        if abs(off) < FAR * math.sqrt(self._depends(i)[1] + NOISE**2):
            self._far = []
            self.in_doubt = self.in_doubt and i > 0
            return off
        self._far = [*(far for far in self._far if far * off > 0), off]
        if len(self._far) < FAR_RUN:
            return None
        off = min(self._far, key=abs)
        self._spread += covariance(self._n + 1, abs(off), 0.0, 0.0)  # most likely the device,
        self._spread[i, i] += off**2 / 8  # perhaps only this width
        self._far = []
        self.in_doubt = i > 0
        return off

    def _move(self, i: int, off: float) -> None:
        """Kalman's update: the time of width i was off so far."""
        row, variance = self._depends(i)
        gain = row / (variance + NOISE**2)
        self._logs += off * gain
        self._spread -= gain[:, None] * row
        first, *others, drafted = self._logs.tolist()
        *wider, self.lone_s = (math.exp(one + drafted) for one in others)
        self.seconds = [math.exp(first), *wider]
        self.hoped = self._lower_ends()

    def _lower_ends(self) -> list[float]:
        """[n - 1]: below what is believed by as much as its deviation is beyond UNSURE."""
        if not self._may_hope:
            return self.seconds
        variances = np.diag(self._spread) + 2 * self._spread[-1] + self._spread[-1, -1]
        above = np.maximum(np.sqrt(np.maximum(variances[: self._n], 0.0)) - UNSURE, 0.0)
        self._may_hope = bool(above[1:].any())
        return [self.seconds[0], *(self.seconds[1:] * np.exp(-above[1:])).tolist()]

    def _depends(self, i: int) -> tuple[NDArray[np.float64], float]:
        """Covariances [n + 2] of all that is believed with width i's time, and that's variance."""
        row = self._spread[i] + self._spread[-1] if i else self._spread[0].copy()
        return row, float(row[i] + row[-1] if i else row[0])


def covariance(n: int, common: float, own: float, drafted: float) -> NDArray[np.float64]:
    """Of n widths that share one deviation and have one each, and of what drafting adds."""
    out = np.zeros((n + 1, n + 1))
    out[:n, :n] = common**2 + own**2 * np.eye(n)
    out[n, n] = drafted**2
    return out


def doubted(widths: Sequence[int]) -> NDArray[np.float64]:
    """[n, n] of widths measured beside others: off in common, and like their neighbours."""
    logs = np.log2(np.array(widths, np.float64))
    alike: NDArray[np.float64] = np.exp(-np.abs(logs[:, None] - logs))
    return DOUBTED**2 + DOUBTED_OWN**2 * alike


def plain_token_s(stats: Stats, costs: LiveCosts) -> float:
    """What a token would have taken without drafting, on the device as busy as it was meanwhile.

    The known cost of one token, times what the rounds' forwards took over what is known of their
    widths; and what a round of one token takes beside that. Other rounds take more: at temperature
    0.8 a round of 4 tokens of the demo pair took 2.8 ms so, one of a single token 0.6.
    """
    seconds = costs.seconds
    expected = stats.n_lone * (costs.lone_s - seconds[0]) + sum(
        n * seconds[min(length, len(seconds) - 1)]
        for length, n in enumerate(stats.rounds_by_length)
    )
    return seconds[0] * stats.target_s / expected + stats.single_s


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
