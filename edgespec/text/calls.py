"""Calls of functions in what a model says, told apart from its text as it comes.

Two ways to write them are known: between tags, as Hermes and Qwen do, and an answer that is nothing
but the call, as Llama 3 does. Both write a JSON object with a name and arguments. What looks like a
call and turns out to be none is text. Knows text alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

TAG, END = "<tool_call>", "</tool_call>"
PYTHON = "<|python_tag|>"  # may stand before a call of Llama's
# The head of a call as both write it, up to its arguments.
HEAD = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Called:
    """A part of a call: its name at the beginning, "" afterwards, and JSON of its arguments.

    index: of the call among those of the answer.
    """

    index: int
    name: str
    arguments: str


class Calls:
    """Splits one answer. tagged: how its calls are written; is_open: it begins within one."""

    def __init__(self, *, tagged: bool, is_open: bool = False) -> None:
        self._tagged, self.n_calls = tagged, 0
        self._held = ""
        self._state = "call" if is_open else "text" if tagged else "begin"
        self._forced = is_open
        self._span = Span()

    def feed(self, text: str) -> list[str | Called]:
        """The parts that can be told by now: texts, none empty, and parts of calls."""
        self._held += text
        found: list[str | Called] = []
        before = ""
        while before != (before := f"{self._state} {len(self._held)}"):
            found += getattr(self, f"_{self._state}")()
        return found

    def flush(self) -> list[str | Called]:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        if self._state == "call" and held.strip():
            return self._lone(held, final=True)
        is_text = self._state in ("text", "plain", "begin")
        return [held] if is_text and (held.strip() or (held and not self.n_calls)) else []

    def _begin(self) -> list[str | Called]:
        """Whether an answer without tags is a call."""
        said = self._held.lstrip()
        if said.startswith(PYTHON):
            self._held, self._state = said[len(PYTHON) :], "call"
        elif said.startswith("{"):
            self._state = "call"
        elif said and not PYTHON.startswith(said):
            self._state = "plain"
        return []

    def _plain(self) -> list[str | Called]:
        """Text to the end."""
        return self._out(len(self._held))

    def _text(self) -> list[str | Called]:
        """Text up to a tag, or up to what may become one."""
        at = self._held.find(TAG)
        if at >= 0:
            said = self._held[:at].rstrip()  # what is between them belongs to the tag
            self._held, self._state = self._held[at + len(TAG) :], "call"
            return [said] if said else []
        n = next((n for n in range(len(TAG) - 1, 0, -1) if self._held.endswith(TAG[:n])), 0)
        kept = self._held[: len(self._held) - n]
        n += len(kept) - len(kept.rstrip())  # space before a tag belongs to it
        return self._out(len(self._held) - n)

    def _out(self, n: int) -> list[str | Called]:
        said, self._held = self._held[:n], self._held[n:]
        return [said] if said else []

    def _call(self) -> list[str | Called]:
        """A call's head, then its arguments as they come; else the object once it is whole."""
        head = HEAD.match(self._held)
        if head is None:
            return self._lone(self._held, final=False)
        self._held, self._state, self._span = self._held[head.end() :], "arguments", Span()
        return [self._named(json.loads(head[1], strict=False), "")]

    def _lone(self, said: str, *, final: bool) -> list[str | Called]:
        """A call that is written in another order; text where it is none."""
        begin = len(said) - len(said.lstrip())
        try:
            whole, end = DECODER.raw_decode(said, begin)
        except (ValueError, RecursionError):
            is_over = final or (self._tagged and END in said)
            if not is_over:
                return []
            whole, end = None, len(said) if final else said.find(END)
        name = whole.get("name") if isinstance(whole, dict) else None
        if not isinstance(name, str):
            self._held = "" if final else said[end:]
            self._state = "tail" if self._tagged and not final else "plain"
            lead = TAG if self._tagged and not self._forced else ""
            closing = END if lead and not final else ""
            return [lead + said[:end] + closing]
        given = whole.get("arguments", whole.get("parameters", {}))
        written = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        self._held, self._state = "" if final else said[end:], "tail"
        return [self._named(name, written)]

    def _named(self, name: str, arguments: str) -> Called:
        self.n_calls += 1
        return Called(self.n_calls - 1, name, arguments)

    def _arguments(self) -> list[str | Called]:
        """The object of arguments, as far as it has come."""
        n = self._span.read(self._held)
        part, self._held = self._held[:n], self._held[n:]
        if self._span.over:
            self._state = "tail"
        return [Called(self.n_calls - 1, "", part)] if part else []

    def _tail(self) -> list[str | Called]:
        """What ends a call; after it there may be another."""
        self._held = self._held.lstrip("} \n\t\r;," if not self._tagged else "} \n\t\r")
        if self._tagged and self._held.startswith(END):
            self._held, self._state = self._held[len(END) :], "text"
        elif self._tagged and self._held.startswith(TAG):
            self._state = "text"
        elif self._tagged and self._held and not END.startswith(self._held):
            self._state = "text" if not TAG.startswith(self._held) else "tail"
        elif not self._tagged and self._held:
            self._state = "begin"
        return []


class Span:
    """Finds where a JSON object ends, as it comes."""

    def __init__(self) -> None:
        self.over = False
        self._depth, self._quoted, self._escaped = 0, False, False

    def read(self, text: str) -> int:
        """How many of these letters belong to it."""
        for at, letter in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = letter == "\\", letter != '"'
            elif letter == '"':
                self._quoted = True
            else:
                self._depth += (letter in "{[") - (letter in "]}")
                if not self._depth:
                    self.over = True
                    return at + 1
        return len(text)
