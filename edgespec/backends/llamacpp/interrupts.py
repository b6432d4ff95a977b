"""Ctrl-C while C code calls back: Python would print it as ignored in the callback, and lose it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class HeldInterrupts:
    """The handler of SIGINT meanwhile; pressed: whether Ctrl-C waits to be handled."""

    def __init__(self) -> None:
        self.pressed = False

    def __call__(self, *_: object) -> None:
        self.pressed = True


@contextmanager
def held_interrupts() -> Iterator[HeldInterrupts]:
    """Ctrl-C within the block takes effect at its end; what takes long looks at `pressed`.

    Signals reach the main thread only, and handlers that are not Python's are left alone.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if here else None
    if isinstance(before, HeldInterrupts):  # an outer block's
        yield before
        return
    held = HeldInterrupts()
    if not callable(before):
        yield held
        return
    signal.signal(signal.SIGINT, held)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
        if held.pressed:
            signal.raise_signal(signal.SIGINT)
