"""One progress bar on the terminal for whatever takes more than a second, gone when it is done.

It is drawn by a thread of its own, since what takes long is often a single call. On a log there is
no bar, but a line once it is done.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from edgespec.cli.tty import can_write, cells, is_screen, shortened, width_of

AFTER_S = 1.0  # what takes less is not worth a bar
EVERY_S = 0.2
MOST_COLUMNS = 30  # of the bar itself
ERASE = "\r\x1b[K"


class Bar:
    """A Progress: told what takes a while and the share of it that is done, at last 1."""

    def __init__(
        self, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """file: by default what stderr is at the time."""
        self._file, self._clock = file, clock
        self._lock = threading.Lock()
        self._what, self._share = "", 0.0  # in progress, if not empty
        self._began_s, self._began_at = 0.0, 0.0
        self._is_shown = False
        self._ended = threading.Event()

    def __call__(self, what: str, share: float) -> None:
        """A share below the last one begins something new; 1 or more ends it."""
        with self._lock:
            if not self._what or share < self._share:
                self._erase()
                self._began_s, self._began_at = self._clock(), share
            is_new = not self._what
            self._what, self._share = what, share
            if share >= 1:
                self._end()
            elif is_new and is_screen(self._out):
                self._ended = threading.Event()
                threading.Thread(target=self._keep_up, args=[self._ended], daemon=True).start()

    def clear(self) -> None:
        """Nothing is in progress any more, for it failed or was stopped."""
        with self._lock:
            self._ended.set()
            self._erase()
            self._what = ""

    def draw(self) -> None:
        """Bring the bar up to date, if it is time to show it."""
        with self._lock:
            took_s = self._clock() - self._began_s
            if self._what and took_s >= AFTER_S:
                line = bar_line(
                    self._what, self._share, took_s, left_s(took_s, self._began_at, self._share),
                    width_of(self._out) - 1,
                )  # fmt: skip
                if not can_write(self._out, line):
                    line = line.translate(str.maketrans("█░", "#-"))
                self._out.write(ERASE + line)
                self._out.flush()
                self._is_shown = True

    @property
    def what(self) -> str:
        """What is in progress, "" for nothing."""
        return self._what

    @property
    def _out(self) -> TextIO:
        return self._file or sys.stderr

    def _keep_up(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY_S):
            self.draw()

    def _end(self) -> None:
        self._ended.set()
        self._erase()
        if not is_screen(self._out) and self._clock() - self._began_s >= AFTER_S:
            print(self._what, file=self._out, flush=True)
        self._what = ""

    def _erase(self) -> None:
        if self._is_shown:
            self._out.write(ERASE)
            self._out.flush()
        self._is_shown = False


def left_s(took_s: float, began_at: float, share: float) -> float | None:
    """Seconds to go at the pace so far; None before there is a pace."""
    done = share - began_at
    return took_s * (1 - share) / done if done > 0.001 else None


def bar_line(what: str, share: float, took_s: float, left: float | None, width: int) -> str:
    """What, how much of it and how much longer, in at most `width` columns.

    Without a share there is no bar, only the time so far.
    """
    if share <= 0:
        end = f"  {duration(took_s)}"
        return shortened(shortened(what, width - len(end)) + end, width)
    time_s = duration(took_s) if left is None else f"{duration(left)} left"
    end = f" {share:4.0%}  {time_s}"
    n = min(MOST_COLUMNS, max(width - cells(what) - len(end) - 1, 0))
    full = round(n * share)
    bar = " " + "█" * full + "░" * (n - full) if n >= 5 else ""
    return shortened(shortened(what, width - len(end) - len(bar)) + bar + end, width)


def duration(seconds: float) -> str:
    """As a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
