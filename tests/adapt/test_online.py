"""Labels from rounds to an adapter in use: what guesses are told, and what follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgespec.adapt import gate
from edgespec.adapt.adamw import Settings
from edgespec.adapt.adapted import KEPT, MANY, Adapted, Guess
from edgespec.adapt.adapter import fresh
from edgespec.adapt.adapter_file import AdapterFiles
from edgespec.adapt.examples import Examples
from edgespec.adapt.heads import Heads
from edgespec.adapt.online import Columns, Online
from edgespec.adapt.topic_files import TopicFiles
from edgespec.adapt.topics import Topics
from edgespec.adapt.trainer import Recipe, Trainer
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.teaching import teach
from edgespec.types import Capabilities, Draft, Round, Times, Verdict

V, D = 24, 24
RNG = np.random.default_rng(5)
STATES = RNG.standard_normal((V, D)).astype(np.float32)  # behind each last token
HEAD = RNG.standard_normal((V, D)).astype(np.float32)


class Tiny:
    """A draft model whose state is a function of the last token alone."""

    n_vocab, n_context, token_ids = V, 500, None
    capabilities, device, tokenizer = Capabilities(hidden_width=D), "CPU", None

    def __init__(self) -> None:
        self.ids: list[int] = []

    @property
    def length(self) -> int:
        return len(self.ids)

    def extend(self, tokens):
        self.ids += tokens

    def forward(self, tokens, parents=None, *, n_rows=None):
        self.ids += tokens
        self.hidden = STATES[np.array(tokens)]
        return self.hidden @ HEAD.T

    def keep(self, rows):
        raise AssertionError

    def truncate(self, n):
        del self.ids[n:]

    def close(self):
        self.ids = []


def after(token: int) -> int:
    """What the target says after a token: another head's choice."""
    return (token * 7 + 3) % V


def online(
    tmp_path: Path, share: float = 1.0, n_topics: int = 1, within: bool = True, **more
) -> Online:
    same = Columns(lambda ids: ids, lambda ids: ids)
    recipe = Recipe(optimizer=Settings(rate=0.03))
    files, examples = TopicFiles(tmp_path, "a" * 64, "b" * 64), Examples(D, kept=4, n_top=8)
    model = Adapted(Tiny())

    def heads(topic: int) -> Heads:
        saved = files.heads[topic].load()
        adapter = fresh(np.arange(0), D, rank=24) if saved is None else saved.adapter
        return Heads(model, Trainer(adapter, recipe), files.heads[topic], {}, within=within)

    topics = Topics(heads, files, examples, most=n_topics)
    return Online(model, topics, examples, same, share=share, **more)


def answered(
    one: Online,
    drafter: ModelDrafter,
    n_rounds: int,
    start: int,
    after: Callable[[int], int] = after,
) -> float:
    """Decode an answer; the share of drafted tokens that were right. after: what the target says
    after a token."""
    context, n_tested, n_hits = [start], 0, 0
    for _ in range(n_rounds):
        draft = drafter.draft(context, 3)
        said = [after(context[-1])]
        while len(said) <= len(draft) and draft.tokens[len(said) - 1] == said[-1]:
            said.append(after(said[-1]))
        k = len(said) - 1
        logits = np.full((len(draft) + 1, V), -9, np.float32)
        for row, token in enumerate([context[-1], *draft.tokens]):
            logits[row, after(token)] = 9
        context += said
        n_tested, n_hits = n_tested + min(k + 1, len(draft)), n_hits + k
        verdict = Verdict(tuple(said), tuple(range(k)), min(k + 1, len(draft)))
        drafter.observe(Round(context, draft, verdict, Times(0.01, 0.1), None, logits))
    one.save()
    return n_hits / n_tested


# least: of the gate; by 9 what is ahead is kept alone
@pytest.mark.parametrize("least", [0.05, pytest.param(9.0, marks=pytest.mark.slow)])
def test_a_drafter_learns_what_its_target_says_and_keeps_it(
    tmp_path: Path, least: float, monkeypatch
) -> None:
    monkeypatch.setattr("edgespec.adapt.gate.LEAST", least)
    one = online(tmp_path)
    drafter = ModelDrafter(one.model, learner=one)
    rates = [answered(one, drafter, 12, (5 * i + i // 8) % V) for i in range(160)]
    assert np.mean(rates[:15]) < 0.2
    assert np.mean(rates[-24:]) > 0.7
    saved = AdapterFiles(tmp_path, "a" * 64, "b" * 64).load()
    assert saved is not None
    (day,) = saved.head.days.values()
    assert day.after > day.before
    assert one.model.correction is one.heads.gate.good
    assert one.hits.made - one.hits.frozen > 0.3 * one.hits.n


def test_nothing_corrects_the_head_before_held_out_answers_have_shown_a_gain(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "edgespec.adapt.rivals.SIGMAS", math.inf
    )  # within an answer nothing takes over
    one = online(tmp_path)
    drafter = ModelDrafter(one.model, learner=one)
    for i in range(15):  # the 16th is the eighth that is held out
        answered(one, drafter, 12, i)
    assert one.n_steps > 5
    assert one.model.correction is None
    assert one.hits.n > 150
    assert one.hits.made == one.hits.frozen  # the head is what it was
    assert AdapterFiles(tmp_path, "a" * 64, "b" * 64).load() is None


def test_within_a_long_answer_the_head_that_learns_takes_over_for_the_rest_of_it(tmp_path: Path):
    one = online(tmp_path)
    drafter = ModelDrafter(one.model, learner=one)
    judge, one._judge = one._judge, lambda: None  # held-out requests are of no use yet
    seen = []
    save, one.save = one.save, lambda: seen.append(one.model.correction)
    assert answered(one, drafter, 400, 5) > 0.6
    assert seen[0] is not None
    one.save, one._judge = save, judge
    one.save()
    assert one.model.correction is None  # it was for that answer
    assert one.hits.made > one.hits.frozen


def test_within_an_answer_nothing_takes_over_where_that_is_switched_off(tmp_path: Path) -> None:
    one = online(tmp_path, within=False)
    one._judge = lambda: None
    answered(one, ModelDrafter(one.model, learner=one), 150, 5)
    assert one.n_steps > 5 and one.hits.made == one.hits.frozen


def test_a_head_that_is_worse_in_use_than_the_uncorrected_one_is_given_up(tmp_path: Path):
    bad = fresh(np.arange(V), D, rank=24)
    bad.bias[3] = 99.0
    AdapterFiles(tmp_path, "a" * 64, "b" * 64).save(bad, {})
    one = online(tmp_path)
    one.trainer.adapter.become(bad)
    one.heads.gate.good = bad
    one.heads.use(bad)
    drafter = ModelDrafter(one.model, learner=one)
    one._train = lambda: None  # nothing better is learned meanwhile
    for i in range(40):
        answered(one, drafter, 12, i % V)
        if one.model.correction is None:
            break
    assert one.model.correction is None
    saved = AdapterFiles(tmp_path, "a" * 64, "b" * 64).load()
    assert saved is not None and saved.adapter.bias[3] == 99  # another session may be glad of it


@pytest.mark.slow
def test_what_there_is_no_time_for_is_learned_when_nobody_waits(tmp_path: Path) -> None:
    one = online(tmp_path, share=0.0)
    one.idle.begin = lambda: None
    one.save = partial(one.save, at_least=2)
    drafter = ModelDrafter(one.model, learner=one)
    answered(one, drafter, 12, 3)
    n_at_once = len(one.examples)
    for i in range(20):
        answered(one, drafter, 12, i)
        while one._learn_on():
            pass
    assert n_at_once < 5 < 200 < len(one.examples)
    assert (one.n_steps > 100, one.spent_s < 0.1) == (True, True)


def test_what_waits_for_idle_time_takes_bounded_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("edgespec.adapt.online.LATER_BYTES", 2000)
    one = online(tmp_path, share=0.0)
    answered(one, ModelDrafter(one.model, learner=one), 200, 3)
    assert 0 < sum(judged.n_bytes for judged in one._later) == one._later_bytes <= 2000


def test_on_battery_nothing_is_learned(tmp_path: Path) -> None:
    one = online(tmp_path, may=lambda: False)
    for i in range(10):
        answered(one, ModelDrafter(one.model, learner=one), 12, i)
    assert (len(one.examples), len(one._later), one.n_steps, one.spent_s) == (0, 0, 0, 0.0)
    assert one.hits.n > 50


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_learning_takes_its_share_of_the_time_and_no_more(tmp_path: Path, share: float) -> None:
    times = iter(range(10**9))
    one = online(tmp_path, share=share, clock=lambda: next(times) * 0.05)  # 50 ms a piece of work
    drafter = ModelDrafter(one.model, learner=one)
    for i in range(30):
        answered(one, drafter, 12, i % V)
    assert one.spent_s <= share * 30 * 12 * 0.11 + 0.15
    assert (one.n_steps > 0) == (share > 0.1)


def test_pieces_after_the_first_are_labelled_where_the_target_agreed() -> None:
    told: list[tuple[int, int, tuple[int, ...]]] = []
    learner = SimpleNamespace(
        label=lambda place, row, pieces: told.append((place, int(row.argmax()), tuple(pieces))),
        passed=lambda seconds: told.append((-1, 0, ())),
    )
    draft = Draft((5, 6, 7, 8), pieces=((1, 2), (3,), (), (4,)))
    logits = np.eye(5, 10, dtype=np.float32)
    verdict = Verdict((5, 6, 9), (0, 1), 3)
    teach(learner, draft, 20, Round([0, 5, 6, 9], draft, verdict, Times(), None, logits))
    assert told == [(20, 0, (1, 2)), (22, 1, (3,)), (-1, 0, ())]  # the third token has no piece


def test_what_follows_labels_a_draft_that_was_not_verified() -> None:
    told: list[tuple[int, bool]] = []
    learner = SimpleNamespace(
        label=lambda place, row, pieces: told.append((place, bool(pieces))), passed=lambda s: None
    )
    other = Draft((4,))
    verdict = Verdict((4, 5), (0,), 1)
    done = Round([0, 4, 5], other, verdict, Times(), None, np.zeros((2, 9), np.float32))
    teach(learner, Draft((4, 6, 6)), 1, done)
    assert told == [(1, True), (2, False)]


def test_of_a_long_text_only_the_end_is_asked_for(monkeypatch) -> None:
    tiny, asked = Tiny(), []
    forward = tiny.forward
    tiny.forward = lambda tokens, *rest, **more: (
        asked.append(len(tokens)) or forward(tokens, *rest, **more)
    )
    model = Adapted(tiny)
    model.correction = fresh(np.arange(V), D, rank=8)
    text = [i % V for i in range(100)]
    rows = model.forward(text, n_rows=1)
    assert (asked, tiny.ids, len(rows)) == ([MANY], text, 1)
    np.testing.assert_allclose(rows[0], STATES[99 % V] @ HEAD.T, rtol=1e-5)
    assert list(model.guesses) == [100]
    model.truncate(0)
    assert len(model.forward(text, n_rows=50)) == 50 and asked[1:] == [50]
    model.truncate(0)
    assert len(model.forward(text)) == 100 and asked[2:] == [100]
    assert len(model._corrected) <= MANY
    tiny.n_context = model.n_context = 120
    monkeypatch.setattr(tiny, "extend", None)  # what does not fit is refused before it is read
    with pytest.raises(ValueError, match="full"):
        tiny.forward = lambda *_, **__: (_ for _ in ()).throw(ValueError("full"))
        model.forward(text, n_rows=1)


def test_guesses_are_found_by_place_and_the_newest_counts() -> None:
    model = Adapted(Tiny())
    model.forward([1, 2, 3], n_rows=2)
    assert sorted(model.guesses) == [2, 3]
    np.testing.assert_array_equal(model.guesses[3].hidden, STATES[3])
    model.truncate(2)
    model.forward([9])
    np.testing.assert_array_equal(model.guesses[3].logits, STATES[9] @ HEAD.T)
    for token in range(2 * KEPT):
        model.forward([token % V])
    assert len(model.guesses) == KEPT


def test_a_correction_moves_the_rows_that_are_asked_for_alone() -> None:
    model = Adapted(Tiny())
    plain = model.forward([1, 2], n_rows=1).copy()
    adapter = fresh(np.arange(V), D, rank=8)
    adapter.bias[3] = 2
    model.correction = adapter
    model.truncate(0)
    corrected = model.forward([1, 2], n_rows=1)
    assert corrected.shape == (1, V)
    np.testing.assert_allclose(corrected - plain, np.eye(1, V, 3) * 2, atol=1e-6)
    np.testing.assert_array_equal(model.guesses[2].logits, plain[0])  # as it was without


class Recorder:
    """Writes down what a learner is told, and tells it."""

    def __init__(self, one: Online) -> None:
        self._one, self.told = one, list[tuple[str, tuple]]()

    def hold(self) -> None:
        guesses = {
            place: Guess(guess.hidden.copy(), guess.logits.copy(), guess.best)
            for place, guess in self._one.model.guesses.items()
        }
        self.told.append(("hold", (guesses,)))
        self._one.hold()

    def label(self, place, row, pieces) -> None:
        self.told.append(("label", (place, row.copy(), tuple(pieces))))
        self._one.label(place, row, pieces)

    def passed(self, seconds) -> None:
        self.told.append(("passed", (seconds,)))
        self._one.passed(seconds)


def replayed(told: list[tuple[str, tuple]], folder: Path) -> dict[str, bytes]:
    """The files that are there once a learner of its own was told all that."""
    ticks = count()
    one = online(folder, n_topics=2, clock=lambda: next(ticks) * 1e-4)
    for what, of in told:
        if what == "hold":
            one.model.guesses = dict(of[0])
            one.hold()
        else:
            getattr(one, what)(*of)
    one.save()
    for heads in one.topics.heads.values():
        heads.gate.good = heads.trainer.adapter
        heads._save()
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name: path.read_bytes() for path in files}


def test_a_recorded_stream_gives_the_same_files_bit_by_bit(tmp_path: Path) -> None:
    one = online(tmp_path / "live", n_topics=2)
    recorder = Recorder(one)
    save = one.save
    one.save = lambda: (save(), recorder.told.append(("save", ())))
    drafter = ModelDrafter(one.model, learner=recorder)
    for i in range(12):
        recorder.told.append(("begin", ([i % 3] * 5,)))
        one.begin([i % 3] * 5)
        answered(one, drafter, 12, i)
    first, second = (replayed(recorder.told, tmp_path / name) for name in "ab")
    assert first == second
    assert any(name.endswith(".adapter") for name in first)
    saved = AdapterFiles(tmp_path / "a", "a" * 64, "b" * 64).load()
    assert saved is not None and saved.adapter.up.any()
    changed = [
        (what, (of[0] + 1, *of[1:]) if what == "label" else of) for what, of in recorder.told
    ]
    assert replayed(changed, tmp_path / "c") != first


def test_what_fails_between_answers_is_said_once_and_answers_go_on(tmp_path: Path, caplog) -> None:
    one = online(tmp_path)
    one._judge = lambda: 1 / 0
    drafter = ModelDrafter(one.model, learner=one)
    for i in range(3):
        answered(one, drafter, 12, i)
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert line.endswith("that has failed (ZeroDivisionError: division by zero)")
    assert one.n_steps > 0


def test_steps_of_updates_that_were_not_adopted_are_counted_with_those_that_are(
    tmp_path: Path,
) -> None:
    heads = online(tmp_path).heads
    for n, adopted in ((5, False), (7, True), (2, False), (3, True)):
        heads.n_unjudged = n
        heads.follow(gate.Verdict(adopted, 1.0, 1.5, 0.1, 9), 100)
    (day,) = AdapterFiles(tmp_path, "a" * 64, "b" * 64).load().head.days.values()
    assert day.n_updates == 17


def test_a_session_of_some_twenty_answers_keeps_what_it_has_learned(tmp_path: Path) -> None:
    one = online(tmp_path)
    drafter = ModelDrafter(one.model, learner=one)
    for i in range(24):
        answered(one, drafter, 40, (5 * i) % V)
    assert AdapterFiles(tmp_path, "a" * 64, "b" * 64).load() is not None
