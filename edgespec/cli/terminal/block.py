"""What a line of Markdown is: a heading, a list item, a quote, a fence, a rule, a table, text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgespec.cli.terminal.inline import LONGEST, PLAIN, Look

HEADING: Look = frozenset({"heading"})
BULLET, BAR, RULE = "•", "│", "─"

# Each with what may still become one when the line goes on.
QUOTE = re.compile(r"> ?")
HEAD, HEAD_BEGUN = re.compile(r"#{1,6} +"), re.compile(r"#{1,6} *")
ITEM, ITEM_BEGUN = re.compile(r"[-*+] +(?=\S)"), re.compile(r"[-*+] *")
NUMBER, NUMBER_BEGUN = re.compile(r"\d{1,9}[.)] +(?=\S)"), re.compile(r"\d{1,9}[.)]? *")
LINE, LINE_BEGUN = re.compile(r"(-{3,}|\*{3,}|_{3,}) *"), re.compile(r"(-+|\*+|_+) *")
FENCE, FENCE_BEGUN = re.compile(r"(`{3,})[^`]*|(~{3,}).*"), re.compile(r"`{1,2}|~{1,2}")


@dataclass(frozen=True)
class Block:
    """A line's kind, and how it is set.

    kind: text, table (not wrapped), rule, fence, or code (between fences). n: source characters of
    the marker, which are not text. first, rest: what stands before the line's first row and before
    those it wraps to.
    """

    kind: str
    n: int = 0
    first: str = ""
    rest: str = ""
    look: Look = PLAIN
    fence: str = ""


def block_of(line: str, *, final: bool) -> Block | None:
    """The block a line begins; None while that depends on what follows.

    final: the line is complete. Rules and fences can be told from a complete line only, and one
    of more than LONGEST characters is neither, so that no line waits longer than that.
    """
    is_long = len(line) > LONGEST
    found = _block(line[: LONGEST + 1], final or is_long)
    if is_long and found is not None and found.kind in ("rule", "fence"):
        return Block("text")
    return found


def _block(line: str, final: bool) -> Block | None:
    n = len(line) - len(line.lstrip(" "))
    indent = " " * n
    if n == len(line):
        return Block("text", n, indent, indent) if final else None
    if not n and (quote := QUOTE.match(line)):
        if line == ">" and not final:
            return None
        return _within(quote.end(), _block(line[quote.end() :], final))
    return _lines(line[n:], final) or _marked(line[n:], n, indent, final)


def _within(n: int, inner: Block | None) -> Block | None:
    """A block in a quote; fences and rules are text there."""
    if inner is None:
        return None
    if inner.kind != "text":
        inner = Block("text")
    bar = f"{BAR} "
    return Block("text", n + inner.n, bar + inner.first, bar + inner.rest, inner.look)


def _lines(text: str, final: bool) -> Block | None:
    """What takes whole lines: a table's row, and of a finished line a rule or a fence."""
    if text.startswith("|"):
        return Block("table")
    if final and LINE.fullmatch(text):
        return Block("rule")
    if final and (fence := FENCE.fullmatch(text)):
        return Block("fence", fence=fence[1] or fence[2])
    return None


def _marked(text: str, n: int, indent: str, final: bool) -> Block | None:
    """A heading, a list item or text, with what stands before it."""
    if not final and any(
        begun.fullmatch(text) for begun in (HEAD_BEGUN, ITEM_BEGUN, NUMBER_BEGUN, LINE_BEGUN)
    ):
        return None
    if not final and (FENCE_BEGUN.fullmatch(text) or FENCE.fullmatch(text)):
        return None
    if head := HEAD.match(text):
        return Block("text", n + head.end(), indent, indent, HEADING)
    if item := ITEM.match(text):
        rest = indent + " " * item.end()
        return Block("text", n + item.end(), indent + BULLET + rest[n + 1 :], rest)
    if number := NUMBER.match(text):
        return Block("text", n + number.end(), indent + number[0], indent + " " * number.end())
    return Block("text", n, indent, indent)


def closes_fence(line: str, fence: str) -> bool:
    """Whether a line of code, begun or complete, is nothing but the fence that ends it, so far.

    A complete one must also be as long: see `is_fence_end`.
    """
    text = line.strip(" ")
    return len(line) <= LONGEST and (not text or set(text) == {fence[0]})


def is_fence_end(line: str, fence: str) -> bool:
    """Whether a complete line of code ends the block that `fence` began."""
    text = line.strip(" ")
    return closes_fence(line, fence) and len(text) >= len(fence)
