"""Thoughts on the terminal: one dim line that moves on with them, folded when the answer begins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from edgespec.cli.progress import ERASE
from edgespec.cli.tty import PICTURES, can_write, cells, is_screen, width_of
from edgespec.types import Piece

DIM, NORMAL = "\x1b[2m", "\x1b[0m"
LONGEST = 400  # characters of thoughts that a line can show the end of


class Fold:
    """Takes the thoughts out of an answer's pieces. text: all of them."""

    def __init__(self) -> None:
        self.text, self._is_shown = "", False

    def answer(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The pieces that are no thoughts; those are shown meanwhile."""
        try:
            for piece in pieces:
                if piece.is_thought:
                    self.text += piece.text
                    self._show()
                else:
                    self._erase()
                    yield piece
        finally:
            self._erase()

    @property
    def n_words(self) -> int:
        return len(self.text.split())

    def _show(self) -> None:
        """Their end, as much of it as fits the line."""
        if not is_screen(sys.stderr):
            return
        said = " ".join(self.text[-LONGEST:].translate(PICTURES).split())
        room = width_of(sys.stderr) - 4
        while cells(said) > room:
            said = said[1:]
        if can_write(sys.stderr, said):
            sys.stderr.write(f"{ERASE}{DIM}.. {said}{NORMAL}")
            sys.stderr.flush()
            self._is_shown = True

    def _erase(self) -> None:
        if self._is_shown:
            sys.stderr.write(ERASE)
            sys.stderr.flush()
            self._is_shown = False
