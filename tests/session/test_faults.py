"""Drafters that fail in the middle of an answer: the text is plain decoding's, with one notice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import sleep
from typing import Any

import numpy as np
import pytest

import edgespec
from edgespec.config import Config
from edgespec.drafters import watch
from edgespec.errors import BackendError, Cancelled
from edgespec.session.many.opening import open_many
from edgespec.session.session import Session
from edgespec.types import Draft

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]
N = 48
GOOD_CALLS = 16  # of the draft model, before it fails


@pytest.fixture(scope="module")
def plain() -> list[int]:
    with edgespec.load(speculative="off") as session:
        return said(session)


def said(session: Session, **options: Any) -> list[int]:
    for _ in session.chat(ASK, max_tokens=N, **options):
        pass
    return session.turns.output


def raising(error: BaseException) -> Callable[[Any], None]:
    def fail(model: Any) -> None:
        raise error

    return fail


def hang(model: Any) -> None:
    """As a forward of llama.cpp does that is aborted after long."""
    model._stop_flag[0] = b"\0"
    while model._stop_flag[0] == b"\0":
        sleep(0.001)
    raise Cancelled("stopped")


def without_numbers(model: Any) -> None:
    """What this forward computes is not finite; the backend looks at it after `_read`."""
    read = model._read

    def broken(batch: Any, *, rows: bool = True) -> None:
        read(batch, rows=rows)
        model._read = read
        model._out._all_logits[0, 7] = np.nan

    model._read = broken


FAULTS = {
    "memory": (raising(MemoryError()), "out of memory"),
    "llama.cpp": (raising(BackendError("llama_decode returned -3 (x)")), "llama_decode returned -"),
    "provider": (raising(RuntimeError("CUDA failure 700")), "RuntimeError: CUDA failure 700"),
    "bug": (raising(AssertionError()), "AssertionError"),
    "numbers": (without_numbers, "computed logits that are not numbers"),
    "hang": (hang, "it hung"),
}


def break_later(session: Session, fail: Callable[[Any], None]) -> None:
    """The draft model fails once it has been called GOOD_CALLS times, and from then on."""
    model: Any = session.pair.draft_model
    forward, calls = model.forward, iter(range(1000))

    def forward_or_fail(*args: Any, **given: Any) -> Any:
        if next(calls) >= GOOD_CALLS:
            fail(model)
        return forward(*args, **given)

    model.forward = forward_or_fail


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.005)
    monkeypatch.setattr(watch, "READ_S", 0.0)


@pytest.fixture(scope="module", params=["demo", "demo-foreign"])
def pair(request: pytest.FixtureRequest) -> Iterator[Session]:
    with edgespec.load(
        pair=request.param, speculative="on", draft_tokens=3, drafter="model"
    ) as session:
        yield session


@pytest.mark.slow
@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_draft_model_changes_no_token_and_is_told_of_once(
    fault: str, pair: Session, plain: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    fail, why = FAULTS[fault]
    pair.use(pair.pair.methods.configured("on"))
    sound = pair.pair.draft_model.forward
    break_later(pair, fail)
    assert said(pair) == plain
    stats = pair.stats
    assert 0 < stats.n_accepted < stats.n_drafted < N
    assert stats.note.startswith("drafter model failed (") and why in stats.note
    assert stats.note.endswith("): decoding goes on without it")
    assert said(pair) == plain
    assert (pair.stats.n_drafted, pair.stats.note) == (0, stats.note)
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert told == [stats.note]
    pair.pair.draft_model.forward = sound


def test_a_mixed_speculator_goes_on_with_the_others(
    caplog: pytest.LogCaptureFixture, plain: list[int]
) -> None:
    with edgespec.load(speculative="on", draft_tokens=3, drafter="model,ngram") as session:
        break_later(session, raising(MemoryError()))
        said(session)
        repeat = session.encode("one two three four five one two three four five one two")
        list(session.generate(repeat, max_tokens=16))
        assert session.stats.n_drafted > 0  # by lookup
        assert session.stats.note.startswith("drafter model failed (out of memory)")
        assert said(session) == plain
    assert len(caplog.records) == 1


def test_a_failure_while_sampling_is_survived() -> None:
    with edgespec.load(pair="demo-foreign", speculative="on", drafter="model") as session:
        break_later(session, raising(MemoryError()))
        assert len(said(session, temperature=1.0)) > 8
        assert session.stats.note


@pytest.fixture(
    scope="module", params=["demo", pytest.param("demo-foreign", marks=pytest.mark.slow)]
)
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    config = Config(pair=request.param, threads=1, ctx_size=256, drafter="model", draft_tokens=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with open_many(config, n_parallel=3) as opened:
            yield opened


def break_forwards(model: Any, fail: Callable[[Any], None], monkeypatch: Any) -> None:
    """The same of a model that reads several texts."""
    forward, calls = model.forward_sequences, iter(range(1000))

    def forward_or_fail(*args: Any) -> Any:
        if next(calls) >= GOOD_CALLS:
            fail(model)
        return forward(*args)

    monkeypatch.setattr(model, "forward_sequences", forward_or_fail)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize("fault", ["bug", "numbers", "hang"])
def test_a_failing_draft_model_changes_no_token_of_several_answers(
    fault: str, many: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(**how: Any) -> Any:
        how = {"max_tokens": 20, **how}
        config = many.with_options(how, many.template.stop)
        return many.begin(many.prompt(ASK), config, how)

    def said(how: str) -> list[Any]:
        all_ = [begin(speculative=how), begin(speculative=how, temperature=0.7, seed=3)]
        for one in all_:
            list(one.pieces)
        return [*(one.result.output for one in all_), [one.counted().note for one in all_]]

    together = many._drafting._together
    together.guard.failed = ""
    *expected, notes = said("off")
    assert notes == ["", ""]
    fail, why = FAULTS[fault]
    break_forwards(together._model.cancel.__self__, fail, monkeypatch)
    *texts, notes = said("on")
    assert texts == expected and notes == [together.guard.failed] * 2
    assert why in together.guard.failed
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert told == [together.guard.failed]


class Own:
    """An application's drafter that fails after some rounds."""

    name, n_leaves, n_calls = "own", 1, 0

    def __init__(self, **bad: Callable[[], Any]) -> None:
        self._bad = bad

    def draft(self, context, k, drawing=None):  # type: ignore[no-untyped-def]
        self.n_calls += 1
        if self.n_calls > 5 and "draft" in self._bad:
            return self._bad["draft"]()
        return Draft((context[-1],) * k, sources=(self.name,) * k)

    def observe(self, done: object) -> None:
        if self.n_calls > 5 and "observe" in self._bad:
            self._bad["observe"]()

    def close(self) -> None:
        """It holds nothing."""


def divide() -> None:
    1 / 0  # noqa: B018


ROWS = np.full((1, 4096), 1 / 4096, np.float32)
BAD: list[tuple[str, Callable[[], Any], str]] = [
    ("draft", divide, "ZeroDivisionError: division by zero"),
    ("observe", divide, "ZeroDivisionError: division by zero"),
    ("draft", lambda: None, "TypeError: object of type 'NoneType' has no len()"),
    ("draft", lambda: Draft((5,) * 40), "it drafted 40 tokens: expected at most the"),
    ("draft", lambda: Draft((4096,)), "it drafted token 4096: expected ids below 4096"),
    ("draft", lambda: Draft((-1,)), "it drafted token -1: expected ids below 4096"),
    ("draft", lambda: Draft((1.5,)), "it drafted token 1.5"),  # type: ignore[arg-type]
    ("draft", lambda: Draft((5, 6), (-1, -1)), "it drafted 2 leaves: expected at most 1"),
    ("draft", lambda: Draft((5,), confidence=(float("nan"),)), "its confidence is (nan,)"),
    ("draft", lambda: Draft((5,), probs=ROWS * np.nan), "its probs sum to [nan]"),
    ("draft", lambda: Draft((5,), probs=ROWS[:, :5]), "its probs have the shape (1, 5)"),
    ("draft", lambda: Draft((5,), probs=np.eye(1, 4096, dtype=np.float32)), "of probability 0"),
]


@pytest.fixture(scope="module")
def own() -> Iterator[tuple[Session, Any]]:
    """A session whose drafter is replaced for each test."""
    drafter = Own()
    with edgespec.load(drafter=drafter, speculative="on", draft_tokens=3) as session:
        yield session, drafter


@pytest.mark.slow
@pytest.mark.parametrize(("where", "what", "why"), BAD)
def test_a_bad_own_drafter_changes_no_token(
    where: str, what: Callable[[], Any], why: str, own: tuple[Session, Any], plain: list[int]
) -> None:
    session, drafter = own
    guarded: Any = session.pair.methods._own
    guarded.guard.failed, drafter.n_calls, drafter._bad = "", 0, {where: what}
    assert said(session) == plain
    assert drafter.n_calls == 6 and why in session.stats.note


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled("stopped")])
def test_who_interrupts_a_drafter_ends_the_answer_and_loses_no_drafter(
    error: BaseException, own: tuple[Session, Any]
) -> None:
    session, drafter = own
    guarded: Any = session.pair.methods._own
    guarded.guard.failed, drafter.n_calls = "", 0
    drafter._bad = {"draft": lambda: raising(error)(None)}
    with pytest.raises(type(error)):
        said(session)
    assert session.stats.note == ""
