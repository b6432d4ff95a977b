"""Ctrl-C that comes while llama.cpp calls back ends the opening, and is never printed or lost."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.interrupts import HeldInterrupts, held_interrupts
from edgespec.backends.llamacpp.library import log
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.errors import Cancelled


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
        assert isinstance(signal.getsignal(signal.SIGINT), HeldInterrupts)
    assert not held.pressed


def test_it_comes_before_the_error_that_it_caused() -> None:
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        press()
        raise ValueError("no weights")


def test_an_ignored_signal_and_other_threads_are_left_alone() -> None:
    def elsewhere() -> None:
        with held_interrupts() as held:
            found.append(held.pressed)

    found: list[bool] = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        press()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert found == [False]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_interrupts() as held:
        press()
    assert not held.pressed
    signal.signal(signal.SIGINT, signal.default_int_handler)


def handled(*_: object) -> None:
    """What an application does that stops at its own time."""


@pytest.mark.parametrize(
    ("handler", "error"), [(signal.default_int_handler, KeyboardInterrupt), (handled, Cancelled)]
)
def test_while_the_library_logs_it_ends_loading(
    handler: Any, error: type[BaseException], stories260k: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Pressing(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if not caplog.records:
                press()
            return True

    caplog.set_level(logging.DEBUG, log.name)
    options, pressing = ModelOptions(n_threads=1), Pressing()
    signal.signal(signal.SIGINT, handler)
    caplog.handler.addFilter(pressing)
    with pytest.raises(error):
        LlamaCppModel(stories260k, options, loading="map")
    caplog.handler.removeFilter(pressing)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert "cancelled" in caplog.text
    LlamaCppModel(stories260k, options, loading="map").close()
