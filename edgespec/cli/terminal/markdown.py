"""Markdown that streams: text in, in any pieces, styled characters out, wrapped at words.

A state machine without a terminal. What `feed` gives is final; `tail` is how the rest would look if
nothing more came, and is drawn for the time being: a word that may not fit its row, a ** that may
turn out to be bold. Code and tables are never wrapped here.

    page = Markdown(80)
    shown = page.feed("Some **bo", drafted=False)     # Some; tail: " **bo"
    shown = page.feed("ld** text", drafted=True)      # " bold", in bold; tail: " text"
"""

from __future__ import annotations

from copy import copy

from edgespec.cli.terminal.block import RULE, Block, block_of, closes_fence, is_fence_end
from edgespec.cli.terminal.inline import CODE, MARK, Look, resolve
from edgespec.cli.terminal.wrap import NEWLINE, Glyph, Wrap
from edgespec.cli.tty import PICTURES

DRAFTED: Look = frozenset({"drafted"})


class Markdown:
    """One answer; `width` may change while it is written."""

    def __init__(self, width: int) -> None:
        self._wrap = Wrap(width)
        self._text, self._drafted = "", list[bool]()  # of the line: what is not told yet
        self._before = " "
        self._block: Block | None = None  # of the line, once it can be told
        self._fence = ""  # of the code block that is open

    def resize(self, width: int) -> None:
        """From the next word on."""
        self._wrap.width = width

    def feed(self, text: str, *, drafted: bool = False) -> list[Glyph]:
        """What can be shown for good now that `text` follows."""
        out: list[Glyph] = []
        lines = text.translate(PICTURES).split("\n")
        for number, part in enumerate(lines):
            if number:
                out += self._advance(final=True)
                out += [*self._wrap.end(), NEWLINE]
                self._block, self._before = None, " "
            self._text += part
            self._drafted += [drafted] * len(part)
            out += self._advance(final=False)
        return out

    def tail(self) -> list[Glyph]:
        """How what was held back looks if the text ends here; nothing is changed by asking."""
        twin = copy(self)
        twin._wrap, twin._drafted = self._wrap.copy(), self._drafted.copy()
        return twin.close()

    def close(self) -> list[Glyph]:
        """The rest, when no more comes."""
        return [*self._advance(final=True), *self._wrap.end()] if self._text or self._block else []

    def _advance(self, *, final: bool) -> list[Glyph]:
        """As much of the line as can be told."""
        out: list[Glyph] = []
        if self._block is None:
            self._block = self._begun(final)
            if self._block is None:
                return []
            out = self._opened(self._block)
        if self._block.kind == "text":
            spans, n = resolve(self._text, final=final, before=self._before)
            look = self._block.look
            glyphs = [g for s in spans for g in self._glyphs(s.start, s.end, s.look | look)]
            out += self._wrap.put(glyphs)
            self._drop(n)
        else:
            look = {"code": CODE, "fence": MARK}.get(self._block.kind, self._block.look)
            out += self._glyphs(0, len(self._text), look)
            self._drop(len(self._text))
        return out

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
            self._fence = block.fence
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
