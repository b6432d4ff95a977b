"""What rounds take beside target and drafter, and what it changes."""

from __future__ import annotations

import pytest

from edgespec.pace.beside import Beside
from edgespec.pace.cost import CostTable
from edgespec.pace.planner import AutoPlanner
from edgespec.pace.source import outcomes
from edgespec.types import Draft, Round, Times, Verdict

PLAIN_S = 1.4e-3


def test_a_line_by_tokens_verified_and_plain_decoding_apart():
    beside = Beside()
    assert beside.of(0) == beside.of(4) == 0.0
    beside.observe(0, 1e-4)
    assert beside.of(0) == beside.of(4) == 1e-4
    for k in (2, 6) * 20:
        beside.observe(k, 2e-4 + k * 5e-5)
    assert beside.of(0) == 1e-4
    assert beside.of(4) == pytest.approx(4e-4, rel=0.05)
    assert beside.of(8) == pytest.approx(6e-4, rel=0.1)


def test_a_stall_counts_as_three_times_the_usual():
    beside = Beside()
    beside.observe(0, 1e-4)
    beside.observe(0, 1.0)
    assert beside.of(0) == pytest.approx(1.1e-4)


def decided(verifying_s: float) -> int:
    """Width of a draft that is right at 0.6 a token, when rounds of it take that much beside."""
    planner = AutoPlanner(CostTable(tuple(PLAIN_S * (1 + 0.1 * i) for i in range(17))))
    draft = Draft((1, 2, 3), sources=("model",) * 3)
    for i in range(40):
        n_hits = (3, 0, 3, 2)[i % 4]
        verdict = Verdict((1,) * (n_hits + 1), tuple(range(n_hits)), min(n_hits + 1, 3))
        planner.learn("model", (), outcomes(verdict.n_tested, n_hits))
        planner.observe(Round((), draft, verdict, Times(3e-4, 1.3 * PLAIN_S)), beside_s=verifying_s)
        for _ in range(2):
            plain = Round((), Draft(), Verdict((1,), (), 0), Times(0.0, PLAIN_S))
            planner.observe(plain, beside_s=1e-4)
    return planner.plan("model", (), 1e-4).width


def test_what_verifying_takes_beside_the_forward_is_part_of_its_price():
    assert decided(2e-4) > 0
    assert decided(1e-2) == 0
