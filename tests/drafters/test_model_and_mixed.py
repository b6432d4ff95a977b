"""The model drafter's cache and confidence, and the choice between drafters."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from time import sleep

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.decode.follow import common_prefix
from edgespec.decode.sampling import law_of
from edgespec.decode.uniforms import Uniforms
from edgespec.decode.verify import Dense, accept
from edgespec.drafters.mixed import Mixed, first
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.ngram import NgramDrafter
from edgespec.drafters.scored import scored
from edgespec.errors import UsageError
from edgespec.pace.controller import FixedController
from edgespec.pace.cost import CostTable
from edgespec.pace.plan import Plan
from edgespec.pace.planner import AutoPlanner
from edgespec.protocols import Drawing
from edgespec.types import Draft, Round, SamplingParams, Spent, Times, Verdict

V = 4
LAW = law_of(SamplingParams(temperature=1.0))


def table(prefix: tuple[int, ...]):
    """Mostly the last id plus one, with 0.7."""
    row = np.full(V, 0.1, np.float32)
    row[(prefix[-1] + 1) % V] = 0.7
    return row


class Counted(TableModel):
    """A table model that notes how many tokens each call read."""

    def __init__(self, n_context: int = 64) -> None:
        super().__init__(table, V, n_context)
        self.forwards: list[tuple[int, int | None]] = []

    def forward(self, tokens, parents=None, *, n_rows=None):
        self.forwards.append((len(tokens), n_rows))
        return super().forward(tokens, parents)


def test_a_chain_of_likeliest_tokens_with_cumulative_confidence():
    draft = ModelDrafter(Counted()).draft([3, 0], 3)
    assert draft.tokens == (1, 2, 3)
    assert draft.confidence == pytest.approx((0.7, 0.49, 0.343), rel=1e-5)
    assert draft.sources == ("model",) * 3
    assert draft.probs is None


def test_a_round_reads_only_what_the_last_one_got_wrong():
    model = Counted()
    drafter = ModelDrafter(model)
    drafter.draft([0] * 20, 4)
    assert model.forwards == [(20, 1), *[(1, 1)] * 3]
    model.forwards.clear()
    drafter.draft([*[0] * 20, 1, 2, 3, 0, 2], 4)  # all four accepted, one of the target's own
    assert model.forwards == [(2, 1), *[(1, 1)] * 3]
    model.forwards.clear()
    drafter.draft([*[0] * 20, 1, 2, 3, 0, 2, 3, 1], 4)  # one accepted
    assert model.forwards == [(1, 1)] * 4


def test_a_draft_tells_reading_from_stepping(monkeypatch):
    seconds = itertools.count()  # each look at the clock is a second later
    monkeypatch.setattr("edgespec.decode.follow.perf_counter", lambda: float(next(seconds)))
    drafter = ModelDrafter(Counted())
    assert drafter.draft([0] * 20, 4).spent == Spent(read_s=1.0, step_s=3.0)
    assert drafter.draft([*[0] * 20, 1, 2, 3, 0, 2], 2).spent == Spent(step_s=2.0)


def test_the_draft_ends_below_p_min_and_where_the_context_does():
    assert len(ModelDrafter(Counted(), p_min=0.4).draft([0], 9)) == 2
    assert len(ModelDrafter(Counted(), p_min=0.8).draft([0], 9)) == 0
    assert len(ModelDrafter(Counted(n_context=10)).draft([0] * 8, 9)) == 3
    drawn = ModelDrafter(Counted(), p_min=0.4).draft(
        [0], 9, Drawing(LAW, Uniforms(*np.full(9, 0.999)))
    )
    assert drawn.tokens == (3, 3)  # decided by the likeliest tokens, not by the unlikely ones drawn


def test_a_context_too_long_is_said_once(caplog: pytest.LogCaptureFixture):
    drafter = ModelDrafter(Counted(n_context=10))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert drafter.draft([0] * 12, 4) == Draft()
        drafter.draft([0] * 3, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "drafter model holds 10 tokens, the context has 12: no drafts until it is shorter"
    ]


def test_a_cache_that_an_interruption_left_behind_is_put_right():
    model = Counted()
    drafter = ModelDrafter(model)
    expected = drafter.draft([0, 1, 2, 3], 3)
    model.extend([2, 2])  # read, but never recorded
    assert drafter.draft([0, 1, 2, 3], 3) == expected
    model.truncate(1)  # recorded, but lost
    assert drafter.draft([0, 1, 2, 3], 3) == expected


def test_common_prefix_is_exact_at_every_length():
    rng = np.random.default_rng(0)
    for _ in range(300):
        one = rng.integers(2, size=rng.integers(90)).tolist()
        other = list(one)
        if other and rng.random() < 0.8:
            other[rng.integers(len(other))] ^= 1
        other = other[: rng.integers(len(other) + 1)]
        expected = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
            min(len(one), len(other)),
        )
        assert common_prefix(one, other, 1000) == expected
        assert common_prefix(one, other, expected // 2) == expected // 2


class Script:
    """A drafter that always proposes the same, and a planner that says what it is told."""

    def __init__(self, name: str, draft: Draft) -> None:
        self.name, self.said, self.asked, self.seen, self.closed = name, draft, [], [], 0
        self.n_leaves = 1

    def draft(self, context, k, drawing=None):
        self.asked.append((k, drawing is not None))
        return first(self.said, k)

    def observe(self, done):
        self.seen.append(done.draft)

    def close(self):
        self.closed += 1


class Planned:
    def __init__(self, **rates: tuple[int, float]) -> None:
        self.rates, self.scoring, self.most, self.reason = rates, False, 16, ""
        self.learnt: list[tuple[str | float, ...]] = []
        self.drawing = True
        self.most_rests, self.plain_s, self.n_texts = 0, 1.0, 0

    def observe(self, done, source, n_rested, beside_s) -> None:
        self.seen, self.n_rested = source, n_rested

    def renew(self, n) -> None:
        self.n_texts += n > 0

    def plan(self, source, confidence, step_s, fixed_s=0.0) -> Plan:
        name = source + "-drafted" if confidence and source + "-drafted" in self.rates else source
        width, worth = self.rates[name]
        return Plan(width, worth)

    def may_score(self, source) -> bool:
        return self.scoring

    def pay(self, source, draft_s) -> None:
        self.paid = source

    def go_on(self, source, confidence, step_s, *, whole=False) -> bool:
        return len(confidence) < 2

    def draws(self, source, confidence, step_s, least=0.0) -> bool:
        self.least = least
        return self.drawing

    def learn(self, source, confidence, accepted):
        self.learnt.append((source, *accepted))
        self.said = confidence

    def fail(self, source: str, draft_s: float) -> None:
        assert draft_s > 0
        self.learnt.append((source, 0))

    def lend(self, source, takes_s, n) -> None:
        assert takes_s >= 0 and n > 0

    def n_rests(self, look_s: float) -> int:
        assert look_s > 0
        return self.most_rests


def chain(source: str, *tokens: int) -> Draft:
    n = len(tokens)
    return Draft(tokens, sources=(source,) * n, confidence=(0.5,) * n)


def both(planner: Planned, found: Draft | None = None) -> tuple[Script, Script, Mixed]:
    ngram = Script("ngram", chain("ngram", 1, 2, 3) if found is None else found)
    model = Script("model", chain("model", 3, 2, 1))
    return ngram, model, Mixed([model, ngram], planner)


def test_the_model_does_not_draft_when_lookup_promises_more():
    planner = Planned(ngram=(2, 9.0), model=(3, 5.0))
    _, model, mixed = both(planner)
    assert mixed.propose([0], 8, None) == chain("ngram", 1, 2)
    assert model.asked == []


def test_the_model_drafts_its_planned_width_when_it_promises_more():
    ngram, model, mixed = both(Planned(ngram=(2, 4.0), model=(2, 5.0)))
    assert mixed.propose([0], 8, Drawing(LAW, Uniforms(*np.zeros(8)))) == chain("model", 3, 2)
    assert model.asked == [(2, True)]
    assert ngram.asked == [(8, False)]  # a lookup has no law


def test_a_model_draft_is_cut_where_its_confidence_ends_to_pay():
    planner = Planned(ngram=(0, 4.0), model=(3, 5.0))
    planner.rates["model-drafted"] = (2, 5.0)
    assert both(planner)[2].propose([0], 8, None) == chain("model", 3, 2)
    planner.rates["model-drafted"] = (0, 5.0)
    assert both(planner)[2].propose([0], 8, None) == Draft()


def test_a_drawn_draft_is_never_cut():
    planner = Planned(model=(3, 5.0))
    planner.rates["model-drafted"] = (1, 5.0)
    drawn = Draft(
        (3, 2, 1), None or (), np.full((3, V), 0.25, np.float32), ("model",) * 3, (0.5,) * 3
    )
    mixed = Mixed([Script("model", drawn)], planner)
    assert len(mixed.propose([0], 8, Drawing(LAW, Uniforms(*np.zeros(8))))) == 3


def test_what_is_not_used_is_scored_by_what_follows():
    planner = Planned(ngram=(2, 4.5), model=(0, 0.0))
    _, model, mixed = both(planner)
    assert mixed.propose([0], 8, None) == chain("ngram", 1, 2)
    assert model.asked == []
    planner.scoring = True
    assert mixed.propose([0], 8, None) == chain("ngram", 1, 2)
    assert (model.asked, planner.paid) == ([(3, False)], "model")
    mixed.observe(Round([0, 3], chain("ngram", 1, 2), Verdict((3,), (), 1)))
    assert planner.learnt == [("ngram", 0), ("model", 1)]
    assert planner.seen == ""


def test_what_is_drawn_and_not_used_is_scored_by_the_law_and_not_verified():
    planner = Planned(ngram=(0, 0.0), model=(0, 0.0))
    planner.scoring, drawing = True, Drawing(LAW, Uniforms(*np.zeros(8)))
    drawn = Draft((3,), (), np.full((1, V), 0.25, np.float32), ("model",))
    model = Script("model", drawn)
    mixed = Mixed([Script("ngram", chain("ngram", 1, 2)), model], planner)
    assert mixed.propose([0], 8, drawing) == Draft()
    assert model.asked == [(1, True)]
    logits = np.log(np.array([[0.5, 0.3, 0.1, 0.1]], np.float32))
    law = lambda row: LAW(logits[row], [0])  # noqa: E731
    mixed.observe(Round([0, 1], Draft(), Verdict((1,), (), 0), law=law))
    shared = 0.25 + 0.25 + 0.1 + 0.1
    assert planner.learnt == [("ngram", pytest.approx(0.3)), ("model", pytest.approx(shared))]
    planner.rates["ngram"] = (2, 1.0)
    assert mixed.propose([0, 1], 8, drawing) == chain("ngram", 1, 2)


def test_what_is_drawn_is_accepted_with_the_chance_that_both_laws_share():
    p, q = np.array([0.5, 0.3, 0.1, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    drawn = [Draft((x,), (), q[None].astype(np.float32), ("model",)) for x in range(V)]
    grid = (np.arange(1000) + 0.5) / 1000
    u = np.zeros((2, 2))
    kept = 0.0
    for x, one in enumerate(drawn):
        for u[0, 0] in grid:
            kept += q[x] * len(accept(one, np.array([p, p]), u).accepted) / len(grid)
    done = Round([0, 1], Draft(), Verdict((1,), (), 0), law=p[None].__getitem__)
    for one in drawn:
        assert scored(one, done) == [pytest.approx(kept, abs=1e-3)]
        assert scored(replace(one, probs=None, law=Dense(one.probs)), done) == scored(one, done)


def test_a_law_that_does_not_sum_to_one_is_of_what_it_may_draw():
    """As a bridge's that ends at what it cannot translate."""
    q = np.array([0.0, 0.1, 0.1, 0.0], np.float32)
    drawn = Draft((1,), (), q[None], ("model",))
    p = np.array([[0.5, 0.5, 0.0, 0.0]], np.float32)
    done = Round([0, 1], Draft(), Verdict((1,), (), 0), law=p.__getitem__)
    assert scored(drawn, done) == [pytest.approx(0.5)]


def test_a_trees_confidences_are_not_those_of_a_path():
    planner = Planned(ngram=(2, 4.0))
    tree = Draft((1, 2), (-1, -1), None, ("ngram",) * 2, (0.6, 0.3))
    mixed = Mixed([Script("ngram", tree)], planner)
    draft = mixed.propose([0], 8, None)
    mixed.observe(Round([0, 2, 1], draft, Verdict((2, 1), (1,), 1)))
    assert planner.learnt == [("ngram", 1)]
    assert planner.said == ()


def test_each_tested_place_of_a_drawn_draft_tells_its_chance():
    planner = Planned(model=(2, 5.0))
    q = np.array([[0.25] * 4, [0.1, 0.2, 0.3, 0.4], [0.25] * 4], np.float32)
    drawn = Draft((3, 3, 3), (), q, ("model",) * 3, (0.9, 0.8, 0.7))
    mixed = Mixed([Script("model", drawn)], planner)
    drawing = Drawing(LAW, Uniforms(*np.zeros(8)))
    assert len(mixed.propose([0], 3, drawing)) == 2
    p = np.array([[0.0, 0.5, 0.0, 0.5], [0.1, 0.2, 0.3, 0.4]], np.float32)
    mixed.observe(Round([0, 3, 1], first(drawn, 2), Verdict((3, 1), (0,), 2), law=p.__getitem__))
    assert planner.learnt == [("model", pytest.approx(0.5), pytest.approx(1.0))]


def test_what_was_found_is_verified_where_the_models_first_law_is_poor():
    planner = Planned(ngram=(2, 4.0), model=(2, 5.0))
    planner.drawing = False
    mixed = Mixed([Script("ngram", chain("ngram", 1, 2)), ModelDrafter(Counted())], planner)
    assert mixed.propose([0], 8, Drawing(LAW, Uniforms(*np.zeros(8)))) == chain("ngram", 1, 2)
    assert planner.least == 4.0  # what the model's draft had to be worth
    assert planner.paid == "model"  # for the time it took
    planner.rates["model-drafted"] = (1, 3.0)
    draft = mixed.propose([0], 8, None)
    assert draft == chain("ngram", 1, 2)  # and where its confidence is
    assert draft.spent.step_s > 0
    planner.rates["ngram"] = planner.rates["model-drafted"] = (0, 0.0)
    assert mixed.propose([0], 8, None).spent.step_s > 0  # of a draft that was cut to nothing, too
    mixed.observe(Round([0, 1], Draft(), Verdict((1,), (), 0)))
    assert planner.seen == "model"


def test_tokens_that_are_looked_up_are_scored_by_their_chance():
    """Whether drawn tokens happened to be the same says less than how likely they were."""
    planner = Planned(ngram=(1, 4.0))
    mixed = Mixed([Script("ngram", chain("ngram", 1, 2, 3))], planner)
    draft = mixed.propose([0], 8, None)
    p = np.array([[0.1, 0.6, 0.3, 0.0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    mixed.observe(Round([0, 1, 3], draft, Verdict((1, 3), (0,), 1), law=p.__getitem__))
    assert planner.learnt == [("ngram", pytest.approx(0.6), pytest.approx(0.3))]


def test_a_first_token_that_is_not_worth_it_is_drawn_to_be_scored_alone():
    """Whether it is verified is decided by its law, before it is drawn."""
    planner = Planned(model=(2, 5.0))
    planner.drawing = False
    mixed = Mixed([ModelDrafter(Counted())], planner)
    drawing = Drawing(LAW, Uniforms(*np.zeros(8)))
    assert mixed.propose([0], 8, drawing) == Draft()
    p = np.array([[0.1, 0.2, 0.7, 0.0]], np.float32)
    mixed.observe(Round([0, 1], Draft(), Verdict((1,), (), 0), law=p.__getitem__))
    assert planner.learnt == [("model", pytest.approx(0.1 + 0.2 + 0.1))]
    planner.drawing = True
    assert len(mixed.propose([0, 1], 8, drawing)) == 2  # as far as `go_on` says


def test_lookup_steps_in_when_the_model_finds_nothing():
    planner = Planned(ngram=(2, 4.0), model=(2, 5.0))
    ngram = Script("ngram", chain("ngram", 1, 2, 3))
    mixed = Mixed([ngram, Script("model", Draft())], planner)
    assert mixed.propose([0], 8, None) == chain("ngram", 1, 2)
    assert planner.learnt == [("model", 0)]  # an empty draft was paid for all the same


def decoded(mixed: Mixed, n: int, context: list[int]) -> list[int]:
    """Drafted tokens of n rounds, each of which emits 1."""
    widths = []
    for _ in range(n):
        draft = mixed.propose(context, 8, None)
        context.append(1)
        mixed.observe(Round(context, draft, Verdict((1,), (), len(draft))))
        widths.append(len(draft))
    return widths


@pytest.mark.parametrize("most, looked", [(0, range(12)), (5, [5, 11, 17])])
def test_where_looks_cost_much_nobody_looks_until_it_pays(most: int, looked):
    planner, context = Planned(ngram=(0, 4.0), model=(0, 4.0)), [0]
    planner.most_rests = most
    ngram, model, mixed = both(planner)
    rounds = []
    for i in range(looked[-1] + 1):
        n = len(ngram.asked)
        assert decoded(mixed, 1, context) == [0]
        rounds += [i] * (len(ngram.asked) - n)
    assert rounds == list(looked)
    assert len(ngram.seen) == len(model.seen) == len(looked)
    assert planner.n_rested == most
    decoded(mixed, most, context)
    planner.rates["ngram"] = (2, 5.0)
    assert decoded(mixed, 1, context) == [2]
    planner.rates["ngram"] = (0, 4.0)
    asked = []
    for _ in range(3):
        decoded(mixed, 1, context)
        asked.append(len(ngram.asked))
    assert asked[0] < asked[2] and (asked[0] == asked[1]) == (most > 0)  # short rests again


def test_an_answers_last_round_is_left_out_as_well_and_is_no_look_in_vain():
    planner, context = Planned(ngram=(0, 4.0), model=(0, 4.0)), [0]
    planner.most_rests = 3
    ngram, model, mixed = both(planner)
    for _ in range(3):
        mixed.observe(Round(context, mixed.propose(context, 0, None), Verdict((1,), (), 0)))
    assert ngram.seen == model.seen == []
    mixed.observe(Round(context, mixed.propose(context, 0, None), Verdict((1,), (), 0)))
    assert ngram.asked == [] and len(ngram.seen) == 1
    decoded(mixed, 1, context)  # the look that was due
    assert len(ngram.asked) == 1


def test_nobody_rests_after_a_draft_that_was_made_to_be_scored():
    planner, context = Planned(ngram=(0, 4.0), model=(0, 4.0)), [0]
    planner.most_rests, planner.scoring = 9, True
    ngram, _, mixed = both(planner)
    decoded(mixed, 9, context)
    assert ngram.asked == []
    decoded(mixed, 8, context)
    assert len(ngram.asked) == 8


def test_a_look_that_stalled_rests_no_longer():
    class Slow(Script):
        def draft(self, context, k, drawing=None):
            sleep(0.2 if len(self.asked) == 3 else 0)
            return super().draft(context, k, drawing)

    planner, seen = Planned(ngram=(0, 4.0)), []
    planner.n_rests = lambda look_s: seen.append(look_s) or 0
    decoded(Mixed([Slow("ngram", Draft())], planner), 6, [0])
    assert len(seen) == 7 and 0 < max(seen) < 1e-3


def test_every_drafter_observes_and_all_drafts_teach_the_planner():
    planner = Planned(ngram=(2, 4.0), model=(2, 5.0))
    ngram, model, mixed = both(planner)
    draft = mixed.propose([0], 8, None)
    mixed.observe(Round([0, 1, 2, 0], draft, Verdict((1, 2, 0), (), 1)))
    assert ngram.seen == model.seen == [draft]
    assert planner.learnt == [("ngram", 1, 1, 0), ("model", 0)]
    mixed.observe(Round([0, 1, 2, 0, 1], draft, Verdict((1,), (), 1)))
    assert len(planner.learnt) == 2  # once per draft
    planner.rates["model-drafted"] = (1, 5.0)
    draft = mixed.propose([0, 1, 2, 0, 1], 8, None)
    assert len(draft) == 1
    mixed.observe(Round([0, 1, 2, 0, 1, 3, 2], draft, Verdict((3, 2), (0,), 1)))
    assert planner.learnt[-1] == ("model", 1, 1)  # of what was cut, too, as far as it is known
    assert planner.n_texts == 0
    mixed.propose([0, 1], 8, None)
    assert planner.n_texts == 1
    mixed.close()
    assert (ngram.closed, model.closed) == (1, 1)


def test_mixing_nothing_is_refused():
    with pytest.raises(UsageError, match="no drafters to mix"):
        Mixed([], FixedController(2))


def test_lookup_takes_over_in_a_loop_and_the_model_elsewhere():
    """The target repeats seven ids, which the model never gets right, then follows the model."""
    planner = AutoPlanner(CostTable((1.0, *[1.2] * 16)))
    mixed = Mixed([NgramDrafter(), ModelDrafter(Counted(n_context=4096))], planner)
    loop = [0, 2, 0, 3, 3, 1, 1]
    rng = np.random.default_rng(0)
    context, used = [0], []
    for i in range(300):
        draft = mixed.propose(context, 16, None)
        truth = [loop[(len(context) + j) % 7] for j in range(17)]
        if i >= 150:  # each id likely to be the last plus one
            truth = [context[-1]]
            for _ in range(17):
                truth.append((truth[-1] + 1) % V if rng.random() < 0.9 else int(rng.integers(V)))
            truth = truth[1:]
        n = next((j for j, t in enumerate(draft.tokens) if t != truth[j]), len(draft))
        verdict = Verdict(tuple(truth[: n + 1]), tuple(range(n)), min(n + 1, len(draft)))
        context += verdict.tokens
        times = Times(1e-4, planner.costs.seconds[len(draft)])
        mixed.observe(Round(context, draft, verdict, times))
        used.append(draft.sources[0] if draft.sources else "")
    assert used[100:150].count("ngram") >= 45
    assert used[250:300].count("model") >= 25


def test_a_large_draft_model_is_not_drafted_with_before_it_is_known_to_pay():
    def width(step: float) -> int:
        mixed = Mixed(
            [Script("model", chain("model", 3, 2, 1))],
            AutoPlanner(CostTable((1.0, *[1.5] * 16))),
            step=step,
        )
        mixed.propose([0], 1, None)
        mixed.observe(Round([0, 1], Draft(), Verdict((1,), (), 0), Times(0.0, 1.0)))
        return len(mixed.propose([0, 1], 8, None))

    assert width(0.1) > 0
    assert width(0.6) == 0
