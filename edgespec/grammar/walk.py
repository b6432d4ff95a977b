"""Every place where a text may stand in a grammar, and the shortest ending from there.

Only tells how a text may end; which tokens may follow is the backend's to say.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from edgespec.grammar.gbnf import END, LONG, NEVER, Chars, Element, Grammar, Word, word_of

ANY = b"\x80"
SECOND = {b"\xe0": (0xA0, 0xBF), b"\xed": (0x80, 0x9F),
          b"\xf0": (0x90, 0xBF), b"\xf4": (0x80, 0x8F)}  # fmt: skip
LEADS = ((0xC2, 0xDF), (0xE0, 0xE0), (0xE1, 0xEC), (0xED, 0xED), (0xEE, 0xEF),
         (0xF0, 0xF0), (0xF1, 0xF3), (0xF4, 0xF4))  # fmt: skip


class WalkPlace(NamedTuple):
    """Where a text stands: the number of a set of stacks, and bytes of a character not over.

    With as many 0x80 as that lacks, whatever it is: the state is the one after it.
    """

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
        self._rests = [Word(0)]
        self._numbers: dict[tuple[Element, int], int] = {}
        self._open: dict[int, frozenset[int]] = {}  # stack to stacks that begin with characters
        self._states: list[frozenset[int]] = []
        self._state_numbers: dict[frozenset[int], int] = {}
        self._steps: dict[tuple[int, int], int] = {}
        self.start = WalkPlace(self._state(frozenset({self._push("root", 0)})))

    def read(self, place: WalkPlace, data: bytes) -> WalkPlace:
        """Where `data` leads; DEAD where it does not go on."""
        if place.begun[:1] == ANY:
            n = min(len(data), len(place.begun))
            if not all(0x80 <= byte < 0xC0 for byte in data[:n]):
                return DEAD
            place, data = WalkPlace(place.state, place.begun[n:]), data[n:]
            return self.read(place, data) if data else place
        try:
            text, n = codecs.utf_8_decode(place.begun + data, "strict", False)
        except UnicodeDecodeError:
            return DEAD
        state = place.state
        for letter in text:
            if state < 0:
                return DEAD
            state = self._step(state, ord(letter))
        begun = (place.begun + data)[n:]
        return DEAD if state < 0 or b"\xed\xa0" <= begun[:2] < b"\xee" else WalkPlace(state, begun)

    def ways(self, place: WalkPlace) -> Iterator[tuple[int, int, WalkPlace]]:
        """Bytes from first to last, and where each of them leads; all others lead nowhere."""
        if place.begun[:1] == ANY:
            yield 0x80, 0xBF, WalkPlace(place.state, place.begun[1:])
        elif place.begun:
            yield from self._led(place, *SECOND.get(place.begun, (0x80, 0xBF)))
        else:
            ranges = [one for head, _ in self._heads(place.state) for one in head.ranges]
            cuts = {min(cut, 0x80) for low, high in ranges for cut in (low, high + 1)}
            for low, end in pairwise(sorted(cuts)):
                yield low, end - 1, WalkPlace(self._step(place.state, low))
            for first, last in LEADS if any(high > 0x7F for _, high in ranges) else ():
                yield from self._led(place, first, last)

    def _led(self, place: WalkPlace, first: int, last: int) -> Iterator[tuple[int, int, WalkPlace]]:
        """As `ways`, for bytes that are not the last of a character."""
        state, begun = place
        low, high = unfinished(begun + bytes((first,)))[0], unfinished(begun + bytes((last,)))[1]
        if all(
            head.has_all(low, high) or not head.has(low, high) for head, _ in self._heads(state)
        ):
            yield first, last, self._settled(self.read(place, bytes((first,))))
        else:
            for byte in range(first, last + 1):
                yield byte, byte, self._settled(self.read(place, bytes((byte,))))

    def _settled(self, place: WalkPlace) -> WalkPlace:
        """The same place, with 0x80 for the character if all that begin so lead to one state."""
        if not place.begun or place.begun[:1] == ANY or place.begun in SECOND:
            return place
        low, high, n_missing = unfinished(place.begun)
        heads = [head for head in self._heads(place.state) if head[0].has(low, high)]
        if not all(top.has_all(low, high) for top, _ in heads):
            return place
        nexts = frozenset(below for _, below in heads)
        return WalkPlace(self._state(nexts), ANY * n_missing) if nexts else DEAD

    def least(self, place: WalkPlace) -> int:
        """The fewest bytes with which the text may end; NEVER if it cannot."""
        return self.rest(place).n_bytes

    def rest(self, place: WalkPlace) -> Word:
        """The shortest ending, the first in ORDER: after a part of it, what is left of it."""
        if place.state < 0:
            return Word(NEVER)
        if not place.begun:
            return min((self._rests[one] for one in self._states[place.state]), key=Word.rank)
        if place.begun[:1] == ANY:
            n_bytes, text = self.rest(WalkPlace(place.state))
            return Word(n_bytes + len(place.begun), place.begun + text if n_bytes <= LONG else b"")
        low, high, n_missing = unfinished(place.begun)
        out = Word(NEVER)
        for top, below in self._heads(place.state):
            if top.has(low, high):
                n_bytes, text = self._rests[below]
                text = word_of(top, low, high)[-n_missing:] + text if n_bytes <= LONG else b""
                out = min(out, Word(n_bytes + n_missing, text), key=Word.rank)
        return out

    def _step(self, state: int, letter: int) -> int:
        key = (state, letter)
        if key not in self._steps:
            nexts = {below for top, below in self._heads(state) if top.has(letter, letter)}
            self._steps[key] = self._state(frozenset(nexts)) if nexts else -1
        return self._steps[key]

    def _heads(self, state: int) -> Iterator[tuple[Chars, int]]:
        """What may come next, and the stack that is left after it."""
        for stack in self._states[state]:
            for top, below in map(self._stacks.__getitem__, self._opened(stack)):
                if isinstance(top, Chars):
                    yield top, below

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
            self._rests.append(self._grammar.before(element, self._rests[below]))
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
