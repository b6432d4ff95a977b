"""What a model says to itself before its answer, told apart from it as the text comes.

Thoughts stand between two tags at the beginning of an answer, and nowhere else; the first tag may
be the prompt's last word already. Knows text alone.
"""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"

Part = tuple[str, bool]
"""Text, and whether it is thought."""


class Thoughts:
    """Splits one answer. is_open: the prompt ended with the first tag."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._state = "thought" if is_open else "begin"
        self._held = ""  # what may be a tag, or space that stands before one or after one

    @property
    def is_between(self) -> bool:
        """Whether thoughts are over and no answer has begun."""
        return self._state == "after"

    def feed(self, text: str) -> list[Part]:
        """The parts that can be told by now, none empty."""
        self._held += text
        if self._state == "begin":
            self._begin()
        found: list[Part] = []
        if self._state == "thought":
            found += self._thought()
        if self._state == "after":
            self._held = self._held.lstrip()
            self._state = "answer" if self._held else "after"
        if self._state == "answer" and self._held:
            found.append((self._held, False))
            self._held = ""
        return found

    def flush(self) -> list[Part]:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        is_lost = self._state == "after" or not held
        return [] if is_lost else [(held, self._state == "thought")]

    def _begin(self) -> None:
        """Whether it begins with thoughts."""
        said = self._held.lstrip()
        if said.startswith(OPEN):
            self._state, self._held = "thought", said[len(OPEN) :]
        elif not OPEN.startswith(said):
            self._state = "answer"

    def _thought(self) -> list[Part]:
        """Thoughts up to the tag that ends them, or up to what may become it."""
        said, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._state, self._held = "after", rest
        else:
            n = next((n for n in range(len(CLOSE) - 1, 0, -1) if said.endswith(CLOSE[:n])), 0)
            said, self._held = said[: len(said) - n], said[len(said) - n :]
        return [(said, True)] if said else []


class NoThoughts:
    """All is the answer: in the place of Thoughts where a model has none."""

    is_between = False

    def feed(self, text: str) -> list[Part]:
        """The text itself."""
        return [(text, False)] if text else []

    def flush(self) -> list[Part]:
        """Nothing waits."""
        return []
