"""What a model drafter is shown of a long text, and when it reads on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from bridge_worlds import PieceTokenizer

import edgespec
from edgespec.backends.fake import TableModel
from edgespec.decode.engine import Engine
from edgespec.decode.sampling import law_of
from edgespec.decode.uniforms import Uniforms
from edgespec.drafters.bridges import find_bridge
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.mixed import READ_STEP, Mixed
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.window import FEW, MOST, PART, SHOWN, SINKS, Reading, Window
from edgespec.pace.controller import FixedController
from edgespec.pace.cost import CostTable
from edgespec.pace.planner import AutoPlanner
from edgespec.protocols import Drawing
from edgespec.text.vocabulary import Vocabulary
from edgespec.types import Draft, Round, SamplingParams, Times, Verdict

V = 8


def next_one(prefix: tuple[int, ...]) -> np.ndarray:
    """Mostly the last id plus one; how surely depends on all that was read."""
    row = np.full(V, 0.01, np.float32)
    row[(prefix[-1] + 1) % V] = 0.5 + 0.01 * (sum(prefix) % 7)
    return row / row.sum()


class Counted(TableModel):
    """A table model that counts the tokens it reads, and notes when."""

    def __init__(self, n_context: int = 4096) -> None:
        super().__init__(next_one, V, n_context)
        self.read: list[int] = []

    def forward(self, tokens, parents=None, *, n_rows=None):
        self.read.append(len(tokens))
        return super().forward(tokens, parents, n_rows=n_rows)

    def extend(self, tokens):
        self.read.append(len(tokens))
        super().extend(tokens)


def numbers(n: int) -> list[int]:
    return [i % V for i in range(n)]


def test_without_a_window_all_that_the_drafter_holds_is_shown():
    window, text = Window(4096, most=0), numbers(3900)
    for n in range(1500, 3900, 300):
        assert window.of(text[:n]) == text[:n]
    assert Window(4096, most=0).of(text) == text
    assert 1500 < len(Window(4096, most=0).of(numbers(4090))) < 4096 - 100  # room to go on
    assert len(Window(4096, most=3000).of(numbers(2900))) == 375 + SINKS


def test_a_window_of_ones_own_is_kept_to():
    window, text = Window(4096, most=200), numbers(3000)
    assert max(len(window.of(text[:n])) for n in range(300, 3000)) == 200 + SINKS


@pytest.mark.parametrize("pair", ["demo", "demo-foreign"])
def test_a_session_shows_its_drafter_what_was_asked_for(pair, monkeypatch):
    made = []
    init = Window.__init__
    monkeypatch.setattr(
        Window, "__init__", lambda one, n, *, most: init(one, n, most=made.append(most) or most)
    )
    with edgespec.load(pair=pair, draft_window=300, drafter="model"):
        pass
    assert set(made) == {300}


def test_a_text_that_began_short_is_shown_whole():
    window = Window(4096)
    for n in range(SHOWN, MOST + 1, SHOWN):
        assert window.of(numbers(n)) == numbers(n)


def test_of_a_long_text_the_first_tokens_and_the_end_are_shown():
    text = list(range(6000))
    assert Window(8192).of(text) == [*text[:SINKS], *text[-SHOWN:]]
    assert len(Window(600).of(text)) < 600


def test_a_small_context_is_no_window():
    assert Window(64).of(numbers(100)) == numbers(100)


def test_a_growing_text_is_read_again_only_every_few_hundred_tokens():
    window, text, before, n_again = Window(8192), list(range(9000)), list[int](), 0
    for n in range(3000, 9000, 3):
        shown = window.of(text[:n])
        assert SHOWN <= len(shown) <= MOST + SINKS
        n_again += shown[: len(before)] != before
        before = shown
    assert n_again == 6000 // (MOST - SHOWN)


def test_a_text_that_shrinks_keeps_its_window_while_enough_is_shown():
    window, text = Window(8192), list(range(9000))
    first = window.of(text[:5000])
    assert window.of(text[:5100])[: len(first)] == first
    assert window.of(text[:5000]) == first
    assert window.of(text[:4000]) == [*text[:SINKS], *text[4000 - SHOWN : 4000]]
    assert window.of(text[:30]) == text[:30]


def test_a_long_message_is_not_read_from_its_beginning():
    window, text = Window(8192), list(range(4000))
    window.of(text[:100])
    assert window.of(text[:700]) == [*text[:SINKS], *text[700 - SHOWN : 700]]


def test_the_probabilities_are_those_after_the_window():
    context, law = [3, *numbers(2000)], law_of(SamplingParams(temperature=1.0))
    drafter = ModelDrafter(Counted())
    draft = drafter.draft(context, 3, Drawing(law, Uniforms(*np.full(3, 0.6))))
    shown = [*context[:SINKS], *context[-SHOWN:]]
    for at, row in enumerate(draft.probs):
        prefix = (*shown, *draft.tokens[:at])
        assert row == pytest.approx(law(np.log(next_one(prefix)), list(prefix)), abs=1e-6)


def test_a_drafter_of_a_small_context_drafts_for_a_long_text():
    assert len(ModelDrafter(Counted(n_context=600)).draft(numbers(3000), 4)) == 4


def translated(model: TableModel) -> Translated:
    letters = [bytes((letter,)) for letter in b"abcdefgh"]
    mapping = Mapping(*(Vocabulary(PieceTokenizer(letters), V) for _ in range(2)))
    kind = find_bridge("exact")
    return Translated(model, lambda: (Ledger(mapping), kind(mapping, NgramCache())), kind)


def test_a_drafter_of_another_vocabulary_sees_the_same_window():
    drawing = Drawing(law_of(SamplingParams(temperature=1.0)), Uniforms(*np.full(3, 0.6)))
    context, models = [3, *numbers(2000)], (Counted(), Counted())
    own, other = ModelDrafter(models[0]), translated(models[1])
    assert other.n_unread(context[:2]) > FEW  # nothing is spelled before the first token
    assert own.n_unread(context) == other.n_unread(context) == SHOWN + SINKS
    assert other.draft(context, 4).tokens == own.draft(context, 4).tokens
    draft = other.draft(context, 3, drawing)
    rows = own.draft(context, 3, drawing).probs
    for at, token in enumerate(draft.tokens):
        assert draft.law.exact(at, token) == pytest.approx(rows[at][token], abs=1e-6)
    context += numbers(100)
    n = other.n_unread(context)
    other.read_on(context, PART)
    assert other.n_unread(context) == n - PART


class Slow:
    """A text with so many unread tokens; reading one takes token_s."""

    def __init__(self, n_unread: int, token_s: float) -> None:
        self.left, self.token_s, self.now = n_unread, token_s, 0.0

    def n_unread(self, context: Sequence[int]) -> int:
        return self.left

    def read_on(self, context: Sequence[int], n: int) -> None:
        self.left -= n
        self.now += n * self.token_s


def reading(slow: Slow) -> Reading:
    return Reading(slow, clock=lambda: slow.now)


def test_nothing_is_read_before_the_first_token():
    slow = Slow(300, 0.01)
    assert not reading(slow).is_done([], most_s=0.0)
    assert slow.left == 300


def test_what_is_unread_is_read_in_parts_once_the_answer_is_worth_it():
    slow = Slow(300, 0.01)
    one = reading(slow)
    assert not one.is_done([], most_s=0.02)  # to learn what it takes
    assert slow.left == 300 - PART
    for most_s in (0.2, 1.0, 2.2):  # it takes 2.36 s
        assert not one.is_done([], most_s=most_s)
        assert slow.left == 300 - PART
    seen = []
    while not one.is_done([], most_s=2.4):
        seen.append(slow.left)
    assert seen == [172, 108, 44, 0]
    assert one.is_done([], most_s=0.0)


def test_a_drafter_that_gains_nothing_reads_no_more():
    slow = Slow(300, 0.01)
    one = reading(slow)
    one.is_done([], most_s=0.1)
    assert not any(one.is_done([], most_s=0.0) for _ in range(20))
    assert slow.left == 300 - PART


def test_what_reading_takes_is_guessed_until_it_was_seen():
    slow = Slow(300, 0.01)
    one = reading(slow)
    assert not one.is_done([], most_s=2.5, usual_s=0.01)
    assert slow.left == 300
    assert not one.is_done([], most_s=3.05, usual_s=0.01)
    assert slow.left == 300 - PART


class Useless(Slow):
    """A drafter that is always wrong, after reading."""

    name, n_leaves = "model", 1

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        assert self.left <= FEW
        return Draft((0,), sources=("model",), confidence=(0.5,))

    def observe(self, done: Round) -> None:
        pass

    def close(self) -> None:
        pass


def test_what_does_not_pay_is_read_for_now_and_then_to_be_scored(monkeypatch: pytest.MonkeyPatch):
    drafter, n_answers, n_rounds = Useless(0, 0.003), 40, 40
    monkeypatch.setitem(Reading.__init__.__kwdefaults__, "clock", lambda: drafter.now)
    planner = AutoPlanner(CostTable((0.1, 0.15, 0.2, 0.25, 0.3)))
    mixed, context, n_read = Mixed([drafter], planner), [1], []
    for _ in range(50):
        planner.learn("model", (0.5,), (0,))
    for _ in range(n_answers):
        context, drafter.left = [*context, *[1] * 60], 60
        for _ in range(n_rounds):
            draft = mixed.propose(context, 16, None)
            context = [*context, 1]
            verdict = Verdict((1,), (), min(len(draft), 1))
            mixed.observe(Round(context, draft, verdict, Times(0.0, 0.1)))
        n_read.append(60 - drafter.left)
    assert n_read[0] == 0
    assert sum(map(bool, n_read)) >= 5
    assert drafter.now <= 0.011 * 0.1 * n_answers * n_rounds


def test_more_may_be_read_for_what_is_known_than_for_a_guess():
    planner = AutoPlanner(CostTable((0.1, 0.12, 0.14, 0.16)))
    guess = planner.plan("model", (), 0.01)
    for i in range(100):
        planner.learn("model", (), (i % 10 > 2,))
    known = planner.plan("model", (), 0.01)
    assert known.width > 0
    assert known.reads == pytest.approx(2 * guess.reads, rel=0.3)


@pytest.mark.parametrize("kind", ["auto", "fixed"])
def test_the_first_token_waits_for_no_drafter_and_later_rounds_read_in_parts(kind: str):
    model = Counted()
    planner = AutoPlanner(CostTable((1.0,) * 6)) if kind == "auto" else FixedController(4)
    mixed = Mixed([ModelDrafter(model)], planner, step=0.02)
    engine = Engine(TableModel(next_one, V, 4096), mixed)
    params = SamplingParams(max_tokens=100)
    steps = engine.stream(numbers(1500), params)
    assert not next(steps).draft
    assert model.read == []
    next(steps)
    assert model.read == [PART]
    drafts: list[Draft] = [step.draft for step in steps]
    assert any(drafts)
    assert engine.stats.n_tokens == 100


def test_a_second_turn_reads_only_what_is_new():
    model = Counted()
    engine = Engine(TableModel(next_one, V, 4096), Mixed([ModelDrafter(model)], FixedController(4)))
    said = [*numbers(1500)]
    for step in engine.stream(said, SamplingParams(max_tokens=60)):
        said += step.verdict.tokens
    model.read.clear()
    for _ in engine.stream([*said, *numbers(90)], SamplingParams(max_tokens=40)):
        pass
    assert sum(model.read) < 90 + 40 + 60


@pytest.mark.parametrize(
    ("costs", "step_s", "n_tokens", "reads"),
    [
        # SmolLM2 for Qwen2.5-Coder-1.5B: as graphs reading wins a quarter of an answer's time
        ((0.077, 0.085, 0.098, 0.119, 0.149), 0.010, 100, True),
        # as files there is little to win, and an answer may be short
        ((0.085, 0.136, 0.145, 0.153, 0.230), 0.013, 60, False),
    ],
)
def test_a_first_prompt_is_read_at_once_only_where_drafting_promises_much(
    costs: tuple[float, ...], step_s: float, n_tokens: int, reads: bool
):
    slow = Slow(n_tokens, 0.25 * step_s)
    plan = AutoPlanner(CostTable(costs)).plan("model", (), step_s)
    assert plan.width > 0
    usual_s = 48 * costs[0]  # of an answer
    reading(slow).is_done([], most_s=plan.reads * usual_s, usual_s=READ_STEP * step_s)
    assert (slow.left < n_tokens) == reads
