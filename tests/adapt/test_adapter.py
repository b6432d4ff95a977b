"""The correction: without effect at first, exact slopes, rows that come and go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.adapt.adapter import HeadAdapter, fresh, moved
from edgespec.errors import ShapeError, UsageError


def trained(rows, d=5, rank=3, seed=1, dtype=np.float64):
    """As if training had moved every value."""
    rng = np.random.default_rng(seed)
    n = len(rows)
    draw = [rng.standard_normal(shape).astype(dtype) for shape in ((rank, d), (n, rank), (n,))]
    return HeadAdapter(np.array(rows, int), *draw)


def slope(function, array, step=1e-6):
    """Central differences in every value of an array."""
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        result[index] = (above - function()) / (2 * step)
        array[index] = kept
    return result


def test_a_fresh_adapter_changes_nothing():
    adapter = fresh(np.array([7, 2, 3]), 16, rank=8)
    logits = np.arange(10, dtype=np.float32)
    adapter.correct(logits, np.ones(16, np.float32))
    assert logits.tolist() == list(range(10))
    assert adapter.rows.tolist() == [2, 3, 7] and adapter.up.dtype == np.float32


def test_a_fresh_adapter_follows_from_its_seed():
    first, again, other = (fresh(np.arange(3), 8, rank=8, seed=s).down for s in (5, 5, 6))
    assert first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("rows", [[2, 3, 7], [4, 5, 6]])
def test_correct_adds_to_held_rows_only(rows):
    adapter, hidden = trained(rows), np.linspace(-1, 1, 5)
    logits = np.zeros(10)
    adapter.correct(logits, hidden)
    expected = adapter.up @ (adapter.down @ hidden) + adapter.bias
    assert np.allclose(logits[rows], expected)
    assert not logits[[i for i in range(10) if i not in rows]].any()


def test_an_adapter_of_no_rows_is_harmless():
    adapter, logits = fresh(np.array([], int), 4, rank=8), np.ones(3)
    adapter.correct(logits, np.ones(4))
    assert logits.tolist() == [1, 1, 1]
    assert (adapter.places(np.array([[0, 2, -1]])) == -1).all()
    assert adapter.corrections(np.ones((1, 4))).tolist() == [[0]]


def test_places_are_where_columns_are_held():
    places = trained([1, 4, 6, 9]).places(np.array([[6, 5, 1], [-1, 9, 99]]))
    assert places.tolist() == [[2, -1, 0], [-1, 3, -1]]


def test_slopes_agree_with_finite_differences():
    adapter, rng = trained([1, 4, 6, 9]), np.random.default_rng(3)
    held, hidden, weights = np.array([3, 0]), *map(rng.standard_normal, ((2, 5), (2, 2)))

    def loss():
        return float((weights * np.tanh(adapter.corrections(hidden)[:, held])).sum())

    dz = weights / np.cosh(adapter.corrections(hidden)[:, held]) ** 2
    exact = adapter.backward(hidden, dz, held)
    for slopes, array in zip(exact.parts, adapter.parameters, strict=True):
        assert np.allclose(slopes, slope(loss, array), rtol=1e-6, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_rows_that_stay_keep_their_values(before, after):
    adapter = trained(sorted(before))
    old = dict(zip(adapter.rows.tolist(), zip(adapter.up, adapter.bias, strict=True), strict=True))
    origin = adapter.hold(np.array(sorted(after, reverse=True), int))
    assert adapter.rows.tolist() == sorted(after)
    for row, up, bias, place in zip(adapter.rows, adapter.up, adapter.bias, origin, strict=True):
        assert (place >= 0) == (row in old)
        was = old.get(int(row), (np.zeros(3), 0.0))
        assert np.array_equal(up, was[0]) and bias == was[1]


def test_what_lies_beside_rows_moves_with_them():
    assert moved(np.array([[1.0], [2.0]]), np.array([1, -1])).tolist() == [[2.0], [0.0]]


def test_a_copy_shares_nothing():
    adapter = trained([1, 2])
    copy = adapter.copy()
    copy.up[:] = 0
    assert adapter.up.any()
    adapter.become(copy)
    assert not adapter.up.any() and adapter.up is not copy.up


def test_wrong_shapes_and_ranks_are_refused():
    with pytest.raises(UsageError, match="rank 0: expected 1 to 256"):
        fresh(np.arange(3), 4, rank=0)
    with pytest.raises(ShapeError, match="for 2 rows at rank 3"):
        HeadAdapter(np.arange(2), np.zeros((3, 4)), np.zeros((2, 4)), np.zeros(2))
    with pytest.raises(ShapeError, match="rising"):
        trained([3, 1])
