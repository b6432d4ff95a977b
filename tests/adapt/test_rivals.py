"""Two heads compared: what differs counts, and only beyond its noise; and what is seen lately."""

from __future__ import annotations

import numpy as np
import pytest

from edgespec.adapt.rivals import FEWEST, Decline, Lead


@pytest.mark.parametrize(
    ("n_better", "n_worse", "is_sure"),
    [(9, 0, False), (10, 0, True), (0, 10, False), (FEWEST - 1, 0, False), (65, 35, False),
     (66, 34, True), (0, 0, False)],
)  # fmt: skip
def test_a_lead_is_believed_beyond_its_noise(n_better, n_worse, is_sure):
    assert Lead(n_better, n_worse).is_sure == is_sure


def test_a_lead_that_is_of_no_use_is_none():
    assert Lead(30, 0, 1400).is_sure
    assert not Lead(30, 0, 1600).is_sure


def test_where_both_are_alike_nothing_is_said():
    lead, decline = Lead(), Decline()
    for one in (lead, decline):
        one.add(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0, 1]))
        one.add(np.array([1.0]), np.array([1.0]))
    assert (lead.n_better, lead.n_worse, decline.behind) == (1, 1, 0.75)


def test_a_decline_is_seen_soon_however_long_it_went_well_before():
    decline, right, wrong = Decline(), np.ones(5), np.zeros(5)
    for _ in range(100):
        decline.add(right, wrong)
    n = 0
    while not decline.is_sure:
        decline.add(wrong[:1], right[:1])
        n += 1
    assert n == 8


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 100, 250), (0.75, 10, 25)])
def test_how_long_it_takes_to_see_a_decline(share, least, most):
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        decline, n = Decline(), 0
        while not decline.is_sure:
            other = float(rng.random() < share)
            decline.add(np.array([1 - other]), np.array([other]))
            n += 1
        found.append(n)
    assert least < np.median(found) < most
