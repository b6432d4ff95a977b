"""A round as a value: what is asked for, what is told, who learns of it, whose time it was."""

from __future__ import annotations

import time
from time import perf_counter

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.decode.engine import Engine
from edgespec.decode.round import Ask, Decoding
from edgespec.decode.tally import Tally
from edgespec.decode.verify import Dense
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import UsageError
from edgespec.pace.controller import AutoController, FixedController
from edgespec.pace.cost import CostTable, LiveCosts, plain_token_s
from edgespec.types import Capabilities, Draft, Round, SamplingParams, Times, Verdict

V = 4
LAW_S = 0.005


def table(prefix):
    return np.full(V, 1 / V, np.float32)


class SlowLaw:
    """A lazy law that takes its time when it is asked, as a bridge's does."""

    def __init__(self) -> None:
        self._rows = Dense(np.full((1, V), 1 / V, np.float32))

    def keeps(self, i, token, p, u):
        time.sleep(LAW_S)
        return self._rows.keeps(i, token, p, u)

    def residual(self, i, p, chances):
        return self._rows.residual(i, p, chances)


class Lazy:
    """Drafts one token whose law is worked out as far as it is asked for."""

    name, n_leaves = "lazy", 1

    def __init__(self) -> None:
        self.seen: list[Round] = []

    def draft(self, context, k, drawing=None):
        return Draft((int(drawing.chances.pick(table(()))),), law=SlowLaw())

    def observe(self, done):
        self.seen.append(done)

    def close(self):
        pass


class Tree(Lazy):
    def draft(self, context, k, drawing=None):
        return Draft((0, 1, 2), (-1, -1, -1))


def drawn(drafter) -> Engine:
    engine = Engine(TableModel(table, V), Paced(drafter, FixedController(1)))
    list(engine.stream([0], SamplingParams(temperature=1.0, max_tokens=12)))
    return engine


def test_what_a_lazy_law_takes_is_the_drafters_time_and_no_overhead():
    stats = drawn(Lazy()).stats
    n_asked = stats.n_tested
    assert n_asked >= 5
    assert stats.draft_s >= n_asked * LAW_S
    assert stats.overhead_s < LAW_S
    # Plain decoding has no law to ask: what it would take is not raised by that.
    plain_s = plain_token_s(stats, LiveCosts(CostTable((1e-5, 1e-5))))
    assert plain_s < LAW_S


def test_plain_decoding_is_not_charged_for_rows_and_learning_it_has_not():
    """A round of one token tells what plain decoding takes beside its forwards."""
    tally = Tally()
    for n, rest_s in ((1, 1.0), (4, 4.0), (1, 1.2), (3, 3.0)):
        verdict = Verdict(tuple(range(n)), tuple(range(n - 1)), n - 1)
        times = Times(told=perf_counter() - rest_s - 7.0)
        tally.observe(Round((), Draft(), verdict, times), learn_s=7.0)
    assert tally.stats().single_s == pytest.approx(1.1, abs=0.01)


def test_without_a_round_of_one_token_it_is_what_a_token_takes():
    tally = Tally()
    verdict = Verdict((1, 2, 3, 4), (0, 1, 2), 3)
    tally.observe(Round((), Draft(), verdict, Times(told=perf_counter() - 8.0)))
    assert tally.stats().single_s == pytest.approx(2.0, abs=0.01)


def test_what_comes_before_proposing_is_of_plain_decoding_too():
    tally = Tally()
    times = Times(2.0, 5.0, told=perf_counter(), want_s=3.0)
    tally.observe(Round((), Draft(), Verdict((1,), (), 0), times))
    stats = tally.stats()
    assert (stats.single_s, stats.draft_s) == (pytest.approx(3.0, abs=0.01), 2.0)
    assert stats.decode_s == pytest.approx(10.0, abs=0.01)


def test_everything_that_learns_gets_the_same_round():
    lazy = Lazy()
    engine = drawn(lazy)
    assert len(lazy.seen) == engine.stats.n_rounds
    assert sum(done.times.draft_s for done in lazy.seen) == pytest.approx(engine.stats.draft_s)
    assert sum(done.times.target_s for done in lazy.seen) == pytest.approx(engine.stats.target_s)
    assert sum(len(done.verdict.tokens) for done in lazy.seen) == 12


def test_ask_and_tell_emit_what_an_engine_streams():
    params = SamplingParams(max_tokens=5)
    rows = [np.log(np.float32([[0.1, 0.2, 0.3, 0.4]])), np.log(np.float32([[0.7, 0.1, 0.1, 0.1]]))]
    model = TableModel(table, V)
    machine = Decoding([2, 1], params, Plain(), model)
    model.extend([2])
    for i in range(5):
        assert machine.ask() == Ask((machine.context[-1],), None)
        model.forward([machine.context[-1]])
        machine.tell(rows[i % 2], 0.5)
        assert model.length == len(machine.context) - 1
    assert machine.ask() is None
    assert machine.context == [2, 1, 3, 0, 3, 0, 3]
    assert machine.tally.stats().target_s == 2.5


def test_states_behind_the_logits_reach_who_learns():
    class WithStates(TableModel):
        capabilities = Capabilities(hidden_width=3)

        @property
        def hidden(self):
            return np.ones((1, 3), np.float32)

    learner = Lazy()
    speculator = Paced(learner, FixedController(0))
    list(Engine(WithStates(table, V), speculator).stream([0], SamplingParams(max_tokens=2)))
    assert [done.hidden.shape for done in learner.seen] == [(1, 3)] * 2


def test_a_drafter_that_branches_more_than_the_target_reads_is_refused_when_chosen():
    class Chains(TableModel):
        capabilities = Capabilities()

    class Narrow(TableModel):
        capabilities = Capabilities(n_leaves=8, n_rows=4)

    tree = Tree()
    tree.n_leaves = 3
    with pytest.raises(UsageError, match="lazy branches into 3 leaves: expected at most 1"):
        Engine(Chains(table, V), Paced(tree, FixedController(4)))
    with pytest.raises(UsageError, match="with 4 tokens: expected trees of at most 4 rows"):
        Engine(Narrow(table, V), Paced(tree, FixedController(4)))
    Engine(Narrow(table, V), Paced(tree, FixedController(3)))
    Engine(Chains(table, V), Paced(Lazy(), FixedController(4)))


def test_a_drafter_that_branches_more_than_it_declared_is_told_so():
    engine = Engine(TableModel(table, V), Paced(Tree(), FixedController(3)))
    with pytest.raises(UsageError, match="a tree of 3 leaves: expected at most the 1 of its n_lea"):
        next(engine.stream([0], SamplingParams(max_tokens=5)))


def test_a_drafter_that_proposes_more_than_it_was_asked_for_is_told_so():
    class Eager(Lazy):
        def draft(self, context, k, drawing=None):
            return Draft((0,) * (k + 2))

    model = TableModel(table, V)
    engine = Engine(model, Paced(Eager(), FixedController(3)))
    with pytest.raises(UsageError, match="drafter lazy proposed 5 tokens: expected at most the 3"):
        next(engine.stream([0], SamplingParams(max_tokens=5)))
    assert model.length == 0  # nothing was read for it


def test_a_round_without_room_is_no_failure_of_the_drafter():
    """The last round of an answer has no room; the answers after it draft as the first did."""
    controller = AutoController(CostTable((1e-9, 1e-9, 1e-9)))
    engine = Engine(TableModel(table, V), Paced(Wordless(), controller))
    for _ in range(40):
        list(engine.stream([0], SamplingParams(max_tokens=1)))
    assert controller.reason == ""


class Wordless(Lazy):
    def draft(self, context, k, drawing=None):
        raise AssertionError(f"asked for {k} tokens")


def test_times_of_a_draft_are_asking_and_its_law():
    assert Times(ask_s=1.0, target_s=5.0, law_s=0.5).draft_s == 1.5
