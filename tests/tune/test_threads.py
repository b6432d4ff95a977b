"""threads.py: which numbers are tried, what of a round is timed, and which is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.tune.threads import CACHED, DRAFTED, REPEATS, candidates, chosen, round_s
from edgespec.types import FloatArray


class Timed(TableModel):
    """A model whose forwards take the given seconds per token, on a clock they share."""

    def __init__(self, token_s: float, now: list[float]) -> None:
        super().__init__(lambda _: np.full(4, 0.25, np.float32), 4)
        self.token_s, self.now, self.widths = token_s, now, list[int]()

    def forward(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        self.now[0] += self.token_s * len(tokens)
        self.widths.append(len(tokens))
        return super().forward(tokens, parents)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("n_cores", "numbers"), [(1, [1]), (2, [2, 1]), (4, [4, 3, 2, 1]), (8, [8, 7, 4, 1])]
)
def test_all_cores_all_but_one_half_and_one_are_tried(n_cores: int, numbers: list[int]) -> None:
    assert candidates(n_cores) == numbers


def test_fewer_threads_are_chosen_where_they_cost_next_to_nothing() -> None:
    assert chosen([4, 2, 1], [1.0, 1.01, 1.7]) == 2
    assert chosen([4, 2, 1], [1.0, 1.2, 1.7]) == 4


def test_without_a_drafter_a_plain_token_is_timed(now: list[float]) -> None:
    target = Timed(2.0, now)
    assert round_s(target, None, lambda: now[0]) == 2.0
    assert target.widths == [1] * (REPEATS + 1)
    assert target.length == 0


def test_with_a_drafter_a_round_is_timed_whose_caches_end_as_they_began(now: list[float]) -> None:
    target, drafter = Timed(2.0, now), Timed(0.5, now)
    assert round_s(target, drafter, lambda: now[0]) == DRAFTED * 0.5 + (DRAFTED + 1) * 2.0 + 2.0
    assert drafter.widths == [1] * DRAFTED * (REPEATS + 1)
    assert (target.length, drafter.length) == (0, 0)
    assert CACHED > DRAFTED
