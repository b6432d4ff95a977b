"""What an answer of /v1/responses is made of: a message or a call, and its events as it comes."""

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


class Message(Item):
    """Text."""

    kind, prefix = "message", "msg"

    def body(self, status: str) -> dict[str, Any]:
        """See Item."""
        content = [] if status == "in_progress" else [text_part(self.text)]
        return {**super().body(status), "role": "assistant", "content": content}

    def begun(self) -> Iterator[Event]:
        """See Item."""
        yield from super().begun()
        yield "response.content_part.added", {**self._part, "part": text_part("")}

    def added(self, text: str) -> Iterator[Event]:
        """See Item."""
        self.text += text
        yield "response.output_text.delta", {**self._part, "delta": text, "logprobs": []}

    def ended(self, status: str) -> Iterator[Event]:
        """See Item."""
        yield "response.output_text.done", {**self._part, "text": self.text, "logprobs": []}
        yield "response.content_part.done", {**self._part, "part": text_part(self.text)}
        yield from super().ended(status)

    @property
    def _part(self) -> dict[str, Any]:
        return {**self.place, "content_index": 0}


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


def text_part(text: str) -> dict[str, Any]:
    """A message's content."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
