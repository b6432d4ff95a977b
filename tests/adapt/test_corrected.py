"""Kept positions under an adapter: exact slopes, and what it lifts beside the slots counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from head_pair import HeadPair, taught
from test_adapter import slope, trained

from edgespec.adapt.adapter import fresh
from edgespec.adapt.corrected import LIFTED, backward, corrected
from edgespec.adapt.gate import rates
from edgespec.adapt.losses import LOSSES

PAIR = HeadPair()


def batch(m=12, n_top=10):
    """Positions whose logits are of 64 bits."""
    found = taught(PAIR, n_requests=2, n_top=n_top).sample(m, np.random.default_rng(3))
    return replace(found, base=found.base.astype(float), hidden=found.hidden.astype(float))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"tvd++"}))  # its reward is held fixed
def test_slopes_agree_with_finite_differences_whatever_is_lifted(name):
    some = batch()
    adapter = trained(range(0, PAIR.n, 3), d=PAIR.d, seed=2)
    adapter.up *= 0.5
    assert len(corrected(adapter, some).lifted.row) > 20

    def loss():
        return float(LOSSES[name](corrected(adapter, some).z, some.labels).loss.sum())

    seen = corrected(adapter, some)
    exact = backward(adapter, some, seen, LOSSES[name](seen.z, some.labels).dz)
    for slopes, array in zip(exact.parts, adapter.parameters, strict=True):
        assert np.allclose(slopes, slope(loss, array), rtol=1e-4, atol=1e-5)


def test_a_row_that_is_lifted_everywhere_is_pushed_down_where_it_is_no_slot():
    some, adapter = batch(), fresh(np.arange(PAIR.n), PAIR.d, rank=8)
    adapter.bias[:] = 0
    away = next(row for row in range(PAIR.n) if not (some.columns == row).any())
    adapter.bias[away] = 8.0
    seen = corrected(adapter, some)
    slopes = backward(adapter, some, seen, LOSSES["forward-kl"](seen.z, some.labels).dz)
    assert slopes.bias[away] > 0  # so a step lowers it
    assert set(seen.lifted.row.tolist()) == {away}
    adapter.bias[away] = LIFTED / 2
    assert len(corrected(adapter, some).lifted.row) == 0


def test_a_guess_below_a_lifted_row_is_not_right():
    some, adapter = batch(), fresh(np.arange(PAIR.n), PAIR.d, rank=8)
    before = rates(adapter, some, greedy=True)
    away = next(row for row in range(PAIR.n) if not (some.columns == row).any())
    adapter.bias[away] = 25.0
    assert before.any() and not rates(adapter, some, greedy=True).any()


def test_the_mass_of_the_others_is_that_of_whole_rows_where_they_are_alike():
    some = batch()
    adapter = fresh(np.arange(PAIR.n), PAIR.d, rank=8)
    adapter.bias += 2.0  # all rows alike
    seen, before, used = corrected(adapter, some), some.base, some.columns >= 0
    np.testing.assert_allclose(seen.z[:, :-1][used], before[:, :-1][used] + 2, atol=1e-6)
    grown = seen.z[:, -1] - before[:, -1]
    np.testing.assert_allclose(grown, np.log(1 + np.exp(2.0) - np.e), atol=1e-5)
