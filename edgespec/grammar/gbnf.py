"""A grammar (GBNF) read here too, for what a sampler does not tell: how short the rest may be.

`Grammar` holds the rules and the fewest bytes that each can be; `Walk` is every place where a
text may stand in it. Only tells lengths; which tokens may follow is the backend's to say.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class Chars(NamedTuple):
    """One character out of ranges, both ends included, none of them overlapping."""

    ranges: tuple[tuple[int, int], ...]

    def has(self, first: int, last: int) -> bool:
        """Whether any character from first to last is among them."""
        return any(low <= last and first <= high for low, high in self.ranges)

    def n_bytes(self) -> int:
        return min((width(low) for low, _ in self.ranges), default=NEVER)

    def leads(self) -> NDArray[np.bool_]:
        """[256] first bytes of its characters in UTF-8."""
        out = np.zeros(256, np.bool_)
        for low, high in self.ranges:
            out[lead(low) : lead(high) + 1] = True
        return out


Element = str | Chars
Body = tuple[Element, ...]


def width(letter: int) -> int:
    """Bytes of a character in UTF-8."""
    return 1 + (letter >= 0x80) + (letter >= 0x800) + (letter >= 0x10000)


def lead(letter: int) -> int:
    """The first byte of a character in UTF-8."""
    n = width(letter)
    return letter if n == 1 else (0xF00 >> n) & 0xFF | letter >> 6 * (n - 1)


class Grammar:
    """The rules of a grammar, repetitions written out as rules of their own.

    n_bytes: the fewest bytes of each rule. Raises: UsageError for what it cannot read.
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
        self.n_bytes = dict.fromkeys(self.rules, NEVER)
        while self._shorten():
            pass

    def shortest(self, body: Body) -> int:
        """The fewest bytes of a sequence."""
        return min(sum(map(self._shortest, body)), NEVER)

    def rises(self) -> NDArray[np.int64]:
        """[256] by how much a character with this first byte may lengthen the shortest rest.

        At most: that it was the dearest way to go on, by whatever rule comes next.
        """
        extra = {name: np.full(256, -1, np.int64) for name in self.rules}
        for _ in range(50):
            before = {name: row.copy() for name, row in extra.items()}
            for name, bodies in self.rules.items():
                for body in bodies:
                    self._start(extra, name, body)
            if all((before[name] == row).all() for name, row in extra.items()):
                most: NDArray[np.int64] = np.array(list(extra.values())).max(0)
                return most
        return np.full(256, NEVER)

    def _start(self, extra: dict[str, NDArray[np.int64]], name: str, body: Body) -> None:
        """Add to `extra` what a rule costs more than its shortest when it goes on with `body`."""
        more, row = self.shortest(body) - self.n_bytes[name], extra[name]
        if self.shortest(body) >= NEVER:
            return
        for element in body:
            if isinstance(element, Chars):
                row[element.leads()] = np.maximum(row[element.leads()], more)
                return
            known = extra[element] >= 0
            row[known] = np.maximum(row[known], more + extra[element][known])
            if self.n_bytes[element]:
                return

    def _shortest(self, element: Element) -> int:
        return self.n_bytes[element] if isinstance(element, str) else element.n_bytes()

    def _shorten(self) -> bool:
        changed = False
        for name, bodies in self.rules.items():
            least = min(map(self.shortest, bodies))
            changed |= least < self.n_bytes[name]
            self.n_bytes[name] = min(least, self.n_bytes[name])
        return changed

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


class WalkPlace(NamedTuple):
    """Where a text stands: the number of a set of stacks, and bytes of a character not over."""

    state: int
    begun: bytes = b""


DEAD = WalkPlace(-1)


class Walk:
    """Reads texts byte by byte; every place it comes by is numbered and worked out once.

    A stack is what is still to come: its first element and the number of the stack below. A
    state is a set of stacks whose rules are not yet replaced by what they stand for.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._stacks: list[tuple[Element, int]] = [("", 0)]  # number 0 is the end
        self._n_bytes = [0]
        self._numbers: dict[tuple[Element, int], int] = {}
        self._open: dict[int, frozenset[int]] = {}  # stack to stacks that begin with characters
        self._states: list[frozenset[int]] = []
        self._state_numbers: dict[frozenset[int], int] = {}
        self._steps: dict[tuple[int, int], int] = {}
        self.start = WalkPlace(self._state(frozenset({self._push("root", 0)})))

    def read(self, place: WalkPlace, data: bytes) -> WalkPlace:
        """Where `data` leads; DEAD where it does not go on."""
        try:
            text, n = codecs.utf_8_decode(place.begun + data, "strict", False)
        except UnicodeDecodeError:
            return DEAD
        state = place.state
        for letter in text:
            if state < 0:
                return DEAD
            state = self._step(state, ord(letter))
        return WalkPlace(state, (place.begun + data)[n:]) if state >= 0 else DEAD

    def least(self, place: WalkPlace) -> int:
        """The fewest bytes with which the text may end; NEVER if it cannot."""
        if place.state < 0:
            return NEVER
        if not place.begun:
            return min(self._n_bytes[stack] for stack in self._states[place.state])
        low, high, n_missing = unfinished(place.begun)
        after = self._after(place.state, low, high)
        return min((n_missing + self._n_bytes[stack] for stack in after), default=NEVER)

    def most(self, place: WalkPlace) -> int:
        """As `least`, if it has to go on by the dearest of its stacks."""
        if place.state < 0 or place.begun:
            return NEVER
        return max(self._n_bytes[stack] for stack in self._states[place.state])

    def _step(self, state: int, letter: int) -> int:
        key = (state, letter)
        if key not in self._steps:
            nexts = self._after(state, letter, letter)
            self._steps[key] = self._state(frozenset(nexts)) if nexts else -1
        return self._steps[key]

    def _after(self, state: int, low: int, high: int) -> set[int]:
        """The stacks that are left after a character from low to high."""
        out = set()
        for stack in self._states[state]:
            for top, below in map(self._stacks.__getitem__, self._opened(stack)):
                if isinstance(top, Chars) and top.has(low, high):
                    out.add(below)
        return out

    def _opened(self, stack: int) -> frozenset[int]:
        if stack not in self._open:
            out, waiting, seen = set(), [stack], {stack}
            while waiting:
                one = waiting.pop()
                top, below = self._stacks[one]
                if one == 0 or isinstance(top, Chars):
                    out.add(one)
                    continue
                for body in self._grammar.rules[top]:
                    deeper = below
                    for element in reversed(body):
                        deeper = self._push(element, deeper)
                    if deeper not in seen:
                        seen.add(deeper)
                        waiting.append(deeper)
            self._open[stack] = frozenset(out)
        return self._open[stack]

    def _push(self, element: Element, below: int) -> int:
        key = (element, below)
        if key not in self._numbers:
            self._numbers[key] = len(self._stacks)
            self._stacks.append(key)
            n_bytes = self._grammar.shortest((element,)) + self._n_bytes[below]
            self._n_bytes.append(min(n_bytes, NEVER))
        return self._numbers[key]

    def _state(self, stacks: frozenset[int]) -> int:
        if stacks not in self._state_numbers:
            self._state_numbers[stacks] = len(self._states)
            self._states.append(stacks)
        return self._state_numbers[stacks]


def unfinished(begun: bytes) -> tuple[int, int, int]:
    """The lowest and highest character that begins with these bytes, and how many it lacks."""
    n = 2 + (begun[0] >= 0xE0) + (begun[0] >= 0xF0)
    n_missing = n - len(begun)
    value = begun[0] & (0x7F >> n)
    for byte in begun[1:]:
        value = value << 6 | byte & 0x3F
    low, high = value << 6 * n_missing, ((value + 1) << 6 * n_missing) - 1
    return max(low, (0x80, 0x800, 0x10000)[n - 2]), min(high, END - 1), n_missing
