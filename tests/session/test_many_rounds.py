"""Rounds of several generations by tables, whose laws are known to the last bit."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from itertools import product

import numpy as np
import pytest
from table_texts import TableShared, law_of

from edgespec.adapt.learned import Learned
from edgespec.backends.fake import TableModel
from edgespec.check.chi_square import chi_square
from edgespec.decode.engine import Engine
from edgespec.drafters.guarded import GuardedTexts
from edgespec.drafters.mixed import Mixed
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.paced import Plain
from edgespec.drafters.together import Together
from edgespec.errors import BackendError, BusyError, Cancelled, UsageError
from edgespec.pace.cost import CostTable, LiveCosts
from edgespec.pace.kept import Kept
from edgespec.pace.planner import AutoPlanner
from edgespec.session.many.drafting import Drafting
from edgespec.session.many.looking import Looking
from edgespec.session.many.rounds import Rounds
from edgespec.session.many.slots import Job
from edgespec.session.many.worth import KeptBeside, Worth
from edgespec.types import SamplingParams

TABLE = law_of(1)
GREEDY = SamplingParams(max_tokens=40)
CHEAP = CostTable(tuple(1e-3 + 1e-6 * n for n in range(64)))


DEAR = CostTable(tuple(1e-3 * n for n in range(1, 65)))


def drafting(*, model=None, names=("ngram", "model"), costs=CHEAP) -> Drafting:
    together = None if model is None else GuardedTexts(Together(model, [1e-6] * 8))
    return Drafting(LiveCosts(costs), names, together)


@pytest.fixture
def started():
    """Makes Rounds that are closed at the end."""
    made = []

    def start(shared, drafts=None, n_queue=64):
        made.append(Rounds(shared, drafts, n_queue=n_queue))
        return made[-1]

    yield start
    for one in made:
        one.close(lambda: None)


def job(ids, params=GREEDY, most=0, *, fixed=False) -> Job:
    return Job(list(ids), params, most, fixed)


def said(one: Job) -> list[int]:
    return [token for step in one.steps.all() for token in step.verdict.tokens]


def alone(ids, params=GREEDY, table=TABLE) -> list[int]:
    engine = Engine(TableModel(table, 8, 256), Plain())
    return [token for step in engine.stream(ids, params) for token in step.verdict.tokens]


def prompts(n: int) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [list(map(int, rng.integers(0, 8, size))) for size in rng.integers(1, 150, n)]


@pytest.mark.slow
@pytest.mark.parametrize("drafts", ["none", "ngram", "model", "both"])
def test_each_of_many_says_what_it_says_alone(started, drafts):
    shared, made = TableShared(TABLE, 4), None
    if drafts != "none":
        names = ("ngram", "model") if drafts == "both" else (drafts,)
        made = drafting(model=TableShared(law_of(1, sharp=2.0), 4), names=names)
    rounds = started(shared, made)
    seeded = SamplingParams(temperature=1.0, seed=5, max_tokens=40)
    jobs = [
        job(ids, GREEDY if i % 2 else seeded, 0 if drafts == "none" else 8, fixed=i % 3 == 0)
        for i, ids in enumerate(prompts(12))
    ]
    for one in jobs:
        rounds.add(one)
    for one in jobs:
        assert said(one) == alone(one.ids, one.params)
    assert max(map(len, shared.rows)) == 4
    n_accepted = sum(one.counted().n_accepted for one in jobs)
    assert (n_accepted > 40) == (drafts != "none")


@pytest.mark.slow
@pytest.mark.parametrize("names", [("ngram",), ("model",)])
def test_sampling_without_a_seed_keeps_the_law(started, names):
    model = TableShared(law_of(2), 6)
    rounds = started(TableShared(TABLE, 6), drafting(model=model, names=names), n_queue=4000)
    params = SamplingParams(temperature=1.0, max_tokens=3)
    jobs = [job([1, 2, 1, 2], params, 4, fixed=i % 2 == 0) for i in range(600)]
    for one in jobs:
        rounds.add(one)
    counts = Counter(tuple(said(one)) for one in jobs)
    law = {
        (a, b, c): float(TABLE((1, 2))[a] * TABLE((2, a))[b] * TABLE((a, b))[c])
        for a, b, c in product(range(8), repeat=3)
    }
    found = chi_square(counts, law, len(jobs))
    assert found.n_cells > 10
    assert found.p_value > 1e-3
    assert sum(one.counted().n_drafted for one in jobs) > 300


def test_a_sequence_begins_with_what_others_know_of_drafts():
    new, old, other = Looking(), Looking(), Looking()
    for _ in range(20):
        old.sources["model"].learn((), (1,) * 4)
        other.sources["model"].learn((), (0,))
    new.inform([new, old, other])
    guess = Looking().to_come(1)[0]
    assert guess + 0.1 < new.to_come(1)[0] <= old.to_come(1)[0]
    new.sources["model"].learn((), (0,))
    own = new.to_come(4)
    new.inform([new, old, other])
    assert new.to_come(4) == own
    assert new.sources["ngram"].n_tested == 0


def test_a_prompt_is_read_in_parts_beside_others(started):
    shared = TableShared(TABLE, 3, token_s=2e-4)
    rounds = started(shared)
    running = job([1, 2, 3], SamplingParams(max_tokens=30))
    rounds.add(running)
    first = running.steps.all()
    next(first)
    rounds.add(job([1] * 200, SamplingParams(max_tokens=2)))
    rounds.add(short := job([4] * 10, SamplingParams(max_tokens=2)))
    assert len(said(short)) == 2
    list(first)
    beside = [reads for rows, reads in zip(shared.rows, shared.reads, strict=True) if rows]
    assert sum(map(bool, beside)) > 2
    assert max(map(sum, shared.reads)) <= 61


def test_what_is_known_of_a_text_is_not_read_again(started):
    shared = TableShared(TABLE, 2)
    rounds = started(shared)
    start = [1, 2, 3, 4] * 20
    rounds.add(one := job([*start, 1], SamplingParams(max_tokens=5)))
    text = said(one)
    rounds.add(more := job([*start, 1, *text, 7, 7], SamplingParams(max_tokens=5)))
    assert said(more) == alone(more.ids, more.params)
    assert more.n_new == 3  # the last token of an answer is not in the cache
    rounds.add(other := job([*start, 5, 6], SamplingParams(max_tokens=5)))
    assert said(other) == alone(other.ids, other.params)
    assert other.n_new == 2
    assert [text.length for text in shared.sequences] == [92, 86]  # a copy: both are kept


def test_what_an_answer_of_no_tokens_did_not_read_is_read_by_the_next(started):
    shared = TableShared(TABLE, 2)
    rounds = started(shared)
    both = [[1] * 40, [2] * 40]
    for ids in both:
        rounds.add(none := job(ids, SamplingParams(max_tokens=0)))
        assert said(none) == []
    jobs = [job([*ids, 3], SamplingParams(max_tokens=5)) for ids in both]
    for one in jobs:
        rounds.add(one)
    for one in jobs:
        assert said(one) == alone(one.ids, one.params)
        assert one.n_new == 41


def test_who_leaves_is_gone_within_a_round(started):
    shared = TableShared(TABLE, 1, token_s=1e-3)
    rounds = started(shared)
    rounds.add(one := job([1], SamplingParams(max_tokens=200)))
    steps = one.steps.all()
    next(steps)
    one.steps.leave()
    rounds.wake()
    rounds.add(other := job([2], SamplingParams(max_tokens=3)))
    assert said(other) == alone([2], other.params)
    assert len(shared.rows) < 30
    assert len(list(steps)) < 30  # its end comes, too


def test_a_failing_forward_ends_those_in_it_and_no_others(started):
    def fail(i):
        if i == 5:
            raise RuntimeError("the device is gone")

    shared = TableShared(TABLE, 2, before=fail)
    rounds = started(shared)
    jobs = [job(ids, SamplingParams(max_tokens=20)) for ids in ([1], [2], [3])]
    for one in jobs:
        rounds.add(one)
    for one in jobs[:2]:
        with pytest.raises(BackendError, match="the model failed .RuntimeError: the device is"):
            said(one)
    assert said(jobs[2]) == alone([3], jobs[2].params)
    rounds.add(again := job([1], SamplingParams(max_tokens=20)))
    assert said(again) == alone([1], again.params)


@pytest.mark.parametrize(
    ("names", "costs", "fixed", "expected"),
    [
        (("model",), DEAR, False, "would not pay even at 1.00"),
        (("model",), CHEAP, False, ""),
        (("model",), DEAR, True, ""),
        (
            ("ngram",),
            DEAR,
            True,
            "no drafts found: the text lately says nothing that it said before",
        ),
    ],
)
def test_why_nothing_is_drafted_is_told_with_the_answer(started, names, costs, fixed, expected):
    made = drafting(model=TableShared(TABLE, 2), names=names, costs=costs)
    if names == ("ngram",):
        made = Drafting(LiveCosts(costs), names)
    rounds = started(TableShared(TABLE, 2, token_s=1e-4), made)
    jobs = [job([1], GREEDY, 4, fixed=fixed), job([2, 3], GREEDY, 0)]
    jobs[0].params = SamplingParams(max_tokens=3) if names == ("ngram",) else GREEDY
    for one in jobs:
        rounds.add(one)
    for one in jobs:
        said(one)
    notes = [one.counted().note for one in jobs]
    assert notes[0].endswith(expected) and bool(notes[0]) == bool(expected)
    assert notes[1] == ""  # it asked for no drafts


def test_what_drafts_are_worth_is_known_from_earlier_runs_and_kept_for_later_ones(tmp_path):
    file = tmp_path / "pair.json"
    told = Looking()
    told.sources["model"].learn((0.9, 0.8), (1, 1))
    for _ in range(20):
        told.sources["model"].learn((), (1,) * 4)
    first = Drafting(LiveCosts(CHEAP), ("model",))
    kept = Kept(file, first.worth)
    first.end(told)
    kept.save()
    saved = json.loads(file.read_text())
    session = Mixed([ModelDrafter(TableModel(TABLE, 8, 64))], AutoPlanner(CHEAP))
    session.load(saved)
    assert session.n_tested == 82

    worth = Worth()
    later = Drafting(LiveCosts(CHEAP), ("model",), worth=worth)
    again, one = KeptBeside(file, worth), Looking()
    later.inform(one, [one])
    assert one.to_come(1)[0] > Looking().to_come(1)[0] + 0.1
    one.sources["model"].learn((), (0,))
    later.end(one)
    saved["planner"]["gain"], saved["steps"] = 1.5, {"model": 0.25}  # by a session, meanwhile
    file.write_text(json.dumps(saved))
    again.save(at_least=2)
    assert json.loads(file.read_text()) == saved  # too little is new
    again.save()
    own = json.loads(file.read_text())
    assert own["planner"]["sources"]["model"] == one.sources["model"].saved()
    assert (own["planner"]["gain"], own["steps"]) == (1.5, {"model": 0.25})


class Kind:
    """What is learned, and whether anybody was answered whenever it was saved."""

    def __init__(self):
        self.asked, self.is_busy = [], []

    def save(self, *, at_least=1):
        self.asked.append(at_least)
        self.is_busy.append(self.load().n_running > 0)


def test_what_is_learned_is_saved_between_answers_while_nobody_waits(started):
    kind = Kind()
    shared = TableShared(TABLE, 2, token_s=1e-4)
    rounds = started(shared, Drafting(LiveCosts(CHEAP), ("ngram",), learned=Learned([kind])))
    kind.load = rounds.load
    rounds.add(long := job([1]))
    for ids in ([2], [3]):
        rounds.add(short := job(ids, SamplingParams(max_tokens=2)))
        said(short)
    said(long)
    rounds.close(lambda: None)
    assert set(kind.asked) == {32} and not any(kind.is_busy)


class Refuses:
    """A grammar that allows nothing after a while."""

    def allowed(self, generated, ids):
        return np.full(len(ids), len(generated) < 3)


def test_what_fails_for_one_hurts_nobody_else(started):
    rounds = started(TableShared(TABLE, 2), drafting())
    params = SamplingParams(max_tokens=20, constraint=Refuses())
    jobs = [job([1], params, 8), job([2], SamplingParams(max_tokens=20), 8)]
    for one in jobs:
        rounds.add(one)
    with pytest.raises(Exception, match="the grammar allows none"):
        said(jobs[0])
    assert said(jobs[1]) == alone([2], jobs[1].params)


def fails(*_):
    raise RuntimeError("no more")


@pytest.mark.parametrize("call", ["step_s", "read_s", "begin", "n_unread", "drafts"])
def test_a_drafter_that_fails_is_dropped_and_said_once(started, caplog, call):
    made = drafting(model=TableShared(TABLE, 2), names=("model",))
    setattr(made._together._drafters, call, fails)
    rounds = started(TableShared(TABLE, 2), made)
    # So long a prompt that reading it has a price, which nobody asks for one that always drafts.
    jobs = [job(20 * ids, GREEDY, 4, fixed=call == "drafts") for ids in ([1], [2])]
    for one in jobs:
        rounds.add(one)
    for one in jobs:
        assert said(one) == alone(one.ids)
        assert one.counted().n_drafted == 0
    assert [one.getMessage() for one in caplog.records] == [
        "drafter model failed (RuntimeError: no more): decoding goes on without it"
    ]


def test_only_so_many_wait(started):
    held = threading.Event()
    rounds = started(TableShared(TABLE, 1, before=lambda i: held.wait(5)), n_queue=2)
    rounds.add(job([1]))
    while not rounds.load().n_running:
        time.sleep(0.001)
    jobs = [job([1]), job([2])]
    for one in jobs:
        rounds.add(one)
    with pytest.raises(BusyError, match="1 answers are in progress and 2 wait: expected at most 2"):
        rounds.add(job([3]))
    held.set()
    for one in jobs:
        assert said(one) == alone(one.ids)


def test_who_leaves_while_waiting_makes_room(started):
    held = threading.Event()
    shared = TableShared(TABLE, 1, before=lambda i: held.wait(0.05))
    rounds = started(shared, n_queue=1)
    rounds.add(running := job([1], SamplingParams(max_tokens=60)))
    while not rounds.load().n_running:
        time.sleep(0.001)
    rounds.add(gone := job([2]))
    gone.steps.leave()
    assert said(gone) == []  # long before its turn
    rounds.add(job([3]))
    assert not running.steps.has_ended
    held.set()
    assert len(said(running)) == 60


def test_closing_ends_everyone_with_a_word(started):
    held = threading.Event()
    rounds = started(TableShared(TABLE, 1, before=lambda i: held.wait(5)))
    jobs = [job([1]), job([2])]
    for one in jobs:
        rounds.add(one)
    rounds.close(held.set)
    for one in jobs:
        with pytest.raises(Cancelled, match="closed"):
            said(one)
    with pytest.raises(UsageError, match="the model is closed"):
        rounds.add(job([3]))
