"""A guarded drafter: what counts as a hang, and laws that fail while tokens are compared."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.decode.uniforms import Uniforms
from edgespec.decode.verify import accept
from edgespec.drafters.guarded import Guard, Guarded, Tried
from edgespec.drafters.mixed import Stepwise
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.ngram import NgramDrafter
from edgespec.drafters.watch import MOST_IDLE, MOST_LOOKS, READ_S, Watch
from edgespec.errors import Cancelled
from edgespec.types import NO_DRAFT, Draft

V = 4


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks but the test."""
    monkeypatch.setattr(Watch, "_run", lambda watch: None)


class Model:
    """Knows how often it was cancelled."""

    length = n_cancelled = 0

    def cancel(self) -> None:
        self.n_cancelled += 1


def look(watch: Watch, n: int) -> bool:
    return [watch.look() for _ in range(n)][-1]


def test_a_call_without_progress_is_cancelled_after_ten_looks_and_again_until_it_ends() -> None:
    model = Model()
    guard = Guard("model", model)
    with guard:
        look(guard._watch, MOST_LOOKS)
        assert model.n_cancelled == 0
        look(guard._watch, 2)
        assert model.n_cancelled == 2
        raise Cancelled("stopped")
    assert guard.failed == "drafter model failed (it hung): decoding goes on without it"


def test_progress_and_new_calls_are_no_hang() -> None:
    model = Model()
    guard = Guard("model", model)
    for _ in range(3):
        with guard:
            look(guard._watch, MOST_LOOKS - 1)
            model.length += 1  # a forward of a long draft
            look(guard._watch, MOST_LOOKS)
    assert (model.n_cancelled, guard.failed) == (0, "")


def test_reading_a_long_text_may_take_its_time() -> None:
    guard = Guard("model", model := Model())
    with guard.reading(1000):
        look(guard._watch, MOST_LOOKS + int(1000 * READ_S))
        assert model.n_cancelled == 0
        look(guard._watch, 2)
        assert model.n_cancelled > 0


def test_a_drafter_that_returns_too_late_is_dropped_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard("own")
    with caplog.at_level(logging.WARNING), guard:
        look(guard._watch, MOST_LOOKS + 5)
    assert [one.getMessage() for one in caplog.records] == [
        "drafter own has not answered for seconds: Ctrl-C ends it",
        "drafter own failed (it hung): decoding goes on without it",
    ]


def test_nobody_looks_for_ever_where_nothing_is_drafted() -> None:
    watch = Watch(lambda: None, lambda: None)
    watch.begin()
    assert look(watch, 3)
    watch.end()
    assert look(watch, MOST_IDLE - 1)
    assert not watch.look()
    watch.begin()
    assert watch.look()


def test_who_drafts_in_microseconds_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Watch] = []
    monkeypatch.setattr(Watch, "begin", lambda watch, n_unread=0: begun.append(watch))
    assert Guarded(NgramDrafter()).draft([1, 2, 1], 1) is not None
    assert begun == []
    Guarded(NgramDrafter(), n_vocab=9).draft([1, 2, 1], 1)  # an application's own
    assert len(begun) == 1


class Lost:
    """A law whose drafter is gone for the tokens in `asks`, or for what is left of p."""

    def __init__(self, *asks: int, residual: bool = False) -> None:
        self.asks, self.without_residual = asks, residual

    def keeps(self, i: int, token: int, p: float, u: float) -> bool:
        if i in self.asks:
            raise RuntimeError("device lost")
        return True

    def residual(self, i: int, p: Any, chances: Any) -> int:
        if self.without_residual:
            raise RuntimeError("device lost")
        raise AssertionError("asked after a failure")


def test_a_token_whose_law_is_lost_is_refused_and_the_target_draws_another() -> None:
    p = np.array([[0, 0.5, 0.5, 0], [0, 0.25, 0.25, 0.5], [1, 0, 0, 0]], np.float32)
    for u, expected in ((0.0, 1), (0.3, 2), (0.9, 3)):
        guard = Guard("model")
        draft = Draft((1, 1), law=Tried(Lost(1), guard))
        uniforms = np.array([[0.5, 0.5], [0.5, u], [0.5, 0.5]])
        verdict = accept(draft, p, uniforms)
        assert (verdict.tokens, verdict.accepted) == ((1, expected), (0,))
        assert guard.failed.startswith("drafter model failed (RuntimeError: device lost)")


def test_a_lost_residual_is_drawn_from_the_targets_law() -> None:
    guard = Guard("model")
    p = np.array([0, 0, 1, 0], np.float32)
    assert Tried(Lost(residual=True), guard).residual(0, p, Uniforms(0.3)) == 2
    assert guard.failed


class Reading:
    """A drafter that has to read, and fails in doing so."""

    name, n_leaves, n_asked = "reader", 1, 0

    def draft(self, context: Any, k: int, drawing: Any = None) -> Draft:
        self.n_asked += 1
        return Draft((1,) * k)

    def observe(self, done: object) -> None:
        """Learns nothing."""

    def close(self) -> None:
        raise OSError("cannot save")

    def n_unread(self, context: Any) -> int:
        return len(context)

    def read_on(self, context: Any, n: int) -> None:
        raise MemoryError


def test_a_failure_in_reading_ahead_drops_the_drafter() -> None:
    drafter = Reading()
    guarded = Guarded(drafter, n_vocab=V)
    assert guarded.n_unread([1, 2, 3]) == 3
    guarded.read_on([1, 2, 3], 2)
    assert guarded.n_unread([1, 2, 3]) == 0  # nothing to wait for
    assert guarded.draft([1, 2, 3], 2) == NO_DRAFT
    assert drafter.n_asked == 0


def test_a_guarded_model_still_asks_whether_another_token_pays() -> None:
    model = TableModel(lambda prefix: np.eye(V, dtype=np.float32)[(prefix[-1] + 1) % V], V)
    guarded = Guarded(ModelDrafter(model))
    assert isinstance(guarded, Stepwise) and not isinstance(Guarded(NgramDrafter()), Stepwise)
    assert len(guarded.draft([0], 9)) == 9
    guarded.pays = lambda confidence: len(confidence) < 4
    assert len(guarded.draft([0], 9)) == 4


def test_a_failure_in_closing_is_told_of_and_closes_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Guarded(Reading()).close()
    assert "OSError: cannot save" in caplog.text
