"""A regular expression as a grammar: strings in JSON that a schema's `pattern` describes.

What ECMA-262 and Python have in common and a grammar can say: characters, classes, groups,
alternatives, repetitions, ^ and $ at the ends. Everything else is refused. As in the schema's
other rules, every text of the grammar fits, not the other way round: characters are escaped only
where JSON asks for it, and control characters only if they are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from edgespec.errors import UsageError
from edgespec.grammar.gbnf import Grammar

Ranges = list[tuple[int, int]]
TOKEN = re.compile(r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\.|\(\?:|\(\?P?<\w+>|.", re.DOTALL)
OFTEN = re.compile(r"(?:[*+?]|\{(\d+)(,?)(\d*)\})\??")
LAST = 0x10FFFF
CLASSES: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
          (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)],
    ".": [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)],  # all but these
}  # fmt: skip
CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
SHORT = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r"}  # how JSON escapes them
LEAST, MANY = 2000, 5000  # of repetitions that must and that may be: llama.cpp writes all out


def gbnf_of_pattern(pattern: str, char: str) -> str:
    """The strings, without their quotes, in which `pattern` is found. char: a rule of any one.

    Raises: UsageError for what is no regular expression, or more than one.
    """
    reader = Reader(pattern)
    bodies = list(reader.alternatives(char))
    if reader.left:
        reader.refuse(reader.left[0], "the end of the pattern there")
    return " | ".join(bodies)


class Reader:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.left = TOKEN.findall(pattern)  # tokens not yet read
        self._deep = 0

    def refuse(self, seen: str, expected: str) -> NoReturn:
        raise UsageError(f"pattern {self._pattern[:40]!r}: {seen!r}: expected {expected}")

    def alternatives(self, char: str = "") -> Iterator[str]:
        """Bodies up to a closing parenthesis. char: put where an end is not anchored; "" never."""
        while True:
            begins = bool(char) and self._sees("^")
            body = self._sequence()
            ends = bool(char) and self._sees("$")
            around = ("" if begins else f"{char}*", body, "" if ends else f"{char}*")
            yield (" ".join(filter(None, around)) if char else body) or '""'
            if not self._sees("|"):
                return

    def _sees(self, token: str) -> bool:
        found = self.left[:1] == [token]
        del self.left[:found]
        return found

    def _sequence(self) -> str:
        out = []
        while self.left and self.left[0] not in ("|", ")", "$"):
            item, often = self._item(), self._often()
            if often[:1] in ("*", "+") or often.endswith(",}"):
                self._check_not_empty(item, often)
            out.append(item + often)
        return " ".join(out)

    def _check_not_empty(self, item: str, often: str) -> None:
        """llama.cpp takes what may be empty and goes on without end for left recursion."""
        if item.startswith("(") and not Grammar(f"root ::= {item}").words["root"].n_bytes:
            self.refuse(often, "a group that is not empty before it")

    def _item(self) -> str:
        token = self.left.pop(0)
        if token == "[":
            return written(self._set(), self)
        if token.startswith("("):
            return f"({self._group(token)})"
        if token in "^*+?{}])":
            self.refuse(token, "a character, a class or a group; write \\ before a sign")
        return written(negated(CLASSES["."]) if token == "." else self._ranges(token), self)

    def _group(self, token: str) -> str:
        self._deep += 1
        if self._deep > 50 or (token == "(" and self.left[:1] == ["?"]):
            self.refuse("(" + "".join(self.left[:3]), "a plain group, at most 50 deep")
        body = " | ".join(self.alternatives())
        if not self._sees(")"):
            self.refuse("".join(self.left[:1]) or "the end", "a parenthesis )")
        self._deep -= 1
        return body

    def _often(self) -> str:
        """How often the last item comes, in the notation of grammars, lazy or not."""
        found = OFTEN.match("".join(self.left[:14]))
        if found is None:
            return ""
        del self.left[: len(found.group())]  # each of its characters is a token
        least, comma, most = found.groups()
        if least is None:
            return found.group()[0]
        low, high = int(least), int(most or least)
        if low > LEAST or not low <= high <= MANY:
            self.refuse(found.group(), f"repetitions from up to {LEAST} to {MANY}")
        return f"{{{low}}}" if not comma else f"{{{low},{high if most else ''}}}"

    def _set(self) -> Ranges:
        """What stands in brackets."""
        is_not, out = self._sees("^"), Ranges()
        while self.left and self.left[0] != "]":
            low = self._ranges(self.left.pop(0))
            if self.left[:1] == ["-"] and self.left[1:2] not in ([], ["]"]):
                high = self._ranges(self.left[1])
                if not low[0][0] == low[-1][1] <= high[0][0] == high[-1][1]:
                    self.refuse("-" + self.left[1], "a range of two characters")
                low, self.left[:2] = [(low[0][0], high[0][0])], []
            out += low
        if not self._sees("]"):
            self.refuse("the end", "a bracket ]")
        return negated(out) if is_not else out

    def _ranges(self, token: str) -> Ranges:
        """The characters of one token, in brackets or not."""
        name = token[1:]
        if token == "\\":
            self.refuse(token, "a character after it")
        if not name:
            return [(ord(token), ord(token))]
        if name.lower() in CLASSES and name != ".":
            known = CLASSES[name.lower()]
            return known if name.islower() else negated(known)
        if len(name) > 1:
            code = int(name[1:], 16)
        else:
            code = CONTROLS.get(name, ord(name))
            if name not in CONTROLS and (name.isalnum() or name == "_"):
                self.refuse(token, "no such escape")
        return [(code, code)]


def negated(ranges: Ranges) -> Ranges:
    """All other characters but the controls."""
    out, start = Ranges(), 0x20
    for low, high in sorted([*ranges, (0x7F, 0x7F), (0xD800, 0xDFFF)]):
        if low > start:
            out.append((start, low - 1))
        start = max(start, high + 1)
    return [*out, (start, LAST)] if start <= LAST else out


def written(ranges: Ranges, reader: Reader) -> str:
    """One character of these as JSON has it in a string."""
    named = {one for low, high in ranges for one in range(low, min(high, 0x5C) + 1)}
    escaped = [SHORT[one] for one in sorted(named & SHORT.keys())]
    parts = [f'"\\\\{letter}"' for letter in escaped]
    parts += [r'"\\\""'] * (0x22 in named) + [r'"\\\\"'] * (0x5C in named)
    plain = ""
    for low, high in negated(negated(ranges)):
        for first, last in ((low, 0x21), (0x23, 0x5B), (0x5D, LAST)):
            first, last = max(low, first), min(high, last)
            if first <= last:
                plain += f"\\U{first:08X}" + (f"-\\U{last:08X}" if last > first else "")
    parts += [f"[{plain}]"] * bool(plain)
    if not parts:
        reader.refuse("a class", "one of characters that a string in JSON can hold")
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"
