"""chi_square.py against printed tables, and against counts that do or do not follow a law."""

from __future__ import annotations

import numpy as np
import pytest

from edgespec.check.chi_square import chi_square, upper_tail


@pytest.mark.parametrize(
    ("n_free", "statistic", "expected"),
    [
        # Percentage points of the chi-square distribution, as printed in statistics books.
        (1, 3.841, 0.05),
        (1, 0.0158, 0.90),
        (2, 9.210, 0.01),
        (10, 18.307, 0.05),
        (10, 2.558, 0.99),
        (30, 59.703, 0.001),
        (100, 124.342, 0.05),
        (100, 77.929, 0.95),
    ],
)
def test_tail_matches_printed_tables(n_free: int, statistic: float, expected: float) -> None:
    assert upper_tail(n_free, statistic) == pytest.approx(expected, rel=5e-3)


def test_two_degrees_of_freedom_are_an_exponential() -> None:
    for x in (0.0, 0.5, 3.9, 4.1, 60.0, 1400.0):
        assert upper_tail(2, x) == pytest.approx(np.exp(-x / 2), rel=1e-9, abs=1e-300)


def test_statistic_is_pearsons() -> None:
    test = chi_square({0: 30, 1: 70}, {0: 0.5, 1: 0.5}, 100)
    assert (test.n_cells, test.statistic) == (2, pytest.approx(16.0))


def test_rare_cells_share_one() -> None:
    law = {i: 0.01 for i in range(50)} | {99: 0.5}
    test = chi_square({99: 50, 3: 50}, law, 100)
    assert (test.n_cells, test.statistic) == (2, pytest.approx(0.0))


def test_a_rest_too_rare_joins_the_rarest_cell() -> None:
    test = chi_square({0: 90, 1: 8, 2: 2}, {0: 0.9, 1: 0.08, 2: 0.02}, 100)
    assert (test.n_cells, test.statistic) == (2, pytest.approx(0.0))


def test_a_sure_outcome_is_not_a_test() -> None:
    assert chi_square({7: 100}, {7: 1.0}, 100).p_value == 1.0


def test_an_impossible_outcome_is_noticed() -> None:
    assert chi_square({0: 40, 1: 40, 2: 20}, {0: 0.5, 1: 0.5}, 100).p_value < 0.05


def test_p_values_are_uniform_under_the_law() -> None:
    rng = np.random.default_rng(0)
    law = {0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}
    draws = rng.multinomial(2000, list(law.values()), size=400)
    values = [chi_square(dict(enumerate(map(int, d))), law, 2000).p_value for d in draws]
    shares = [np.mean(np.array(values) < level) for level in (0.1, 0.5, 0.9)]
    assert shares == pytest.approx([0.1, 0.5, 0.9], abs=0.06)
