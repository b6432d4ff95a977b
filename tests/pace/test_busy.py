"""Costs on a device where others compute too: how they are marked, and how soon they are right."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edgespec.pace import cost_store
from edgespec.pace.controller import AutoController
from edgespec.pace.cost import CostTable, LiveCosts, interpolated, measure_costs, plain_token_s
from edgespec.pace.planner import AutoPlanner
from edgespec.types import Capabilities, Draft, Round, Stats, Times, Verdict

# Qwen2.5-Coder-1.5B Q4_K_M on two cores.
STAIRS = {1: 1, 2: 1.48, 4: 2.18, 8: 3.14, 12: 3.22, 16: 3.32, 17: 3.5}
TRUE = tuple(0.077 * interpolated(STAIRS, n) for n in range(1, 18))
STEP_S, ACCEPTANCE = 0.007, 0.8
# Tables that were measured beside a process computing on the other core.
JUMP, LEVEL, STALL = (2.503, *[0.251] * 16), (2.573, *[2.612] * 16), (1.192, *TRUE[1:])


class StallingModel:
    """A target on a clock of its own; `stalls` says by the call's number how much longer."""

    n_vocab, n_context, capabilities = 3, 100, Capabilities()

    def __init__(self, stalls: Callable[[int, int], float]) -> None:
        self.stalls = stalls
        self.now, self.length, self.n_calls = 0.0, 7, 0

    def forward(self, tokens, parents=None):
        self.length += len(tokens)
        self.now += TRUE[len(tokens) - 1] * self.stalls(self.n_calls, len(tokens))
        self.n_calls += 1

    def keep(self, rows):
        self.length = 7 + len(rows)

    def truncate(self, n):
        self.length = n


def measured(model: StallingModel, waited: Callable[[], float] = lambda: 0.0) -> CostTable:
    return measure_costs(
        model, budget_s=8.0, repeats_s=0.25, clock=lambda: model.now, waited=waited
    )


@pytest.mark.parametrize("call", range(34))
def test_one_stall_does_not_reach_a_table_of_few_samples(call: int):
    costs = measured(StallingModel(lambda i, _: 15 if i == call else 1))
    assert not costs.in_doubt
    assert costs.seconds[0] == pytest.approx(TRUE[0])
    assert costs.seconds == pytest.approx(TRUE, rel=0.2)  # a long stall leaves less time to measure


def test_a_stall_of_both_calls_is_timed_again():
    costs = measured(StallingModel(lambda i, n: 15 if n == 1 and i < 3 else 1))
    assert costs.seconds[0] == pytest.approx(TRUE[0])
    assert not costs.in_doubt


def test_threads_that_wait_for_a_core_put_the_table_in_doubt():
    for share, in_doubt in ((0.1, False), (0.5, True)):
        model = StallingModel(lambda *_: 1)
        assert measured(model, lambda: share * model.now).in_doubt is in_doubt  # noqa: B023


def test_one_token_that_stays_dearer_than_two_puts_the_table_in_doubt():
    costs = measured(StallingModel(lambda _, n: 15 if n == 1 else 1))
    assert costs.in_doubt
    assert str(costs).endswith("(measured on a busy device)")


def test_a_table_in_doubt_is_soon_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target, file = StallingModel(lambda *_: 1), tmp_path / "costs.json"
    for in_doubt in (True, False):
        table = CostTable(TRUE, in_doubt)
        monkeypatch.setattr(cost_store, "measure_costs", lambda *_, table=table, **__: table)
        assert cost_store.measured(target, file) == cost_store.load(file) == table
        os.utime(file, (0, file.stat().st_mtime - 700))
        assert (cost_store.load(file) is None) is in_doubt


def answered(
    controller: AutoController,
    seed: int,
    slowdown: Callable[[random.Random], float],
    acceptance: float = ACCEPTANCE,
):
    """Widths of the rounds of an answer of 64 tokens."""
    rng, n_tokens, widths = random.Random(seed), 0, []
    while n_tokens < 64:
        k = controller.next_length()
        n_hits = next((i for i in range(k) if rng.random() > acceptance), k)
        draft = Draft(tuple(range(k)), sources=("model",) * k)
        verdict = Verdict(tuple(range(n_hits + 1)), tuple(range(n_hits)), min(n_hits + 1, k))
        now = slowdown(rng) * rng.lognormvariate(0, 0.05)
        times = Times(k * STEP_S * now, TRUE[k] * now)
        controller.observe(Round((), draft, verdict, times))
        n_tokens += n_hits + 1
        widths.append(k)
    return widths


def off(controller: AutoController, widths: list[int]) -> float:
    """By how much the widths used are known wrongly, over one token."""
    known = controller.planner.costs.seconds
    return max(
        abs(known[k] / known[0] / (TRUE[k] / TRUE[0]) - 1) for k in widths[len(widths) // 2 :]
    )


@pytest.mark.parametrize("table", [JUMP, LEVEL, STALL, tuple(33 * s for s in TRUE)])
@pytest.mark.parametrize("seed", range(3))
def test_a_table_in_doubt_is_right_within_one_answer(table: tuple[float, ...], seed: int):
    controller = AutoController(CostTable(table, in_doubt=True), step_s=STEP_S)
    widths = answered(controller, seed, lambda _: 1)
    assert controller.planner.costs.seconds[0] == pytest.approx(TRUE[0], rel=0.15)
    assert off(controller, widths) < 0.2


@pytest.mark.parametrize("dearer", [1.5, 2.5])
@pytest.mark.parametrize("seed", range(3))
def test_widths_too_dear_to_be_used_are_tried_where_the_table_is_in_doubt(dearer: float, seed: int):
    table = CostTable((TRUE[0], *(dearer * s for s in TRUE[1:])), in_doubt=True)
    controller = AutoController(table, step_s=STEP_S)
    widths = answered(controller, seed, lambda _: 1)
    assert any(widths[len(widths) // 2 :])  # drafting pays here
    known = controller.planner.costs.seconds
    assert known[1:8] == pytest.approx(TRUE[1:8], rel=0.25)


def test_what_never_pays_is_tried_a_few_times_where_the_table_is_in_doubt():
    table = CostTable((TRUE[0], *(1.3 * s for s in TRUE[1:])), in_doubt=True)
    controller = AutoController(table, step_s=STEP_S)
    widths = answered(controller, 0, lambda _: 1, acceptance=0.3)
    assert 0 < sum(map(bool, widths[:10])) < 8
    assert sum(map(bool, widths[10:])) < 4


@pytest.mark.parametrize("slower", [2.5, 33])
@pytest.mark.parametrize("seed", range(3))
def test_costs_are_right_within_one_answer_after_a_busy_one(slower: float, seed: int):
    controller = AutoController(CostTable(TRUE), step_s=STEP_S)
    answered(controller, seed, lambda rng: slower * rng.lognormvariate(0, 0.3))
    assert controller.planner.costs.seconds[0] > 1.5 * TRUE[0]
    widths = answered(controller, seed, lambda _: 1)
    assert controller.planner.costs.seconds[0] == pytest.approx(TRUE[0], rel=0.15)
    assert off(controller, widths) < 0.2


def test_a_lone_stall_is_ignored_and_three_in_a_row_are_believed():
    live = LiveCosts(CostTable((1.0, 1.5, 2.0)))
    live.observe(1, 30.0)
    live.observe(2, 1.5)
    live.observe(1, 30.0)
    live.observe(1, 0.01)  # faster: the other side
    live.observe(1, 30.0)
    assert live.seconds == pytest.approx([1.0, 1.5, 2.0], rel=0.02)
    for _ in range(3):
        live.observe(1, 30.0)
    assert live.seconds[0] == pytest.approx(30, rel=0.1)
    assert live.seconds[1] > 20


def test_a_width_that_alone_was_wrong_leaves_the_others_alone():
    live = LiveCosts(CostTable((1.0, 1.5, 2.0)))
    for _ in range(5):
        live.observe(3, 8.0)
    live.observe(2, 1.5)
    live.observe(1, 1.2)  # a new graph
    live.observe(1, 1.0)
    assert live.seconds == pytest.approx([1.0, 1.5, 8.0], rel=0.15)


def test_plain_decoding_is_timed_first_where_its_cost_is_in_doubt():
    for in_doubt in (True, False):
        planner = AutoPlanner(CostTable((1.0, *[1.1] * 16), in_doubt))
        assert (planner.plan("", (), 0.01).width == 0) is in_doubt


def test_methods_of_a_pair_share_what_they_saw():
    live = LiveCosts(CostTable(TRUE, in_doubt=True))
    one, other = AutoPlanner(live), AutoPlanner(live, most=4)
    for _ in range(5):
        one.observe(Round((), Draft(), Verdict((5,), (), 0), Times(0.0, 2.0)))
    assert other.costs.seconds[0] == pytest.approx(2.0, rel=0.05)
    assert (one.most, other.most) == (16, 4)


def test_a_lone_single_token_pays_for_its_graph_and_tells_nothing_of_plain_decoding():
    live = LiveCosts(CostTable(TRUE))
    for _ in range(50):
        live.observe(3, TRUE[2])
        live.observe(1, 1.3 * TRUE[0])
    assert live.seconds[0] == pytest.approx(TRUE[0], rel=0.01)
    live.observe(3, TRUE[2])
    for _ in range(50):
        live.observe(1, 1.3 * TRUE[0])
    assert live.seconds[0] == pytest.approx(1.3 * TRUE[0], rel=0.05)


def test_a_wrong_table_does_not_speak_for_the_gain():
    live = LiveCosts(CostTable(STALL, in_doubt=True))
    for n in (1, 1, 3) * 7:
        live.observe(n, TRUE[n - 1])
    seconds = 14 * TRUE[0] + 7 * TRUE[2]
    stats = Stats(
        n_tokens=35, n_rounds=21, rounds_by_length=(14, 0, 7), target_s=seconds, decode_s=seconds
    )
    assert plain_token_s(stats, live) == pytest.approx(TRUE[0], rel=0.05)
