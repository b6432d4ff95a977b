"""Writes an answer as it is: to a pipe, a file, or a terminal that can do no more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol, TextIO

from edgespec.cli.tty import is_screen

GREEN, NORMAL = "\x1b[32m", "\x1b[0m"


class Printer(Protocol):
    """Where answers go."""

    def begin(self) -> None:
        """A new answer follows."""
        ...

    def piece(self, text: str, *, drafted: bool) -> None:
        """Some more of it; drafted: the drafter proposed it."""
        ...

    def end(self) -> None:
        """The answer is over, whole or not."""
        ...


class Plain:
    """The text alone, with one line break after it; colour: drafted tokens in green all the same.

    No line break is written after an answer without a word.
    """

    def __init__(self, file: TextIO, *, colour: bool) -> None:
        self._file, self._colour, self._is_empty = file, colour, True

    def begin(self) -> None:
        self._is_empty = True

    def piece(self, text: str, *, drafted: bool) -> None:
        self._is_empty = False
        self._file.write(f"{GREEN}{text}{NORMAL}" if drafted and self._colour else text)
        self._file.flush()

    def end(self) -> None:
        if not self._is_empty:
            self._file.write("\n")
            self._file.flush()


class Silent:
    """Nothing."""

    def begin(self) -> None: ...

    def piece(self, text: str, *, drafted: bool) -> None: ...

    def end(self) -> None: ...


def printer_of(file: TextIO, color: str, environ: Mapping[str, str] | None = None) -> Printer:
    """Markdown on a terminal, the plain text anywhere else; color: auto, on or off.

    "auto" is no colour if NO_COLOR says so (no-color.org), and none but on a terminal.
    """
    environ = os.environ if environ is None else environ
    draws = is_screen(file, environ)
    colour = color == "on" or (color == "auto" and draws and not environ.get("NO_COLOR"))
    if not draws:
        return Plain(file, colour=colour)
    from edgespec.cli.terminal.screen import Screen

    return Screen(file, colour=colour)
