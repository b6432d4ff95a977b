"""Which rows are held: all that are named as long as there is room, then those named latest."""

from __future__ import annotations

import numpy as np

from edgespec.adapt.adapter import fresh
from edgespec.adapt.held import HeldRows
from edgespec.adapt.trainer import Trainer

N, D = 60, 4


def held(most=10, spare=3):
    """Rows of a head of N columns, and a trainer that holds none yet."""
    return HeldRows(N, most=most, spare=spare), Trainer(fresh(np.arange(0), D, rank=2))


def follow(rows, trainer, columns, **more):
    """The rows that are held once these were named."""
    rows.name(columns)
    rows.follow(trainer, **more)
    return trainer.adapter.rows.tolist()


def test_rows_are_held_as_they_are_named():
    rows, trainer = held()
    assert follow(rows, trainer, [7, 3, -1]) == [3, 7]
    assert follow(rows, trainer, [5]) == [3, 5, 7]
    assert follow(rows, trainer, []) == [3, 5, 7]


def test_where_there_is_no_room_those_named_longest_ago_leave_some_at_once():
    rows, trainer = held()
    for column in range(10):
        follow(rows, trainer, [column])
    follow(rows, trainer, [0])  # again
    assert follow(rows, trainer, [20]) == [0, 4, 5, 6, 7, 8, 9, 20]
    assert follow(rows, trainer, [21, 22]) == [0, 4, 5, 6, 7, 8, 9, 20, 21, 22]


def test_values_and_moments_stay_with_their_rows():
    rows, trainer = held()
    follow(rows, trainer, list(range(6)))
    follow(rows, trainer, list(range(6, 10)))
    trainer.adapter.up[:] = trainer.adapter.rows[:, None]
    for moments in (trainer._optimizer.first, trainer._optimizer.second):
        moments[1][:], moments[2][:] = trainer.adapter.up, trainer.adapter.rows
    now = np.array(follow(rows, trainer, [30]))
    assert now.tolist() == [3, 4, 5, 6, 7, 8, 9, 30]  # of those named at once: what moves more
    known = np.where(now == 30, 0, now)
    assert np.array_equal(trainer.adapter.up[:, 0], known)
    for moments in (trainer._optimizer.first, trainer._optimizer.second):
        assert np.array_equal(moments[1][:, 0], known) and np.array_equal(moments[2], known)


def test_more_than_there_is_room_for_at_once():
    rows, trainer = held()
    follow(rows, trainer, [50, 51])
    assert follow(rows, trainer, list(range(15))) == list(range(10))


def test_rows_that_a_trimmed_head_has_lost_leave_and_do_not_come():
    rows, trainer = held()
    follow(rows, trainer, [1, 2])
    has = np.ones(N, np.bool_)
    has[[2, 9]] = False
    assert follow(rows, trainer, [9, 3], has=has) == [1, 3]
