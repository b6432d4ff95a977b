"""What an answer of /v1/responses is made of: thoughts, a message or a call."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

Event = tuple[str, dict[str, Any]]
"""A name and the fields beside it."""


class Item(ABC):
    """One of them, with its place in the answer. text: what was said, or a call's arguments."""

    kind, prefix = "", ""

    def __init__(self, index: int) -> None:
        self.index, self.id, self.text = index, f"{self.prefix}_{uuid.uuid4().hex}", ""

    @property
    def place(self) -> dict[str, Any]:
        """What its events name it by."""
        return {"item_id": self.id, "output_index": self.index}

    def body(self, status: str) -> dict[str, Any]:
        """As it stands in the answer."""
        return {"id": self.id, "type": self.kind, "status": status}

    def begun(self) -> Iterator[Event]:
        """That it begins."""
        yield "response.output_item.added", {
            "output_index": self.index, "item": self.body("in_progress")
        }  # fmt: skip

    @abstractmethod
    def added(self, text: str) -> Iterator[Event]:
        """More of it."""

    def ended(self, status: str) -> Iterator[Event]:
        """That it is over."""
        yield "response.output_item.done", {"output_index": self.index, "item": self.body(status)}


class Written(Item):
    """One that has text as its only part."""

    said = ""  # the events that tell more of it, and that it is over, begin so

    @abstractmethod
    def part(self) -> dict[str, Any]:
        """The part, with what it has by now."""

    def begun(self) -> Iterator[Event]:
        """See Item."""
        yield from super().begun()
        yield "response.content_part.added", {**self._at, "part": self.part()}

    def added(self, text: str) -> Iterator[Event]:
        """See Item."""
        self.text += text
        yield f"{self.said}.delta", {**self._at, "delta": text}

    def ended(self, status: str) -> Iterator[Event]:
        """See Item."""
        yield f"{self.said}.done", {**self._at, "text": self.text}
        yield "response.content_part.done", {**self._at, "part": self.part()}
        yield from super().ended(status)

    @property
    def _at(self) -> dict[str, Any]:
        return {**self.place, "content_index": 0}


class Message(Written):
    """Text. scores: log probabilities of its tokens; `new` of them are not told yet."""

    kind, prefix, said = "message", "msg", "response.output_text"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.scores, self.new = list[Any](), list[Any]()

    def body(self, status: str) -> dict[str, Any]:
        """See Item."""
        content = [] if status == "in_progress" else [self.part()]
        return {**super().body(status), "role": "assistant", "content": content}

    def part(self) -> dict[str, Any]:
        """See Written."""
        more = {"annotations": [], "logprobs": self.scores}
        return {"type": "output_text", "text": self.text, **more}

    def added(self, text: str) -> Iterator[Event]:
        """See Item."""
        self.scores += self.new
        for name, more in super().added(text):
            yield name, {**more, "logprobs": self.new}
        self.new = []

    def ended(self, status: str) -> Iterator[Event]:
        """See Item."""
        (name, more), *rest = super().ended(status)
        yield name, {**more, "logprobs": self.scores}
        yield from rest


class Reasoning(Written):
    """Thoughts before the answer, which nobody sums up."""

    kind, prefix, said = "reasoning", "rs", "response.reasoning_text"

    def body(self, status: str) -> dict[str, Any]:
        """See Item."""
        content = [] if status == "in_progress" else [self.part()]
        return {**super().body(status), "summary": [], "content": content}

    def part(self) -> dict[str, Any]:
        """See Written."""
        return {"type": "reasoning_text", "text": self.text}


class FunctionCall(Item):
    """A call of a function."""

    kind, prefix = "function_call", "fc"

    def __init__(self, index: int, begin: Mapping[str, Any]) -> None:
        """begin: the delta that names it."""
        super().__init__(index)
        self._call_id, self._name = begin["id"], begin["function"]["name"]

    def body(self, status: str) -> dict[str, Any]:
        """See Item."""
        more = {"call_id": self._call_id, "name": self._name, "arguments": self.text}
        return {**super().body(status), **more}

    def added(self, text: str) -> Iterator[Event]:
        """See Item."""
        self.text += text
        if text:
            yield "response.function_call_arguments.delta", {**self.place, "delta": text}

    def ended(self, status: str) -> Iterator[Event]:
        """See Item."""
        more = {"name": self._name, "arguments": self.text}
        yield "response.function_call_arguments.done", {**self.place, **more}
        yield from super().ended(status)
