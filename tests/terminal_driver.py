"""`edgespec` in a real pseudo-terminal, and the screen that a person would have before them.

Everything waits for text, never for time, so a busy machine only makes it slower.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pexpect
import pyte

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120.0
N_ROWS = 40


def heed_interrupts() -> None:
    """In the child: Ctrl-C counts, even where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command in a terminal of so many columns; rows that scrolled away are kept."""

    def __init__(
        self, *words: str, home: Path, columns: int = 100, shell: str = "", **environ: str
    ) -> None:
        """shell: a command line in place of the words, {edgespec} standing for the command."""
        self.screen = pyte.HistoryScreen(columns, N_ROWS, history=5000)
        self._stream = pyte.Stream(self.screen)
        self.raw = ""  # all that was written, escape sequences included
        unset = ("NO_COLOR", "COLUMNS", "LINES", "COLORTERM")
        env = {k: v for k, v in os.environ.items() if k not in unset}
        env |= {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "LC_ALL": "C.UTF-8"}
        env |= {"EDGESPEC_HOME": str(home), "PYTHONPATH": str(ROOT), **environ}
        command = [sys.executable, "-m", "edgespec", *words]
        if shell:
            line = shell.replace("{edgespec}", f"{sys.executable} -m edgespec")
            command = ["/bin/sh", "-c", line]
        self._child: pexpect.spawn[str] = pexpect.spawn(
            command[0], command[1:], env=env, encoding="utf-8", codec_errors="replace",
            dimensions=(N_ROWS, columns), timeout=None, preexec_fn=heed_interrupts,
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._child.close(force=True)

    @property
    def rows(self) -> list[str]:
        """Every row so far, those that scrolled away first, without the empty ones at the end."""
        gone = ["".join(row[at].data for at in range(self.screen.columns)).rstrip()
                for row in self.screen.history.top]  # fmt: skip
        rows = [*gone, *(row.rstrip() for row in self.screen.display)]
        return "\n".join(rows).rstrip().split("\n")

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def pid(self) -> int:
        """The command's process."""
        return int(self._child.pid)

    def type(self, text: str) -> None:
        """Type a line and Enter."""
        self._child.send(text + "\r")

    def press(self, key: str) -> None:
        """Send a key, as in "\\x03" for Ctrl-C."""
        self._child.send(key)

    def resize(self, columns: int) -> None:
        """Make the window that wide."""
        self._child.setwinsize(N_ROWS, columns)
        self.screen.resize(N_ROWS, columns)

    def wait(self, done: Callable[[], object], what: str, *, every_s: float = 0.5) -> None:
        """Read until `done()`, which is asked after anything read and else that often."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            left = end - time.monotonic()
            assert left > 0, f"{what} never came; the screen:\n{self.text}"
            try:
                self._feed(self._child.read_nonblocking(65536, timeout=min(left, every_s)))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                assert done(), f"ended before {what}; the screen:\n{self.text}"

    def wait_for(self, pattern: str, *, after: int = 0) -> None:
        """Until the screen's rows from `after` on hold the pattern (a regular expression)."""
        self.wait(lambda: re.search(pattern, "\n".join(self.rows[after:]), re.MULTILINE), pattern)

    def prompt(self, number: int) -> None:
        """Until the prompt is there for the number-th time."""
        self.wait(
            lambda: self.rows[-1] == ">" and sum(r[:1] == ">" for r in self.rows) >= number,
            f"prompt {number}",
        )

    def end(self) -> int:
        """Until the command has ended; its exit code, or the signal's as a shell says it."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._feed(self._child.read_nonblocking(65536, timeout=0.5))
            except pexpect.TIMEOUT:
                assert time.monotonic() < end, f"does not end; the screen:\n{self.text}"
            except pexpect.EOF:
                break
        self._child.close()
        status, number = self._child.exitstatus, self._child.signalstatus
        return status if status is not None else 128 + (number or 0)

    def _feed(self, text: str) -> None:
        self.raw += text
        self._stream.feed(text)

    def colour_of(self, word: str) -> set[str]:
        """Foreground colours of the last place on the screen that has the word."""
        for number in reversed(range(N_ROWS)):
            at = self.screen.display[number].rfind(word)
            if at >= 0:
                row = self.screen.buffer[number]
                return {row[i].fg for i in range(at, at + len(word))}
        raise AssertionError(f"{word} is not on the screen:\n{self.text}")
