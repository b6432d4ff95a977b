"""Markdown that streams: text in, in any pieces, styled characters out, wrapped at words.

A state machine without a terminal. What `feed` gives is final; `tail` is how the rest would look if
nothing more came, and is drawn for the time being: a word that may not fit its row, a ** that may
turn out to be bold, a line of code that gets its colours when it ends, a table that is set in
columns when it does. Code is never wrapped here.

    page = Markdown(80)
    shown = page.feed("Some **bo", drafted=False)     # Some; tail: " **bo"
    shown = page.feed("ld** text", drafted=True)      # " bold", in bold; tail: " text"
"""

from __future__ import annotations

from copy import copy

from edgespec.cli.terminal.block import RULE, Block, block_of, closes_fence, is_fence_end
from edgespec.cli.terminal.inline import CODE, LONGEST, MARK, Look, resolve
from edgespec.cli.terminal.syntax import Syntax, syntax_of
from edgespec.cli.terminal.table import DRAFTED, Line, drawn
from edgespec.cli.terminal.wrap import NEWLINE, Glyph, Wrap
from edgespec.cli.tty import PICTURES

MOST_ROWS = 100  # of a table, which is set anew with every piece; the rest stays as it was written
WIDEST = 2000  # characters of a table's line


class Markdown:
    """One answer; `width` may change while it is written."""

    def __init__(self, width: int) -> None:
        self._wrap = Wrap(width)
        self._text, self._drafted = "", list[bool]()  # of the line: what is not told yet
        self._before = " "
        self._block: Block | None = None  # of the line, once it can be told
        self._fence = self._opening = ""  # of the code block that is open: ```, and its first line
        self._syntax: Syntax | None = None  # of its language, if that is known
        self._table: list[Line] = []  # lines of the table that is open

    def resize(self, width: int) -> None:
        """From the next word on."""
        self._wrap.width = width

    def feed(self, text: str, *, drafted: bool = False) -> list[Glyph]:
        """What can be shown for good now that `text` follows."""
        out: list[Glyph] = []
        lines = text.translate(PICTURES).split("\n")
        for number, part in enumerate(lines):
            if number:
                out += self._end_line()
            self._text += part
            self._drafted += [drafted] * len(part)
            out += self._advance(final=False)
        return out

    def tail(self) -> list[Glyph]:
        """How what was held back looks if the text ends here; nothing is changed by asking."""
        twin = copy(self)
        twin._wrap, twin._drafted = self._wrap.copy(), self._drafted.copy()
        twin._table, twin._syntax = self._table.copy(), None
        return twin.close()

    def close(self) -> list[Glyph]:
        """The rest, when no more comes."""
        if not (self._text or self._block):
            return self._set_table()
        out = self._advance(final=True)
        return out + self._set_table()[:-1] if self._keep_row() else [*out, *self._wrap.end()]

    def _end_line(self) -> list[Glyph]:
        """The line is complete."""
        out = self._advance(final=True)
        if not self._keep_row():
            out += [*self._wrap.end(), NEWLINE]
        elif len(self._table) == MOST_ROWS:
            out += self._set_table()
        if self._block is not None and self._block.kind == "fence":
            self._syntax = syntax_of(self._opening)
        self._block, self._before = None, " "
        return out

    def _advance(self, *, final: bool) -> list[Glyph]:
        """As much of the line as can be told."""
        out: list[Glyph] = []
        if self._block is None:
            self._block = self._begun(final)
            if self._block is None:
                return []
            out = [] if self._block.kind == "table" else self._set_table()
            out += self._opened(self._block)
        if self._block.kind == "text":
            spans, n = resolve(self._text, final=final, before=self._before)
            look = self._block.look
            glyphs = [g for s in spans for g in self._glyphs(s.start, s.end, s.look | look)]
            out += self._wrap.put(glyphs)
            self._drop(n)
            return out
        return out + self._unwrapped(self._block, final)

    def _unwrapped(self, block: Block, final: bool) -> list[Glyph]:
        """As much of a line that is not text as can be told."""
        n, look = len(self._text), {"code": CODE, "fence": MARK}.get(block.kind, block.look)
        out: list[Glyph] = []
        if block.kind == "table":
            if n <= WIDEST:
                return []
            self._block, out = Block("raw"), self._set_table()
        if block.kind == "code" and self._syntax is not None:
            if n <= LONGEST and not final:
                return []
            if n <= LONGEST:
                looks = self._syntax.looks(self._text)
                out = [g for at, one in enumerate(looks) for g in self._glyphs(at, at + 1, one)]
                self._drop(n)
                return out
            self._syntax = None
        out += self._glyphs(0, n, look)
        self._drop(n)
        return out

    def _keep_row(self) -> bool:
        """Whether the line is a table's, and is now kept until the table ends."""
        if self._block is None or self._block.kind != "table":
            return False
        self._table.append((self._text, self._drafted))
        self._text, self._drafted = "", []
        return True

    def _set_table(self) -> list[Glyph]:
        """The table that has ended, if there was one."""
        lines, self._table = self._table, []
        return [*drawn(lines, self._wrap.width), NEWLINE] if lines else []

    def _begun(self, final: bool) -> Block | None:
        """What the line is; inside a code block all but its end is code."""
        if not self._fence:
            return block_of(self._text, final=final)
        if final and is_fence_end(self._text, self._fence):
            return Block("fence")
        return None if closes_fence(self._text, self._fence) and not final else Block("code")

    def _opened(self, block: Block) -> list[Glyph]:
        """What stands before the line's text; a rule is drawn whole."""
        if block.kind == "fence":
            self._fence, self._opening = block.fence, self._text if block.fence else ""
        if block.kind == "rule":
            self._drop(len(self._text))
            return [(RULE, MARK)] * self._wrap.width
        self._drop(block.n)
        return self._wrap.begin(block.first, block.rest)

    def _glyphs(self, start: int, end: int, look: Look) -> list[Glyph]:
        both = look | DRAFTED
        return [(self._text[i], both if self._drafted[i] else look) for i in range(start, end)]

    def _drop(self, n: int) -> None:
        """Forget the first n characters held."""
        if n:
            self._before = self._text[n - 1]
            self._text, self._drafted = self._text[n:], self._drafted[n:]
