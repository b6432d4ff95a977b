"""The controller on simulated devices: known costs and acceptance, noise, outliers, changes."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable

import pytest

from edgespec.errors import ContextError, UsageError
from edgespec.pace.controller import AutoController, FixedController
from edgespec.pace.cost import CostTable, DraftCosts, LiveCosts, interpolated, measure_costs
from edgespec.pace.expected import acceptance_for
from edgespec.pace.planner import AutoPlanner
from edgespec.pace.source import Prices
from edgespec.types import Capabilities, Draft, Round, Times, Verdict

# Cost of n tokens over one, measured on two Zen 4 cores with 0.55B weights, in llama.cpp.
MEASURED = {
    "F16": {1: 1, 4: 1.42, 6: 1.59, 7: 2.0, 8: 2.15, 16: 3.42},
    "Q8_0": {1: 1, 2: 1.71, 4: 2.07, 7: 3.33, 8: 3.04, 16: 5.2},
    "Q4_K_M": {1: 1, 2: 1.73, 4: 3.11, 8: 7.18, 16: 8.53},
}
PLAIN_S, STEP_S = 0.011, 0.011 / 20


def table(name: str) -> CostTable:
    return CostTable(tuple(PLAIN_S * interpolated(MEASURED[name], n) for n in range(1, 18)))


def expected(a: float, k: int) -> float:
    return sum(a**i for i in range(k + 1))


def best_rate(costs: CostTable, a: float) -> float:
    return max(expected(a, k) / (costs.seconds[k] + k * STEP_S) for k in range(17))


def round_of(k: int, n_accepted: int, target_s: float, draft_s: float) -> Round:
    draft = Draft(tuple(range(k)), sources=("model",) * k)
    n_tested = min(n_accepted + 1, k)
    verdict = Verdict(tuple(range(n_accepted + 1)), tuple(range(n_accepted)), n_tested)
    return Round((), draft, verdict, Times(draft_s, target_s))


class Device:
    """Runs a controller on known costs; counts expected, not drawn, tokens and seconds."""

    def __init__(self, costs: CostTable, seed: int = 0) -> None:
        self.costs, self.rng = costs, random.Random(seed)
        self.controller = AutoController(costs)
        self.rounds: list[tuple[int, float, float]] = []  # width, tokens, seconds

    def noise(self) -> float:
        return self.rng.lognormvariate(0, 0.05) * (10 if self.rng.random() < 0.01 else 1)

    def run(self, n: int, acceptance: Callable[[int], float] | float) -> Device:
        for i in range(n):
            a = acceptance(i) if callable(acceptance) else acceptance
            k = self.controller.next_length()
            n_accepted = 0
            while n_accepted < k and self.rng.random() < a:
                n_accepted += 1
            target_s, draft_s = self.costs.seconds[k], k * STEP_S
            self.rounds.append((k, expected(a, k), target_s + draft_s))
            times = target_s * self.noise(), draft_s * self.noise()
            self.controller.observe(round_of(k, n_accepted, times[0], times[1]))
        return self

    def rate(self, start: int, end: int) -> float:
        rounds = self.rounds[start:end]
        return sum(r[1] for r in rounds) / sum(r[2] for r in rounds)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("a", [0.3, 0.6, 0.8])
def test_rate_is_within_3_percent_of_the_best_fixed_width(name: str, a: float):
    costs = table(name)
    rates = [Device(costs, seed).run(700, a).rate(200, 700) for seed in (1, 2)]
    assert sum(rates) / 2 >= 0.97 * best_rate(costs, a)


@pytest.mark.parametrize("name", MEASURED)
def test_a_useless_drafter_costs_less_than_2_percent(name: str):
    device = Device(table(name), 3).run(2000, 0.05)
    assert device.rate(0, 2000) >= 0.98 / PLAIN_S
    assert device.rate(200, 2000) >= 0.99 / PLAIN_S


@pytest.mark.parametrize("name", MEASURED)
def test_a_fall_of_acceptance_is_followed_within_100_rounds(name: str):
    device = Device(table(name), 4).run(500, lambda i: 0.8 if i < 300 else 0.1)
    assert device.rate(400, 500) >= 0.95 * best_rate(device.costs, 0.1)


def test_a_rise_of_acceptance_is_followed_within_100_rounds():
    device = Device(table("F16"), 5).run(700, lambda i: 0.05 if i < 500 else 0.8)
    assert max(k for k, _, _ in device.rounds[300:500]) <= 1  # it had paused
    assert device.rate(600, 700) >= 0.95 * best_rate(device.costs, 0.8)


def test_probing_while_paused_costs_under_1_percent():
    device = Device(table("Q8_0"), 6).run(1500, 0.0)
    probes = [k for k, _, _ in device.rounds[100:] if k]
    assert set(probes) == {1}
    assert device.rate(100, 1500) >= 0.99 / PLAIN_S


def test_a_probe_that_reads_what_it_missed_pays_for_that_too():
    controller = AutoController(table("Q8_0"))
    spent = 0.0
    for i in range(1500):
        k = controller.next_length()
        draft_s = k * STEP_S + (PLAIN_S if k else 0)  # one more plain token of catching up
        if i >= 100:
            spent += (controller.planner.costs.seconds[k] + draft_s - PLAIN_S) if k else 0
        controller.observe(round_of(k, 0, table("Q8_0").seconds[k], draft_s))
    assert 0 < spent < 0.01 * 1400 * PLAIN_S


def test_one_slow_round_changes_nothing():
    device = Device(table("F16"), 7).run(200, 0.8)
    k = device.controller.next_length()
    device.controller.observe(round_of(k, k, 100 * PLAIN_S, 50 * PLAIN_S))
    assert abs(device.controller.next_length() - k) <= 1
    assert device.controller.reason == ""


def test_first_draft_may_read_a_long_prompt():
    controller = AutoController(table("F16"))
    k = controller.next_length()
    controller.observe(round_of(k, k, controller.planner.costs.seconds[k], 30 * PLAIN_S))
    assert controller.draft_costs.mean_s == pytest.approx(STEP_S)
    assert controller.next_length() >= 4


def test_a_dear_drafter_is_paused_though_it_is_right():
    controller = AutoController(table("F16"))
    widths = []
    for _ in range(200):
        k = controller.next_length()
        controller.observe(round_of(k, k, table("F16").seconds[k], k * 1.2 * PLAIN_S))
        widths.append(k)
    assert sum(widths[:20]) > 0
    assert sum(widths[100:]) <= 4
    assert "drafting them" in controller.reason


def test_width_jumps_over_a_dear_step():
    costs = CostTable((1.0, 1.1, 3.0, 3.0, 1.3))  # verifying 5 is cheaper than verifying 3
    controller = AutoController(costs, step_s=0.01)
    for _ in range(60):
        k = controller.next_length()
        controller.observe(round_of(k, k, costs.seconds[k], 0.01 * k))
        assert k in (0, 1, 4)
    assert k == 4


def test_plain_decoding_is_timed_again_now_and_then():
    device = Device(table("F16"), 8).run(400, 0.9)
    plain = [i for i, (k, _, _) in enumerate(device.rounds) if k == 0]
    assert 4 <= len(plain) <= 12
    assert max(b - a for a, b in zip(plain, plain[1:], strict=False)) <= 129


def test_a_wrong_table_is_corrected_by_what_rounds_take():
    claimed = CostTable((1.0, 1.0, 1.0, 1.0, 1.0))
    real = (1.0, 1.9, 2.9, 3.9, 4.9)
    controller = AutoController(claimed, step_s=0.01)
    rng = random.Random(0)
    widths = []
    for _ in range(600):
        k = controller.next_length()
        n_accepted = next((i for i in range(k) if rng.random() > 0.7), k)
        controller.observe(round_of(k, n_accepted, real[k], 0.01 * k))
        widths.append(k)
    assert widths[0] == 4
    assert sum(widths[-100:]) <= 10


def test_a_device_twice_as_slow_keeps_the_width():
    device = Device(table("F16"), 9).run(200, 0.8)
    device.costs = CostTable(tuple(2 * s for s in device.costs.seconds))
    device.run(60, 0.8)
    assert device.rate(200, 260) >= 0.95 * best_rate(device.costs, 0.8)


def test_reason_names_cost_and_acceptance():
    reason = Device(table("Q4_K_M"), 1).run(300, 0.3).controller.reason
    assert re.match("drafting paused: verifying 2 tokens costs 1.[78]x one token here", reason)
    assert re.search("would need 0.(79|8)", reason)
    assert Device(table("F16"), 1).run(100, 0.8).controller.reason == ""


def test_reason_does_not_contradict_itself():
    seen = 0
    for seed in range(8):
        device = Device(table("Q4_K_M"), seed)
        for _ in range(80):
            reason = device.run(5, 0.65).controller.reason
            found = re.search(r"acceptance (\S+) would need (\S+)", reason)
            assert found is None or float(found[1]) <= float(found[2])
            seen += "tried again soon" in reason
    assert seen


def test_a_table_of_one_width_never_drafts():
    controller = AutoController(CostTable((1.0,)))
    assert controller.next_length() == 0
    controller.observe(round_of(0, 0, 1.0, 0.0))
    assert "one width" in controller.reason


def test_overhead_makes_short_drafts_worth_more():
    costs = CostTable((1.0, 2.0, 3.0))
    assert AutoController(costs, step_s=0.1).next_length() == 1  # a probe
    assert AutoController(costs, step_s=0.1, overhead_s=5.0).next_length() == 2


def test_lookups_in_vain_take_a_250th_of_the_time_where_that_takes_few_rests():
    controller = AutoPlanner(CostTable((1.0, 1.5)))
    assert [controller.n_rests(s) for s in (0.0, 0.003, 0.02, 0.1, 9.0)] == [0, 0, 5, 25, 64]
    assert FixedController(2).n_rests(9.0) == 0


def scored(seconds: tuple[float, ...], step_s: float) -> int:
    """How often a source that is always wrong is scored in 4,000 rounds; that takes a round."""
    planner, n = AutoPlanner(CostTable(seconds)), 0
    for _ in range(60):
        planner.learn("model", (), (0,))
    for _ in range(4000):
        assert planner.plan("model", (), step_s).width == 0
        if planner.may_score("model"):
            planner.pay("model", 1.0)
            n += 1
        planner.observe(Round((), Draft(), Verdict((1,), (), 0), Times(0.0, 1.0)))
    return n


def test_scoring_takes_less_where_there_is_less_to_win_and_nothing_for_nothing():
    cheap, dear, hopeless = (1.0, *[1.2] * 16), (1.0, 1.6, *[9.0] * 15), (1.0, *[4.0] * 16)
    often, seldom = scored(cheap, 0.05), scored(dear, 0.2)
    assert 30 <= often <= 37  # 0.9 % of the time
    assert 0 < seldom < often / 2
    assert scored(hopeless, 0.5) <= 1


def test_a_text_is_asked_at_its_begin_where_that_is_within_its_share():
    for takes_s, may in ((0.1, True), (0.5, False)):
        planner = AutoPlanner(CostTable((1.0, *[1.2] * 16)))
        planner.pay("model", 2.0)
        planner.lend("model", takes_s, 20.0)  # 0.9 % of 20 s
        assert planner.may_score("model") == may


def test_the_more_a_refused_draft_would_lose_the_surer_it_has_to_be():
    prices = Prices((1.0, 1.7), rate=1.0)
    assert prices.risk(0.8, 1) == pytest.approx(0.2 * 0.7)
    widths = []
    for cost in (1.1, 1.65):
        planner = AutoPlanner(CostTable((1.0, cost, 9.0)))
        for known in (False, True):  # of the text that begins; both promise more than they cost
            for i in range(400):
                planner.learn("ngram", (0.8,), (i % 10 < 8,))
            if not known:
                planner.renew(1)
            widths.append(planner.plan("ngram", (0.8,), 0.0).width)
    assert widths == [1, 1, 0, 1]


def test_plan_follows_confidence_and_calibrates_it():
    controller = AutoPlanner(table("F16"))
    assert controller.most == 16
    sure, unsure = (0.95, 0.9, 0.86, 0.82), (0.02, 0.001)
    assert controller.plan("ngram", sure, 0.0).width >= 3
    assert controller.plan("ngram", unsure, 0.0) == controller.plan("ngram", (0.0,), 0.0)
    assert controller.plan("ngram", unsure, 0.0).width == 0
    promised = controller.plan("ngram", sure, 0.0).worth
    for _ in range(100):
        controller.learn("ngram", sure, (0,))
    now = controller.plan("ngram", sure, 0.0)
    assert now.width == 0
    assert now.worth < promised
    assert controller.plan("other", sure, 0.0).worth == promised


def test_sources_are_judged_apart():
    controller = AutoPlanner(table("F16"))
    for _ in range(60):
        good = Draft((1, 2), sources=("good",) * 2)
        controller.observe(
            Round((), good, Verdict((1, 2, 3), (0, 1), 2), Times(0.0, PLAIN_S * 1.3))
        )
        controller.learn("good", (), (1, 1))
        controller.learn("bad", (), (0,))
        bad = Draft((1, 2), sources=("bad",) * 2)
        controller.observe(Round((), bad, Verdict((5,), (), 1), Times(0.0, PLAIN_S * 1.3)))
    for _ in range(2):
        controller.observe(Round((), Draft(), Verdict((5,), (), 0), Times(0.0, PLAIN_S)))
    assert controller.plan("good", (), STEP_S).width >= 2
    assert controller.plan("bad", (), STEP_S).width <= 1


@pytest.mark.parametrize("k", [1, 4, 16])
def test_needed_acceptance_solves_the_equation(k: int):
    a = acceptance_for(1.5, k)
    assert expected(a, k) == pytest.approx(1.5)
    assert acceptance_for(k + 2, k) == 1.0


def test_fixed_controller_never_changes():
    controller = FixedController(5)
    for _ in range(50):
        assert controller.next_length() == 5
        controller.observe(round_of(5, 0, 1.0, 1.0))
    assert controller.plan("model", (), 1.0).width == 5
    assert controller.plan("ngram", (0.9, 0.9), 0.0).width == 2
    controller.learn("model", (), (0,))
    assert controller.plan("new", (), 0.0).worth > controller.plan("model", (), 0.0).worth
    with pytest.raises(UsageError, match="draft length 17: expected 0 to 16, or auto"):
        FixedController(17)


def test_draft_costs_find_the_fixed_part_once_lengths_vary():
    costs = DraftCosts(1.0)
    for i in range(60):
        k = (1, 4, 8)[i % 3]
        costs.observe(k, 5.0 + 2.0 * k)
    assert costs.step_s == pytest.approx(2.0, rel=0.1)
    assert costs.fixed_s == pytest.approx(5.0, rel=0.15)
    costs.observe(8, 1000.0)
    assert costs.step_s < 3.0


def test_draft_costs_count_drafts_in_vain():
    costs = DraftCosts(1.0)
    for i in range(60):
        costs.observe(4 if i % 2 else 0, 1.0)
    assert costs.mean_s == pytest.approx(0.5, rel=0.1)


def test_draft_costs_take_an_upper_bound_only_to_come_down():
    costs = DraftCosts()
    costs.observe(4, 100.0, at_most=True)
    assert costs.mean_s == 0.0
    costs.observe(4, 8.0)
    assert costs.mean_s == 2.0
    costs.observe(4, 100.0, at_most=True)
    assert costs.mean_s == pytest.approx(2.0)
    costs.observe(4, 4.0, at_most=True)
    assert costs.mean_s < 1.8


def test_live_costs_take_a_shift_for_all_widths():
    live = LiveCosts(CostTable((1.0, 2.0, 3.0)))
    for _ in range(100):
        live.observe(2, 2.0)
    for _ in range(100):
        live.observe(2, 3.0)
    assert live.seconds[1] == pytest.approx(3.0, rel=0.01)
    assert 1.3 < live.seconds[0] < 1.5
    assert live.seconds[2] == pytest.approx(3 * live.seconds[0], rel=0.01)
    live.observe(9, 5.0)
    live.observe(1, 0.0)
    assert live.seconds[1] == pytest.approx(3.0, rel=0.01)


def test_what_is_drawn_is_chosen_by_its_law_before():
    """Four tokens take less than three, so a second token is drawn for the third's sake."""
    planner = AutoPlanner(CostTable(tuple(one * PLAIN_S for one in (1.0, 1.53, 2.10, 1.62))))
    for _ in range(200):
        planner.learn("model", (0.7, 0.49, 0.343), (1, 1, 1))
        planner.learn("model", (0.7,), (0,))
    step_s = 0.02 * PLAIN_S
    assert planner.draws("model", (0.95,), step_s)
    assert not planner.draws("model", (0.02,), step_s)
    assert not planner.draws("model", (0.95,), step_s, least=3.0)
    assert planner.draws("model", (0.9, 0.8), step_s)
    assert planner.go_on("model", (0.9, 0.3), step_s, whole=True)
    assert not planner.go_on("model", (0.02,), step_s)


def test_until_a_text_has_shown_something_drawing_has_to_promise_more():
    planner = AutoPlanner(CostTable(tuple(PLAIN_S * (1 + 0.5 * n) for n in range(5))))
    for _ in range(400):
        planner.learn("model", (0.6,), (0.6,))
    known = planner.sources["model"]
    least = next(p / 100 for p in range(1, 100) if planner.draws("model", (p / 100,), 0.0))
    known.renew(0)
    then = next(p / 100 for p in range(1, 100) if planner.draws("model", (p / 100,), 0.0))
    assert least + 0.05 < then


def test_a_text_that_was_not_asked_yet_needs_no_margin():
    """Texts differ: what hardly pays in all may pay in this one, and is no loss in the mean."""
    planner = AutoPlanner(CostTable((PLAIN_S, 1.3 * PLAIN_S, 3 * PLAIN_S)))
    for _ in range(400):
        planner.learn("model", (), (0.315,))
    assert planner.plan("model", (), 0.0).width == 0  # 0.315 - 0.3 is less than the margin
    planner.renew(0)
    assert planner.plan("model", (), 0.0).width == 1
    for _ in range(40):
        planner.learn("model", (), (0.315,))
    assert planner.plan("model", (), 0.0).width == 0


class TimedModel:
    """A target whose forward takes known time on a clock of its own."""

    n_vocab, capabilities = 3, Capabilities()

    def __init__(self, seconds: Callable[[int], float], n_context: int = 100) -> None:
        self.seconds, self.n_context = seconds, n_context
        self.now, self.length, self.widths = 0.0, 7, []

    def forward(self, tokens, parents=None):
        assert all(0 <= token < self.n_vocab for token in tokens)
        assert self.length + len(tokens) <= self.n_context
        self.length += len(tokens)
        self.now += self.seconds(len(tokens))
        self.widths.append(len(tokens))

    def keep(self, rows):
        self.length = 7 + len(rows)

    def truncate(self, n):
        self.length = n

    def clock(self) -> float:
        return self.now


def measured(model: TimedModel, budget_s: float = 1e9) -> CostTable:
    return measure_costs(model, clock=model.clock, budget_s=budget_s)


def test_measured_table_is_exact_with_time_enough_and_leaves_the_cache():
    stairs = (1, 1.7, 2, 2, 2.6, 2.5, 3.3, 3, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7, 3.8, 6)
    model = TimedModel(lambda n: float(stairs[n - 1]))
    assert measured(model).seconds == pytest.approx(stairs)
    assert model.length == 7


def test_measuring_keeps_to_its_budget():
    costs = measured(model := TimedModel(lambda n: 0.1 * n), budget_s=4.0)
    assert model.now <= 4.5
    assert costs.seconds == pytest.approx([0.1 * n for n in range(1, 18)])
    assert len(set(model.widths)) < 17


def test_widths_beyond_the_budget_never_undercut_what_was_measured():
    model = TimedModel(lambda n: 3.0 - n if n < 3 else 100.0)
    costs = measured(model, budget_s=1.0)
    assert set(model.widths) == {1, 2}
    assert costs.seconds[2:] == (1.0,) * 15


def test_measuring_stops_at_the_end_of_the_context():
    assert len(measured(TimedModel(float, n_context=10)).seconds) == 3
    with pytest.raises(ContextError, match="7 tokens fill the context"):
        measured(TimedModel(float, n_context=7))


def test_half_of_the_repeats_slow_do_not_reach_the_table():
    calls = itertools.count()
    model = TimedModel(lambda n: 50.0 if next(calls) % 7 > 2 else 1.0)
    assert measured(model).seconds == (1.0,) * 17


@pytest.mark.parametrize("seconds", [(), (1.0, 0.0), (float("nan"),), (float("inf"),)])
def test_a_table_without_positive_times_is_refused(seconds: tuple[float, ...]):
    with pytest.raises(UsageError, match="one positive time per width"):
        CostTable(seconds)
