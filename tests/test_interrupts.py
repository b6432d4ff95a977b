"""Ctrl-C that comes while llama.cpp calls back ends the opening, and is never printed or lost."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgespec.backends import ModelOptions
from edgespec.backends.interrupts import Held, held_interrupts
from edgespec.backends.llamacpp import LlamaCppModel
from edgespec.backends.llamacpp_library import log


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """SIGINT as in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def press(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_takes_effect_at_the_end_of_the_outermost_block() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt), held_interrupts() as outer:
        with held_interrupts() as inner:
            seen.append(inner.pressed)
            press()
            seen.append(inner.pressed)
        seen.append(outer.pressed)
    assert seen == [False, True, True]


def test_without_it_nothing_happens() -> None:
    with held_interrupts() as held:
        assert isinstance(signal.getsignal(signal.SIGINT), Held)
    assert not held.pressed


def test_it_comes_before_the_error_that_it_caused() -> None:
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        press()
        raise ValueError("no weights")


def test_an_ignored_signal_and_other_threads_are_left_alone() -> None:
    def elsewhere() -> None:
        with held_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    found: list[object] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_interrupts() as held:
        press()
    assert not held.pressed
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_while_the_library_logs_it_ends_loading(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pressing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if len(lines) == 1:
                press()

    lines: list[str] = []
    monkeypatch.setattr(log, "handlers", [Pressing()])
    monkeypatch.setattr(log, "level", logging.DEBUG)
    options = ModelOptions(n_threads=1)
    with pytest.raises(KeyboardInterrupt):
        LlamaCppModel(stories260k, options, loading="map")
    assert "cancelled" in " ".join(lines)
    LlamaCppModel(stories260k, options, loading="map").close()
