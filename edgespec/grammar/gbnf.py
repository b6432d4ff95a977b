"""A grammar (GBNF) read here too, for what a sampler does not tell: how short the rest may be.

`Grammar` holds the rules and the shortest text of each, for `walk` to read texts by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from edgespec.errors import UsageError

TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)|(?P<name>[A-Za-z0-9_-]+)|(?P<sign>::=|[|().])
    |(?P<text>"(?:\\.|[^"\\])*")|(?P<set>\[(?:\\.|[^\]\\])*\])
    |(?P<often>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})""",
    re.VERBOSE | re.DOTALL,
)
LETTER = re.compile(r"\\x(..)|\\u(....)|\\U(........)|\\(.)|(.)", re.DOTALL)
ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
END = 0x110000  # one past the last character
NEVER = 1 << 40  # bytes of what has no end
LONG = 4096  # bytes up to which a shortest text is written out
PLAIN_FIRST = (*range(0x20, 0x7F), *range(1, 0x20), 0x7F, 0, *range(0x80, 0x100))
ORDER = bytes(map(PLAIN_FIRST.index, range(0x100)))  # a byte's place: llama.cpp reads no zero


class Chars(NamedTuple):
    """One character out of ranges, both ends included, none of them overlapping."""

    ranges: tuple[tuple[int, int], ...]

    def has(self, first: int, last: int) -> bool:
        """Whether any character from first to last is among them."""
        return any(low <= last and first <= high for low, high in self.ranges)

    def has_all(self, first: int, last: int) -> bool:
        """Whether one of its ranges holds all from first to last."""
        return any(low <= first and last <= high for low, high in self.ranges)


Element = str | Chars
Body = tuple[Element, ...]


def width(letter: int) -> int:
    """Bytes of a character in UTF-8."""
    return 1 + (letter >= 0x80) + (letter >= 0x800) + (letter >= 0x10000)


def in_order(text: bytes) -> bytes:
    """What texts of equal length are compared by."""
    return text.translate(ORDER)


class Word(NamedTuple):
    """A shortest text: its bytes if they are not more than LONG."""

    n_bytes: int
    text: bytes = b""

    def rank(self) -> tuple[int, bytes]:
        """The shorter first, among equals the first in ORDER."""
        return self.n_bytes, in_order(self.text)


@lru_cache(1024)
def word_of(chars: Chars, first: int = 0, last: int = END) -> bytes:
    """The first in ORDER of the shortest characters from first to last; b"" for none."""
    ends = [(max(low, first), min(high, last)) for low, high in chars.ranges]
    plain = [one for low, high in ends for one in range(low, min(high, 0x7F) + 1)]
    wide = plain or [low for low, high in ends if low <= high]
    words = [chr(one).encode("utf-8", "surrogatepass") for one in wide]
    return min(words, key=lambda word: (len(word), in_order(word)), default=b"")


class Grammar:
    """The rules of a grammar, repetitions written out as rules of their own.

    words: the shortest text of each rule. Raises: UsageError for what it cannot read.
    """

    def __init__(self, gbnf: str) -> None:
        self.rules: dict[str, list[Body]] = {}
        self._tokens = list(tokens_of(gbnf))
        self._at = 0
        while self._at < len(self._tokens):
            _, name = self._next("name")
            self._next("sign", "::=")
            self.rules[name] = self._bodies()
        named = {e for bodies in self.rules.values() for body in bodies for e in body}
        missing = {"root", *(e for e in named if isinstance(e, str))} - set(self.rules)
        if missing:
            raise UsageError(f"the grammar lacks the rule {min(missing)}: expected it; add it")
        self.words: dict[str, Word] = dict.fromkeys(self.rules, Word(NEVER))
        self._shorten()

    def shortest(self, body: Body) -> Word:
        """The shortest text of a sequence, the first in ORDER."""
        out = Word(0)
        for element in reversed(body):
            out = self.before(element, out)
        return out

    def before(self, element: Element, rest: Word) -> Word:
        """The shortest text of an element, and what comes after it."""
        if isinstance(element, str):
            n_bytes, text = self.words[element]
        else:
            text = word_of(element)
            n_bytes = len(text) or NEVER
        n_bytes = min(n_bytes + rest.n_bytes, NEVER)
        return Word(n_bytes, text + rest.text if n_bytes <= LONG else b"")

    def most_bytes(self) -> int:
        """What no shortest ending has more of, wherever; NEVER if a rule stands within itself."""
        most = dict.fromkeys(self.rules, 0)
        for _ in range(16):
            before = dict(most)
            for name, bodies in self.rules.items():
                for body in bodies:
                    after = 0
                    for element in reversed(body):
                        inside = most[element] if isinstance(element, str) else 4
                        most[name] = max(most[name], inside + after)
                        after += self.before(element, Word(0)).n_bytes
            if most == before:
                return most["root"]
        return NEVER

    def _shorten(self) -> None:
        """Shorten rules until none can be, again those that use a shortened one."""
        users: dict[str, set[str]] = {name: set() for name in self.rules}
        for name, bodies in self.rules.items():
            for element in {e for body in bodies for e in body if isinstance(e, str)}:
                users[element].add(name)
        waiting = list(self.rules)
        while waiting:
            again: dict[str, None] = {}
            for name in waiting:
                least = min(map(self.shortest, self.rules[name]), key=Word.rank)
                if least.rank() < self.words[name].rank():
                    self.words[name] = least
                    again |= dict.fromkeys(users[name])
            waiting = list(again)

    def _next(self, kind: str, text: str = "") -> tuple[str, str]:
        seen = self._tokens[self._at] if self._at < len(self._tokens) else ("", "the end")
        if seen[0] != kind or text not in ("", seen[1]):
            raise UsageError(f"the grammar has {seen[1]!r}: expected {text or kind} there")
        self._at += 1
        return seen

    def _sees(self, *texts: str) -> bool:
        return self._tokens[self._at : self._at + 1] in [[("sign", text)] for text in texts]

    def _bodies(self) -> list[Body]:
        out = [self._body()]
        while self._sees("|"):
            self._at += 1
            out.append(self._body())
        return out

    def _body(self) -> Body:
        out: list[Element] = []
        while self._at < len(self._tokens) and not self._sees("|", ")"):
            kind, text = self._tokens[self._at]
            if kind == "name" and self._tokens[self._at + 1 : self._at + 2] == [("sign", "::=")]:
                break
            self._at += 1
            item = self._item(kind, text)
            if self._at < len(self._tokens) and self._tokens[self._at][0] == "often":
                item = self._repeated(item, self._tokens[self._at][1])
                self._at += 1
            out += item
        return tuple(out)

    def _item(self, kind: str, text: str) -> Body:
        if kind == "name":
            return (text,)
        if kind == "text":
            return tuple(Chars(((one, one),)) for one in letters(text[1:-1]))
        if kind == "set":
            return (set_of(text[1:-1]),)
        if (kind, text) == ("sign", "."):
            return (Chars(((0, END - 1),)),)
        if (kind, text) != ("sign", "("):
            raise UsageError(f"the grammar has {text!r}: expected a rule, a text or a set there")
        bodies = self._bodies()
        self._next("sign", ")")
        return (self._new(bodies),)

    def _repeated(self, item: Body, often: str) -> Body:
        """`item` as often as *, +, ? or {m,n} says, each further time a rule of its own."""
        low, high = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}.get(often, (0, 0))
        if often.startswith("{"):
            first, comma, last = often[1:-1].partition(",")
            low = int(first)
            high = low if not comma else int(last) if last.strip() else -1
        if len(item) > 1:
            item = (self._new([item]),)
        rest: Body = ()
        if high < 0:
            name = self._new([()])
            self.rules[name] = [(*item, name), ()]
            rest = (name,)
        for _ in range(high - low):
            rest = (self._new([(*item, *rest), ()]),)
        for _ in range(low):
            rest = (self._new([(*item, *rest)]),)
        return rest

    def _new(self, bodies: list[Body]) -> str:
        name = f"/{len(self.rules)}"  # no name in a grammar has a slash
        self.rules[name] = bodies
        return name


def tokens_of(gbnf: str) -> Iterator[tuple[str, str]]:
    """Kinds and texts. Raises: UsageError for what GBNF does not have."""
    at = 0
    while at < len(gbnf):
        found = TOKEN.match(gbnf, at)
        if found is None:
            raise UsageError(f"the grammar has {gbnf[at : at + 20]!r}: expected GBNF there")
        at = found.end()
        if found.lastgroup != "skip":
            yield str(found.lastgroup), found.group()


def letters(text: str) -> list[int]:
    """The characters of a text or set, escapes read."""
    out = []
    for found in LETTER.finditer(text):
        code = found.group(1) or found.group(2) or found.group(3)
        plain = found.group(5) or ESCAPED.get(found.group(4), found.group(4))
        out.append(int(code, 16) if code else ord(plain))
    return out


def set_of(text: str) -> Chars:
    """The set [text]."""
    is_not, text = text.startswith("^"), text.removeprefix("^")
    parts = list(LETTER.finditer(text))
    ranges, i = [], 0
    while i < len(parts):
        low = high = letters(parts[i].group())[0]
        if i + 2 < len(parts) and parts[i + 1].group() == "-":
            high, i = letters(parts[i + 2].group())[0], i + 2
        ranges.append((low, high))
        i += 1
    if not is_not:
        return Chars(tuple(ranges))
    out, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            out.append((start, low - 1))
        start = max(start, high + 1)
    return Chars((*out, (start, END - 1)) if start < END else tuple(out))
