"""The sign test: what differs counts, and only beyond its noise."""

from __future__ import annotations

import numpy as np
import pytest

from edgespec.adapt.rivals import FEWEST, Rivals


@pytest.mark.parametrize(
    ("sigmas", "n_better", "n_worse", "verdict"),
    [(3, 8, 0, 0), (3, 10, 0, 1), (3, 0, 10, -1), (2, 7, 1, 1), (2, FEWEST - 1, 0, 0),
     (2, 60, 40, 0), (2, 61, 39, 1), (3, 0, 0, 0)],
)  # fmt: skip
def test_a_difference_is_believed_beyond_its_noise(sigmas, n_better, n_worse, verdict):
    assert Rivals(sigmas, n_better, n_worse).verdict == verdict


def test_where_both_are_alike_nothing_is_said():
    rivals = Rivals(3.0)
    rivals.add(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0, 1]))
    rivals.add(np.array([1.0]), np.array([0.0]))
    assert (rivals.n_better, rivals.n_worse) == (2, 1)
