"""AdamW: as torch has it, and moments that follow their rows."""

from __future__ import annotations

import numpy as np
import pytest

from edgespec.adapt.adamw import AdamW, Settings
from edgespec.errors import ShapeError


def slopes(step, shape=(7, 3)):
    """Of one step; some rows are hardly ever touched."""
    drawn = np.random.default_rng(step).standard_normal(shape).astype(np.float32)
    drawn[step % shape[0]] = 0
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_twenty_steps_are_those_of_torch(decay):
    torch = pytest.importorskip("torch", reason="torch is not installed: the extra `train` has it")
    here = slopes(99)
    there = torch.nn.Parameter(torch.tensor(here.copy()))
    ours = AdamW([here], Settings(rate=0.01, decay=decay))
    theirs = torch.optim.AdamW([there], lr=0.01, weight_decay=decay)
    for step in range(20):
        ours.step([here], [slopes(step)])
        there.grad = torch.tensor(slopes(step))
        theirs.step()
        assert abs(here - there.detach().numpy()).max() < 1e-6
    assert here.dtype == np.float32


def test_the_first_step_is_as_long_as_the_rate():
    array = np.zeros(2, np.float32)
    AdamW([array], Settings(rate=0.5)).step([array], [np.array([3, -0.01], np.float32)])
    assert array.tolist() == pytest.approx([-0.5, 0.5], rel=1e-5)


def test_decay_pulls_without_any_slope():
    array = np.ones(1, np.float32)
    AdamW([array], Settings(rate=0.1, decay=0.5)).step([array], [np.zeros(1, np.float32)])
    assert array[0] == pytest.approx(0.95)


def test_moments_follow_their_rows():
    origin, all_rows = np.array([2, -1, 0]), np.ones((3, 2), np.float32)
    optimizer = AdamW([all_rows])
    optimizer.step([all_rows], [np.arange(6, dtype=np.float32).reshape(3, 2)])
    before = optimizer.first[0], optimizer.second[0]
    optimizer.move(0, origin)
    for old, new in zip(before, (optimizer.first[0], optimizer.second[0]), strict=True):
        assert np.array_equal(new[[0, 2]], old[[2, 0]]) and not new[1].any()


def test_arrays_that_changed_their_rows_are_told():
    optimizer = AdamW([np.zeros((3, 2))])
    with pytest.raises(ShapeError, match=r"\[\(4, 2\)\]: expected \[\(3, 2\)\]; call `move`"):
        optimizer.step([np.zeros((4, 2))], [np.zeros((4, 2))])
