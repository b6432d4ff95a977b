"""Pearson's chi-square test in a few lines: do counts follow a law? Pure functions."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Cell = TypeVar("Cell", bound=Hashable)
LEAST_EXPECTED = 5.0  # the test's usual rule of thumb; rarer cells are pooled


@dataclass(frozen=True)
class ChiSquare:
    """Cells after pooling, the statistic and the chance of a larger one if the law holds."""

    n_cells: int
    statistic: float
    p_value: float


def chi_square(counts: Mapping[Cell, int], law: Mapping[Cell, float], n: int) -> ChiSquare:
    """Test `counts` of n draws against `law`; what `law` leaves out has the rest of its mass.

    Cells expected fewer than 5 times share one, which joins the rarest other if still too rare.
    """
    kept = {cell: n * p for cell, p in law.items() if n * p >= LEAST_EXPECTED}
    cells = [(float(counts.get(cell, 0)), expected) for cell, expected in kept.items()]
    rest = n - sum(seen for seen, _ in cells), n - sum(expected for _, expected in cells)
    if rest[1] >= LEAST_EXPECTED or not cells:
        cells.append(rest)
    else:
        at = min(range(len(cells)), key=lambda i: cells[i][1])
        cells[at] = cells[at][0] + rest[0], cells[at][1] + rest[1]
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    n_free = len(cells) - 1
    return ChiSquare(len(cells), statistic, upper_tail(n_free, statistic) if n_free else 1.0)


def draws_needed(law: Mapping[Cell, float]) -> int | None:
    """The fewest draws with which a test against `law` has two cells; None where one is sure."""
    share = max(law.values())
    rarer = min(share, 1 - share)
    return math.ceil(LEAST_EXPECTED / rarer) if rarer > 0 else None


def upper_tail(n_free: int, statistic: float) -> float:
    """Probability that a chi-square variable with n_free degrees of freedom exceeds `statistic`."""
    return upper_gamma(n_free / 2, statistic / 2)


def upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x), a > 0.

    Source: Abramowitz and Stegun 1964, 6.5.29 (series) below x = a + 1, 6.5.31 (continued
    fraction, by Lentz's method) above.
    """
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * 1e-15:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - total * scale)
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b or tiny)
        c = b + step / c or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return min(1.0, fraction * scale)
