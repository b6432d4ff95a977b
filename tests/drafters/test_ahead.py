"""Drafting on while the target verifies: what is used, what is dropped, and when it is left off."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.decode.engine import Engine
from edgespec.decode.uniforms import Uniforms
from edgespec.drafters.ahead import AGAIN, TURN, TURNS, Ahead, Trial, apart
from edgespec.drafters.guarded import Enduring, Guarded
from edgespec.drafters.mixed import Stepwise
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import BackendError, Cancelled
from edgespec.pace.controller import FixedController
from edgespec.protocols import Drawing
from edgespec.types import Draft, Round, SamplingParams, Times, Verdict

V, K = 8, 3


def count(prefix: Sequence[int]) -> np.ndarray:
    """The last id plus one, with 0.9."""
    row = np.full(V, 0.1 / (V - 1), np.float32)
    row[(prefix[-1] + 1) % V] = 0.9
    return row


def stumble(prefix: Sequence[int]) -> np.ndarray:
    """The same, but every fifth id is 0."""
    if len(prefix) % 5:
        return count(prefix)
    return np.eye(V, dtype=np.float32)[0]


class Seen(TableModel):
    """A draft model that notes the threads it is called in, and may fail."""

    def __init__(self, table: Any = count) -> None:
        super().__init__(table, V, 400)
        self.threads: list[threading.Thread] = []
        self.error: BaseException | None = None

    def forward(self, tokens, parents=None, *, n_rows=None):  # type: ignore[no-untyped-def]
        self.threads.append(threading.current_thread())
        if self.error is not None and self.threads[-1] is not threading.main_thread():
            raise self.error
        return super().forward(tokens, parents)

    @property
    def n_ahead(self) -> int:
        return sum(thread is not threading.main_thread() for thread in self.threads)


class Always(Trial):
    on = True

    def observe(self, n_tokens: float, ask_s: float, rest_s: float) -> None:
        """Nothing to find out."""


class Never(Always):
    on = False


@pytest.fixture
def model() -> Seen:
    return Seen()


@pytest.fixture
def ahead(model: Seen) -> Iterator[Ahead]:
    one = Ahead(ModelDrafter(model), lambda: None, trial=Always())
    yield one
    one.close()


def verify(ahead: Ahead, context: list[int], draft: Draft, *said: int) -> None:
    """The target said this, once the drafter had drafted all it wants to draft ahead."""
    if ahead._job is not None:
        ahead._job.exception()
    context += said
    ahead.observe(Round(context, draft, Verdict(tuple(said), (), 0), Times(0.1, 0.2)))


def test_what_was_drafted_ahead_is_the_next_draft(ahead: Ahead, model: Seen) -> None:
    context = [0]
    draft = ahead.draft(context, K)
    verify(ahead, context, draft, 1, 2, 3, 4)
    model.threads.clear()
    draft = ahead.draft(context, K)
    ahead.rest()
    assert draft.tokens == (5, 6, 7)
    assert draft.confidence == pytest.approx((0.9, 0.81, 0.729), rel=1e-4)
    assert threading.main_thread() not in model.threads  # not one forward was waited for


def test_less_may_be_accepted_or_more_be_asked_for(ahead: Ahead) -> None:
    context = [0]
    draft = ahead.draft(context, K)
    verify(ahead, context, draft, 1)  # cut to nothing, by a grammar, but the target said the same
    assert ahead.draft(context, K).tokens == (2, 3, 4)
    verify(ahead, context, draft, 2, 3, 4, 5)
    draft = ahead.draft(context, 9)
    assert draft.tokens == (6, 7, 0, 1, 2, 3, 4, 5, 6)
    assert draft.confidence == pytest.approx([0.9**n for n in range(1, 10)], rel=1e-4)


@pytest.mark.parametrize("said", [(7,), (1, 7), (1, 2, 3, 7)])
def test_a_wrong_guess_is_dropped(ahead: Ahead, said: tuple[int, ...]) -> None:
    context = [0]
    verify(ahead, context, ahead.draft(context, K), *said)
    assert ahead.draft(context, K).tokens == (0, 1, 2)


def test_another_text_of_the_same_length_has_no_use_for_it(ahead: Ahead) -> None:
    context = [0]
    verify(ahead, context, ahead.draft(context, K), 1, 2, 3, 4)
    assert ahead.draft([0, 1, 2, 3, 6], K).tokens == (7, 0, 1)


def test_a_draft_ends_where_one_more_token_does_not_pay(ahead: Ahead) -> None:
    assert isinstance(ahead, Stepwise)
    context, told = [0], list[int]()
    verify(ahead, context, ahead.draft(context, K), 1, 2, 3, 4)  # three more are there

    def pays(confidence: Sequence[float], undrawn: bool = False) -> bool:
        told.append(len(confidence))
        assert list(confidence) == pytest.approx([0.9**n for n in range(1, told[-1] + 1)], rel=1e-4)
        return len(confidence) < 5

    ahead.pays = pays
    assert ahead.draft(context, 9).tokens == (5, 6, 7, 0, 1)
    assert told == [3, 4, 5]
    verify(ahead, context, Draft(), 5, 6, 7, 0, 1, 2)
    assert ahead.draft(context, 9).tokens == (3, 4, 5, 6, 7, 0, 1, 2, 3)  # they cost nothing


def test_tokens_drawn_from_a_law_are_not_drafted_ahead(ahead: Ahead, model: Seen) -> None:
    context = [0]
    drawing = Drawing(lambda logits, _: np.exp(logits), Uniforms(*np.full(K, 0.5)))  # type: ignore[arg-type]
    draft = ahead.draft(context, K, drawing)
    assert draft.probs is not None
    verify(ahead, context, draft, *draft.tokens)
    assert model.n_ahead == 0


@pytest.mark.parametrize("trial", [Always, Never, Trial])
@pytest.mark.parametrize("table", [count, stumble])
def test_the_text_is_plain_decodings_and_the_cache_follows(trial: type[Trial], table: Any) -> None:
    params = SamplingParams(max_tokens=200)

    def said(speculator: Any) -> list[int]:
        engine = Engine(TableModel(table, V, 400), speculator)
        return [t for step in engine.stream([0], params) for t in step.verdict.tokens]

    model = Seen()
    ahead = Ahead(ModelDrafter(model), lambda: None, trial=trial())
    assert said(Paced(ahead, FixedController(K))) == said(Plain())
    assert (model.n_ahead > 0) == (trial is not Never)
    ahead.rest()
    assert ahead.draft([1, 2], 2).tokens == (3, 4)
    ahead.close()


def test_what_fails_ahead_is_raised_in_the_round_that_waits_for_it(
    ahead: Ahead, model: Seen
) -> None:
    model.error = BackendError("device lost")
    context = [0]
    draft = ahead.draft(context, K)
    with pytest.raises(BackendError, match="device lost"):
        verify(ahead, context, draft, 1, 2, 3, 4)
    model.error = None
    assert ahead.draft(context, K).tokens == (5, 6, 7)


def test_a_drafter_that_fails_ahead_is_dropped_and_the_text_goes_on(model: Seen) -> None:
    guarded = Guarded(Ahead(ModelDrafter(model), lambda: None, trial=Always()))
    model.error = MemoryError()
    speculator = Enduring(Paced(guarded, FixedController(K)), [guarded.guard])
    engine = Engine(TableModel(count, V), speculator)
    steps = engine.stream([0], SamplingParams(max_tokens=20))
    assert [t % V for t in range(1, 21)] == [t for s in steps for t in s.verdict.tokens]
    assert "failed (out of memory)" in engine.stats.note


def test_what_was_cancelled_is_dropped_without_a_word(ahead: Ahead, model: Seen) -> None:
    model.error = Cancelled("stopped")
    context = [0]
    verify_quietly = ahead.draft(context, K)
    context += [1, 2, 3, 4]
    ahead.observe(Round(context, verify_quietly, Verdict((1, 2, 3, 4), (0, 1, 2), 3)))
    model.error = None
    assert ahead.draft(context, K).tokens == (5, 6, 7)


def test_a_wrong_guess_ends_the_step_in_progress(model: Seen) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    class Slow(ModelDrafter):
        def draft(self, context, k, drawing=None):  # type: ignore[no-untyped-def]
            if threading.current_thread() is threading.main_thread():
                return super().draft(context, k)
            begun.set()
            assert cancelled.wait(10)
            raise Cancelled("stopped")

    ahead = Ahead(Slow(model), cancelled.set, trial=Always())
    context = [0]
    draft = ahead.draft(context, K)
    assert begun.wait(10)
    context.append(5)
    ahead.observe(Round(context, draft, Verdict((5,), (), 1)))
    assert cancelled.is_set()
    assert ahead.draft(context, K).tokens == (6, 7, 0)
    ahead.close()


def test_closing_ends_the_thread(model: Seen) -> None:
    ahead = Ahead(ModelDrafter(model), lambda: None, trial=Always())
    ahead.draft([0], K)
    [thread] = ahead._pool._threads
    ahead.close()
    ahead.close()
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("ask_s", "rest_s", "expected"),
    [
        ((0.5, 0.0), (1.0, 1.0), True),  # (without, with): drafts are there early
        ((0.5, 0.0), (1.0, 1.6), False),  # but the target suffers
        ((0.5, 0.5), (1.0, 1.0), False),  # nothing is won
    ],
)
def test_drafting_on_is_kept_where_rounds_take_less(
    ask_s: tuple[float, float], rest_s: tuple[float, float], expected: bool
) -> None:
    trial, was_on = Trial(), False
    modes = []
    for _ in range(TURN * TURNS):
        on = trial.on
        modes.append(on)
        trial.observe(3.0, ask_s[was_on] if len(modes) != 9 else 60.0, rest_s[on])
        was_on = on
    assert sum(modes) == len(modes) / 2
    assert trial.on == expected
    for _ in range(AGAIN - TURN * TURNS):
        trial.observe(3.0, 1.0, 1.0)
    assert trial.on  # it is timed anew


def test_devices_are_told_apart_by_their_names() -> None:
    assert not apart("CPU, 2 threads", "CPU, 1 thread, weights reordered (repack), q8_0 cache")
    assert not apart("CPU", "CPU, 2 threads")
    assert apart("GPU", "CPU, 2 threads")
    assert apart("QNN, CPU", "CPU, 2 threads")
