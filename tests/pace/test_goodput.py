"""Widths of several sequences at once: the best of all there are, by counting them out."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.pace.goodput import cost_of, widths

FLAT = (1.0,) * 64
STEEP = tuple(float(n) for n in range(1, 65))


def rate_of(ks, survival, seconds, n_other=0, fixed_s=0.0):
    tokens = sum(1 + sum(chances[:k]) for k, chances in zip(ks, survival, strict=True))
    return tokens / (cost_of(seconds, sum(1 + k for k in ks) + n_other) + fixed_s)


def test_where_rows_cost_nothing_all_of_every_draft_is_verified():
    found = widths([[0.9, 0.8], [0.5], []], FLAT)
    assert found.ks == [2, 1, 0]
    assert found.rate == pytest.approx(3 + 0.9 + 0.8 + 0.5)


def test_where_every_row_costs_a_whole_forward_nothing_is():
    found = widths([[0.99] * 8, [0.99] * 8], STEEP)
    assert found.ks == [0, 0]
    assert found.rate == pytest.approx(1.0)
    assert found.price == pytest.approx(1.0)


def test_the_likeliest_tokens_of_all_sequences_are_taken_first():
    # A third row takes as long as two, a fourth as long as three more: one token is worth it.
    found = widths([[0.9, 0.3], [0.95, 0.2]], (1.0, 1.0, 1.0, 2.5, 4.0))
    assert found.ks == [0, 1]
    assert found.rate == pytest.approx(2.95)


def test_a_step_of_the_staircase_does_not_hide_what_is_behind_it():
    # Two rows cost more than eight rows do less one by one: only the whole draft pays.
    seconds = (1.0, 1.9, 2.0, 2.0, 2.0, 2.0)
    assert widths([[0.8] * 5], seconds).ks == [5]
    assert widths([[0.8]], seconds).ks == [0]


def test_a_prompt_in_the_same_forward_makes_rows_cheaper_or_dearer():
    seconds = (1.0, 1.6, 1.6, 3.0)
    assert widths([[0.5]], seconds).ks == [0]
    assert widths([[0.5]], seconds, n_other=1).ks == [1]
    assert widths([[0.5]], seconds, n_other=2).ks == [0]


def test_rows_that_do_not_fit_are_left_out():
    found = widths([[0.9, 0.8, 0.7], [0.85, 0.1]], FLAT, most_rows=4)
    assert found.ks == [1, 1]


def test_what_brings_hardly_anything_is_not_worth_a_draft():
    assert widths([[0.01]], FLAT).ks == [0]
    assert widths([[0.01]], FLAT, margin=0.0).ks == [1]


@settings(max_examples=60, deadline=None)
@given(
    survival=st.lists(
        st.lists(st.floats(0.01, 1.0), max_size=3).map(lambda one: sorted(one, reverse=True)),
        min_size=1,
        max_size=3,
    ),
    seconds=st.lists(st.floats(0.1, 3.0), min_size=14, max_size=14),
    n_other=st.integers(0, 2),
    fixed_s=st.floats(0, 1),
)
def test_no_other_choice_is_better_whatever_the_costs(survival, seconds, n_other, fixed_s):
    found = widths(survival, seconds, n_other=n_other, fixed_s=fixed_s, margin=0.0)
    choices = product(*(range(len(chances) + 1) for chances in survival))
    best = max(rate_of(ks, survival, seconds, n_other, fixed_s) for ks in choices)
    assert found.rate == pytest.approx(best)
    assert rate_of(found.ks, survival, seconds, n_other, fixed_s) == pytest.approx(best)
