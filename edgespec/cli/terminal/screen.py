"""Draws an answer on a terminal as it comes: only what is not final yet is ever drawn again.

What scrolled up stays as it was written; there is no redrawn screen and no cursor position asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TextIO

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style

from edgespec.cli.terminal.inline import Look
from edgespec.cli.terminal.markdown import Markdown
from edgespec.cli.terminal.wrap import NEWLINE, Glyph
from edgespec.cli.tty import can_write, rows_of, width_of

STYLES = {
    "bold": Style(bold=True),
    "italic": Style(italic=True),
    "strike": Style(strike=True),
    "heading": Style(bold=True, underline=True),
    "mark": Style(dim=True),
    "keyword": Style(bold=True),
    "comment": Style(dim=True),
}
COLORS = {  # the later one wins
    "code": Style(color="cyan"),
    "keyword": Style(color="magenta"),
    "name": Style(color="blue"),
    "number": Style(color="red"),
    "string": Style(color="yellow"),
    "comment": Style(color="white"),
    "drafted": Style(color="green"),
}
ASCII = str.maketrans("•│─┼", "*|-+")


class Screen:
    """Writes answers to a terminal, one after another; colour: of drafted tokens and of code."""

    def __init__(self, file: TextIO, *, colour: bool) -> None:
        self._file, self._colour = file, colour
        self._is_unicode = can_write(file, "•│─┼")
        self.begin()

    def begin(self) -> None:
        """A new answer, at the beginning of a row."""
        self._width = width_of(self._file)
        self._page = Markdown(self._width - 1)  # a row that is full makes terminals differ
        self._tail: list[Glyph] = []  # on the screen, to be taken back
        self._column = 0  # where it begins

    def piece(self, text: str, *, drafted: bool) -> None:
        """Some more of the answer."""
        width = width_of(self._file)
        if width != self._width:
            self._page.resize(width - 1)
        shown = self._page.feed(text, drafted=drafted)
        self._draw(shown, self._page.tail(), width)

    def end(self) -> None:
        """The rest of the answer; the cursor is at the beginning of a row afterwards."""
        self._draw(self._page.close(), [], width_of(self._file))
        if self._column:
            self._write("\n")

    def _draw(self, shown: list[Glyph], tail: list[Glyph], width: int) -> None:
        """Bring the screen up to date; nothing is taken back while it only grows."""
        if not column_after(self._column, shown):
            tail = last_rows(tail, rows_of(self._file) - 2, width)
        new, n_old = shown + tail, len(self._tail)
        if new[:n_old] == self._tail:
            self._write(self._painted(new[n_old:]))
        else:
            self._write(self._back(width, new) + self._painted(new))
        self._column = column_after(self._column, shown)
        self._tail, self._width = tail, width

    def _back(self, width: int, new: list[Glyph]) -> str:
        """The way back to where the tail begins, everything from there on erased."""
        if width < self._width and column_after(self._column, self._tail) >= width:
            self._column = 0  # where a narrowed terminal moved that row to, nobody knows
            return "" if new[:1] == [NEWLINE] else "\n"
        n_rows, column = 0, self._column
        for line in "".join(char for char, _ in self._tail).split("\n"):
            n_rows += 1 + max(column + cell_len(line) - 1, 0) // width
            column = 0
        up = f"\x1b[{n_rows - 1}A" if n_rows > 1 else ""
        right = f"\x1b[{self._column}C" if self._column else ""
        return f"{up}\r{right}\x1b[J"

    def _painted(self, glyphs: list[Glyph]) -> str:
        """The characters with what switches their looks on and off."""
        out, run = "", ""
        for number, (char, look) in enumerate(glyphs):
            run += char
            if number + 1 == len(glyphs) or glyphs[number + 1][1] != look:
                out += style_of(look, self._colour).render(run, color_system=ColorSystem.STANDARD)
                run = ""
        return out if self._is_unicode else out.translate(ASCII)

    def _write(self, text: str) -> None:
        if text:
            self._file.write(text)
            self._file.flush()


@lru_cache(maxsize=256)
def style_of(look: Look, colour: bool) -> Style:
    """How that looks on a terminal."""
    known = [*STYLES.items(), *(COLORS.items() if colour else ())]
    return Style.combine([Style.null(), *(style for word, style in known if word in look)])


def last_rows(glyphs: list[Glyph], n: int, width: int) -> list[Glyph]:
    """The last lines, as far as they fit n rows: what is taken back must not scroll away."""
    at = len(glyphs)
    for line in reversed("".join(char for char, _ in glyphs).split("\n")):
        n -= 1 + max(cell_len(line) - 1, 0) // width
        if n < 0 and at < len(glyphs):
            return glyphs[at + 1 :]
        at -= len(line) + 1
    return glyphs


def column_after(column: int, glyphs: list[Glyph]) -> int:
    """Where the cursor is after `glyphs` were written from `column` on."""
    _, newline, last = "".join(char for char, _ in glyphs).rpartition("\n")
    return cell_len(last) + (0 if newline else column)
