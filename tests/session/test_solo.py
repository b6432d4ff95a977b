"""session/many/solo.py: one after another, in order, and whoever leaves makes room."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edgespec.errors import BusyError, Cancelled, ContextError, UsageError
from edgespec.session.completion import Begun
from edgespec.session.load import load
from edgespec.session.many.solo import Solo

TEXT = "Once upon a time"


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Solo]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        session = load(speculative="on", draft_tokens=2, threads=1, max_tokens=24)
        one = Solo(session, n_queue=2)
        yield one
        one.close()


def begun(answering: Solo, n: int = 24) -> Begun:
    options = {"max_tokens": n}
    config = answering.with_options(options)  # type: ignore[arg-type]
    return answering.begin(answering.encode(TEXT), config, options)  # type: ignore[arg-type]


def test_an_answer_is_the_sessions_own(answering: Solo) -> None:
    one = begun(answering)
    said = "".join(piece.text for piece in one.pieces)
    alone = "".join(p.text for p in answering.session.generate(TEXT, max_tokens=24))
    assert said == alone
    assert (one.result.finish, len(one.result.output)) == ("length", 24)
    assert one.counted().n_tokens == 24
    assert list(one.pieces) == []  # over is over


def test_they_are_answered_in_the_order_in_which_they_came(answering: Solo) -> None:
    ended: list[int] = []
    waiting = [begun(answering, 60), begun(answering, 3), begun(answering, 3)]

    def read(index: int) -> None:
        list(waiting[index].pieces)
        ended.append(index)

    threads = [threading.Thread(target=read, args=(index,)) for index in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ended == [0, 1, 2]


def test_more_than_may_wait_are_refused_and_room_comes_back(answering: Solo) -> None:
    waiting = [begun(answering) for _ in range(3)]
    with pytest.raises(BusyError, match="3 requests wait or are answered: expected at most 2"):
        begun(answering)
    waiting[1].pieces.close()  # type: ignore[attr-defined]
    waiting.append(begun(answering, 2))
    for one in waiting:
        one.pieces.close()  # type: ignore[attr-defined]
    assert len(list(begun(answering, 2).pieces)) > 0


@pytest.mark.slow
def test_who_leaves_while_waiting_is_told_at_once(answering: Solo) -> None:
    first, second = begun(answering, 400), begun(answering)
    next(first.pieces)
    told: list[type[BaseException]] = []

    def read() -> None:
        try:
            list(second.pieces)
        except Cancelled as error:
            told.append(type(error))

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.05)
    second.pieces.close()  # type: ignore[attr-defined]
    thread.join(5)
    assert told == [Cancelled]
    assert second.result.finish == "cancelled"
    assert len(list(first.pieces)) > 0  # nobody else is disturbed


def test_who_leaves_while_the_prompt_is_read_stops_the_reading(answering: Solo) -> None:
    n = answering.n_context - 10
    answering.session.target.truncate(0)
    one = answering.begin([5, *range(100, 100 + n - 1)], answering.with_options({}), {})
    while not answering.session.turns.running:
        time.sleep(0.001)
    one.pieces.close()  # type: ignore[attr-defined]
    while answering.load().n_running:
        time.sleep(0.001)
    assert one.result.finish == "cancelled" and not one.result.output
    assert answering.session.target.length < n - 1
    assert len(list(begun(answering, 2).pieces)) > 0


def test_closing_from_another_thread_ends_a_generation_within_a_round(answering: Solo) -> None:
    one = begun(answering, 900)
    seen = threading.Event()
    after: list[int] = []

    def read() -> None:
        with pytest.raises(Cancelled):
            for _ in one.pieces:
                seen.set()
        after.append(len(one.result.output))

    thread = threading.Thread(target=read)
    thread.start()
    assert seen.wait(10)
    one.pieces.close()  # type: ignore[attr-defined]
    n_then = len(one.result.output)
    thread.join(5)
    assert not thread.is_alive() and after[0] <= n_then + 6 < 900
    with pytest.raises(Cancelled):
        next(one.pieces)
    assert len("".join(p.text for p in begun(answering, 4).pieces)) > 0


def test_what_is_wrong_is_said_before_it_waits(answering: Solo) -> None:
    config = answering.with_options({})
    with pytest.raises(ContextError, match="the context holds"):
        answering.begin([5] * 5000, config, {})
    with pytest.raises(UsageError, match="no tokens"):
        answering.begin([], config, {})
    with pytest.raises(UsageError, match="schema"):
        answering.begin([5], answering.with_options({"json_schema": '{"type": 3}'}), {})
    with pytest.raises(UsageError, match="temperature"):
        answering.with_options({"temperature": "hot"})  # type: ignore[typeddict-item]


def test_closing_ends_what_waits(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    one = Solo(load(speculative="off", threads=1), n_queue=4)
    first, second = begun(one, 900), begun(one)
    next(first.pieces)
    one.close()
    for waiting in (first, second):  # what was said before is still read
        with pytest.raises(Cancelled):
            list(waiting.pieces)
    with pytest.raises((BusyError, UsageError)):
        begun(one)
