"""Wraps styled characters at words. Pure: characters in, characters with line breaks out."""

from __future__ import annotations

from copy import copy

from rich.cells import cell_len

from edgespec.cli.terminal.inline import MARK, PLAIN, Look

Glyph = tuple[str, Look]  # one character and how it looks
NEWLINE: Glyph = ("\n", PLAIN)
JOINER = "\u200d"  # makes one of the characters around it
LEAST = 8  # columns, however narrow the terminal


class Wrap:
    """One line after another; the word under way waits for its end.

    width: columns, may change at any time, counted as at least `least`. A wide character (Chinese,
    emoji) is a word of its own.
    """

    def __init__(self, width: int, *, least: int = LEAST) -> None:
        self.width, self._least = width, least
        self._column = 0
        self._rest: list[Glyph] = []  # before each further row of this line
        self._is_start = True  # nothing but what stands before the row
        self._spaces: list[Glyph] = []  # before the word
        self._word: list[Glyph] = []
        self._is_cut = False  # the word fills more than a row, and goes on

    def copy(self) -> Wrap:
        """Another one in the same state."""
        twin = copy(self)
        twin._spaces, twin._word = self._spaces.copy(), self._word.copy()
        return twin

    def begin(self, first: str, rest: str) -> list[Glyph]:
        """A new line, with what stands before its first row and before the others."""
        if cell_len(rest) > self.width // 2:  # no room to hang
            rest = ""
        self._rest = [(char, MARK) for char in rest]
        self._is_start, self._is_cut = True, False
        self._column = cell_len(first)
        return [(char, MARK) for char in first]

    def put(self, glyphs: list[Glyph]) -> list[Glyph]:
        """What of it can be placed for good."""
        out: list[Glyph] = []
        for glyph in glyphs:
            char = glyph[0]
            if char in " \t":
                out += self._place()
                self._spaces.append((" ", glyph[1]))
                self._is_cut = False
                continue
            if self._word and self._breaks_before(char):
                out += self._place()
            self._word.append(glyph)
            if self._is_cut or len(self._word) > max(self.width, self._least):
                out += self._place()
                self._is_cut = True
        return out

    def end(self) -> list[Glyph]:
        """The rest of the line, without the line break; spaces at its end are dropped."""
        out = self._place()
        self._spaces = []
        return out

    def _breaks_before(self, char: str) -> bool:
        last = self._word[-1][0]
        return last != JOINER and cell_len(char) > 0 and 2 in (cell_len(char), cell_len(last))

    def _place(self) -> list[Glyph]:
        """The word, on this row or the next one; a word longer than a row is cut."""
        if not self._word:
            return []
        word, self._word = self._word, []
        spaces, self._spaces = ([] if self._is_start else self._spaces), []
        width, size = max(self.width, self._least), _cells(word)
        out: list[Glyph] = []
        if self._column + len(spaces) + size > width and not self._is_start and not self._is_cut:
            out += self._new_row()
        else:
            out += spaces
            self._column += len(spaces)
        for glyph in word:
            if self._column + cell_len(glyph[0]) > width:
                out += self._new_row()
            out.append(glyph)
            self._column += cell_len(glyph[0])
        self._is_start = False
        return out

    def _new_row(self) -> list[Glyph]:
        self._column = _cells(self._rest)
        return [NEWLINE, *self._rest]


def _cells(glyphs: list[Glyph]) -> int:
    """Columns taken."""
    return sum(cell_len(char) for char, _ in glyphs)
