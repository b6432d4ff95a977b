"""Markup within a line: `code`, **bold**, *italics*, ~~struck out~~. Pure; knows no terminal.

Follows CommonMark where that can be told without reading on. What differs: a pair of markers is of
one length, ends on its line and within LONGEST characters, and __ is no marker, since __name__
is what most people mean by it.
"""

from __future__ import annotations

from dataclasses import dataclass

Look = frozenset[str]  # of: bold, italic, strike, code, heading, mark, drafted

PLAIN: Look = frozenset()
MARK: Look = frozenset({"mark"})  # what is not text: bullets, bars, the fences of code
CODE: Look = frozenset({"code"})
LONGEST = 240  # characters for which a marker waits for the one that closes it
LOOKS = {
    "*": PLAIN | {"italic"},
    "**": PLAIN | {"bold"},
    "***": PLAIN | {"bold", "italic"},
    "_": PLAIN | {"italic"},
    "~~": PLAIN | {"strike"},
}
SPECIAL = "\\`*_~"
MOST = {"`": 80, "*": 3, "_": 1, "~": 2}  # characters of a marker
ESCAPED = "\\`*_~#+-.>|"
MISSING, UNKNOWN = -1, -2  # in place of where a marker is closed; UNKNOWN: not read yet


@dataclass(frozen=True)
class StyledSpan:
    """text[start:end] is shown in `look`."""

    start: int
    end: int
    look: Look


@dataclass(frozen=True)
class Element:
    """What is shown of a piece of markup, and where the piece ends in the text."""

    spans: tuple[StyledSpan, ...]
    end: int


def resolve(
    text: str, *, final: bool, before: str = " ", look: Look = PLAIN
) -> tuple[list[StyledSpan], int]:
    """What is shown of a line's rest, and how much of it could be told for good.

    final: the line ends here, so that all of it can be told and open markers stand for themselves.
    before: the character before the text. What is told once does not change when more is read.
    """
    spans: list[StyledSpan] = []
    at = 0
    while at < len(text):
        found = element(text, at, final, text[at - 1] if at else before)
        if found is None:
            break
        spans += [StyledSpan(one.start, one.end, one.look | look) for one in found.spans]
        at = found.end
    return spans, at


def element(text: str, at: int, final: bool, before: str) -> Element | None:
    """What begins at text[at]; None if that cannot be told yet."""
    char = text[at]
    if char not in SPECIAL:
        return plain(at, next_special(text, at))
    if char == "\\":
        return escaped(text, at, final)
    end = run_end(text, at)
    if before == char or end - at > MOST[char]:  # a run too long to mean anything, or its rest
        return plain(at, end)
    if end == len(text) and not final:
        return None
    if char == "`":
        return code(text, at, end, final)
    return emphasis(text, at, end, final, before)


def plain(start: int, end: int) -> Element:
    """Text as it is."""
    return Element((StyledSpan(start, end, PLAIN),), end)


def escaped(text: str, at: int, final: bool) -> Element | None:
    """A backslash: hidden before a marker, shown before anything else."""
    if at + 1 == len(text):
        return plain(at, at + 1) if final else None
    return plain(at + 1, at + 2) if text[at + 1] in ESCAPED else plain(at, at + 1)


def code(text: str, at: int, end: int, final: bool) -> Element | None:
    """A run of backticks: code with its ticks, or the ticks alone."""
    close = code_close(text, end, end - at, final)
    if close == UNKNOWN:
        return None
    if close == MISSING:
        return plain(at, end)
    last = close + end - at
    return Element(
        (StyledSpan(at, end, MARK), StyledSpan(end, close, CODE), StyledSpan(close, last, MARK)),
        last,
    )


def emphasis(text: str, at: int, end: int, final: bool, before: str) -> Element | None:
    """A run of * _ or ~: what it emphasizes, or the run alone."""
    marker = text[at:end]
    opens = marker in LOOKS and end < len(text) and not text[end].isspace()
    if end - at == 1 and before.isalnum():  # 5*3, snake_case
        opens = False
    close = emphasis_close(text, end, marker, final) if opens else MISSING
    if close == UNKNOWN:
        return None
    if close == MISSING:
        return plain(at, end)
    inner, _ = resolve(text[end:close], final=True, before=marker[0], look=LOOKS[marker])
    spans = tuple(StyledSpan(one.start + end, one.end + end, one.look) for one in inner)
    return Element(spans, close + end - at)


def code_close(text: str, start: int, n: int, final: bool) -> int:
    """Where the run of exactly n backticks after `start` begins, MISSING or UNKNOWN."""
    at = text.find("`", start)
    while 0 <= at <= start + LONGEST:
        end = run_end(text, at)
        if may_go_on(text, at, end, final):
            return UNKNOWN
        if end - at == n:
            return at
        at = text.find("`", end)
    return MISSING if final or len(text) > start + LONGEST else UNKNOWN


def emphasis_close(text: str, start: int, marker: str, final: bool) -> int:
    """Where the run that closes `marker` begins, code skipped; MISSING or UNKNOWN."""
    at = start
    while at < len(text) and at <= start + LONGEST:
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char not in ("`", marker[0]):
            at += 1
            continue
        end = run_end(text, at)
        if may_go_on(text, at, end, final):
            return UNKNOWN
        if char == "`":
            close = code_close(text, end, end - at, final)
            if close == UNKNOWN:
                return UNKNOWN
            at = end if close == MISSING else close + end - at
        elif closes(text, start, at, end, marker):
            return at
        else:
            at = end
    return MISSING if final or at > start + LONGEST else UNKNOWN


def closes(text: str, start: int, at: int, end: int, marker: str) -> bool:
    """Whether the run text[at:end] ends what `marker` began before `start`."""
    if text[at:end] != marker or at == start or text[at - 1].isspace():
        return False
    return marker != "_" or end == len(text) or not text[end].isalnum()


def may_go_on(text: str, at: int, end: int, final: bool) -> bool:
    """Whether the run text[at:end] may yet turn out longer, and that would matter."""
    return end == len(text) and not final and end - at <= MOST[text[at]]


def run_end(text: str, at: int) -> int:
    """The end of the run of text[at]."""
    end = at
    while end < len(text) and text[end] == text[at]:
        end += 1
    return end


def next_special(text: str, at: int) -> int:
    """Where the next character that may be a marker is."""
    while at < len(text) and text[at] not in SPECIAL:
        at += 1
    return at
