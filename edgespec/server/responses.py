"""POST /v1/responses, text and calls of functions: OpenAI's newer shape over the same generations.

No answer is kept, so none can be continued by its id: the conversation comes with each request.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from edgespec.server.asked import Served, beginner, passed
from edgespec.server.items import Event, FunctionCall, Item, Message, Reasoning
from edgespec.server.refusal import Refusal
from edgespec.server.said import form_of, messages_of, tools_of
from edgespec.server.work import Work, event
from edgespec.session.completion import Begun, Saying, scored, timings
from edgespec.session.question import prompt_of
from edgespec.session.request import ChatOptions, request_of
from edgespec.session.shape import Delta

ECHOED = ("instructions", "max_output_tokens", "temperature", "top_p")
SCORES = "message.output_text.logprobs"  # what `include` has where they are wanted


def whole(served: Served, given: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """The answer in one piece."""
    *_, (_, last) = told(served, given, work)
    return cast(dict[str, Any], last["response"])


def parts(served: Served, given: Mapping[str, Any], work: Work) -> Iterator[str]:
    """Its events, each with a name and a number."""
    for number, (name, more) in enumerate(told(served, given, work)):
        numbered = {"type": name, "sequence_number": number, **more}
        yield f"event: {name}\n" + event(numbered).decode()


def told(served: Served, given: Mapping[str, Any], work: Work) -> Iterator[Event]:
    """What happens, in order; the last one has all of the answer."""
    asked = begin(served, given, work)
    reply = Reply(served, given, asked.n_prompt)
    for name in ("response.created", "response.in_progress"):
        yield name, {"response": reply.body("in_progress")}
    for piece in asked.begun.pieces:
        reply.n_thoughts += piece.is_thought
        if not piece.is_thought:
            reply.scores += scored(piece.scores, served.token_bytes)
        for delta in asked.saying.deltas(piece):
            yield from reply.add(delta)
    for delta in asked.saying.rest():
        yield from reply.add(delta)
    yield from reply.done(asked.begun)


@dataclass(frozen=True)
class Asked:
    """A generation, its prompt's tokens, and what tells its calls from its text."""

    begun: Begun
    n_prompt: int
    saying: Saying


def begin(served: Served, given: Mapping[str, Any], work: Work) -> Asked:
    """The generation. Raises: Refusal, UsageError, ContextError."""
    found = {**passed(given), "tools": tools_of(given), "tool_choice": given.get("tool_choice")}
    found["max_tokens"] = given.get("max_output_tokens")
    found |= scores_of(given)
    if (form := form_of(given.get("text", {}))) is not None:
        found["response_format"] = form
    if given.get("reasoning", {}).get("effort") in ("none", "minimal"):
        found["think"] = "off"
    request = request_of(cast(ChatOptions, found), stream=False)
    request = replace(request, options=served.limited(request.options))
    answering = served.answering
    config = answering.with_options(request.options)
    config = replace(config, stop=(*config.stop, *answering.template.stop))
    ids = prompt_of(answering, messages_of(given), request, config)
    calls = None if request.tools is None else partial(request.tools.reader, answering.template)
    begun = beginner(served, work, ids, config, request.options)(0)
    return Asked(begun, len(ids), Saying(calls))


def scores_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What asks for log probabilities. Raises: Refusal."""
    n_top, wanted = given.get("top_logprobs", 0), SCORES in given.get("include", [])
    if n_top and not wanted:
        text = f'top_logprobs is {n_top}: expected include to have "{SCORES}" as well'
        raise Refusal(400, text, param="top_logprobs", code="invalid_value")
    return {"logprobs": wanted, "top_logprobs": n_top}


class Reply:
    """One answer in this shape. n_prompt: tokens of its prompt; n_thoughts: of its thoughts.

    scores: of the tokens of what is said next, if they were asked for; those of calls are not told.
    """

    def __init__(self, served: Served, given: Mapping[str, Any], n_prompt: int) -> None:
        self._served, self._given, self._n_prompt = served, given, n_prompt
        self._id, self._created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self._items, self.n_thoughts, self._space = list[Item](), 0, ""
        self.scores = list[Any]()

    def add(self, delta: Delta) -> Iterator[Event]:
        """More of the answer."""
        thought = self._space + delta.get("reasoning_content", "")
        self._space = "" if thought.strip() else thought  # which alone is no thought
        if thought.strip():
            yield from self._said(Reasoning, thought)
        if text := delta.get("content", ""):
            yield from self._said(Message, text)
        for part in delta.get("tool_calls", ()):
            self.scores = []
            if "id" in part:
                yield from self._next(FunctionCall(len(self._items), part))
            yield from self._items[-1].added(part["function"]["arguments"])

    def _said(self, kind: type[Message | Reasoning], text: str) -> Iterator[Event]:
        """More of an item of this kind, a new one where the last is another."""
        if not self._items or not isinstance(self._items[-1], kind):
            yield from self._next(kind(len(self._items)))
        last = self._items[-1]
        if isinstance(last, Message):
            last.new, self.scores = self.scores, []
        yield from last.added(text)

    def _next(self, item: Item) -> Iterator[Event]:
        """The item before it is over."""
        if self._items:
            yield from self._items[-1].ended("completed")
        self._items.append(item)
        yield from item.begun()

    def done(self, begun: Begun) -> Iterator[Event]:
        """That the answer is over, once its pieces have come."""
        is_whole = begun.result.finish == "stop"
        status = "completed" if is_whole else "incomplete"
        if not self._items:
            yield from self._next(Message(0))
        yield from self._items[-1].ended(status)
        n_out, counted = len(begun.result.output), begun.counted()
        body = self.body(status)
        body["output"] = [item.body("completed") for item in self._items[:-1]]
        body["output"].append(self._items[-1].body(status))
        body["incomplete_details"] = None if is_whole else {"reason": "max_output_tokens"}
        body["usage"] = {
            "input_tokens": self._n_prompt,
            "input_tokens_details": {"cached_tokens": self._n_prompt - counted.n_prompt},
            "output_tokens": n_out,
            "output_tokens_details": {"reasoning_tokens": self.n_thoughts},
            "total_tokens": self._n_prompt + n_out,
        }
        yield f"response.{status}", {"response": {**body, "timings": timings([counted])}}

    def body(self, status: str) -> dict[str, Any]:
        """The answer as far as it is known."""
        given = self._given
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            **{name: given.get(name) for name in ECHOED},
            "model": self._served.name,
            "output": [],
            "parallel_tool_calls": given.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "store": False,
            "tool_choice": given.get("tool_choice", "auto"),
            "tools": given.get("tools", []),
            "truncation": "disabled",
            "text": given.get("text", {"format": {"type": "text"}}),
            "metadata": given.get("metadata", {}),
            "usage": None,
        }
