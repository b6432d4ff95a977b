"""POST /v1/responses, the part that is text: OpenAI's newer shape over the same generations.

No answer is kept, so none can be continued by its id: the conversation comes with each request.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from edgespec.option import Options
from edgespec.server.asked import Served, beginner, passed
from edgespec.server.fields import required
from edgespec.server.refusal import Refusal
from edgespec.server.work import Work, event
from edgespec.session.call import thoughts
from edgespec.session.completion import Begun, timings
from edgespec.session.request import schema_of

PARTS = ("input_text", "output_text", "text")  # of a message's content, all of them text
ECHOED = ("instructions", "max_output_tokens", "temperature", "top_p")


def whole(served: Served, given: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """The answer in one piece."""
    reply = Reply(served, given)
    begun, reply.n_prompt = begin(served, given, work)
    for piece in begun.pieces:
        reply.add(piece.text, piece.is_thought)
    return reply.done(begun)


def parts(served: Served, given: Mapping[str, Any], work: Work) -> Iterator[str]:
    """Its events, each with a name and a number."""
    reply = Reply(served, given)
    begun, reply.n_prompt = begin(served, given, work)
    yield reply.event("response.created", {"response": reply.body("in_progress")})
    yield reply.event("response.in_progress", {"response": reply.body("in_progress")})
    place = {"item_id": reply.item, "output_index": 0}
    yield reply.event(
        "response.output_item.added", {"output_index": 0, "item": reply.message("in_progress")}
    )
    part = {**place, "content_index": 0}
    yield reply.event("response.content_part.added", {**part, "part": text_part("")})
    for piece in begun.pieces:
        reply.add(piece.text, piece.is_thought)
        if not piece.is_thought:
            more = {"delta": piece.text, "logprobs": []}
            yield reply.event("response.output_text.delta", {**part, **more})
    body = reply.done(begun)
    text = {"text": reply.text, "logprobs": []}
    yield reply.event("response.output_text.done", {**part, **text})
    yield reply.event("response.content_part.done", {**part, "part": text_part(reply.text)})
    item = reply.message(body["status"])
    yield reply.event("response.output_item.done", {"output_index": 0, "item": item})
    yield reply.event(f"response.{body['status']}", {"response": body})


class Reply:
    """One answer in this shape. n_prompt: tokens of its prompt."""

    def __init__(self, served: Served, given: Mapping[str, Any]) -> None:
        self.item, self.text, self.n_prompt = f"msg_{uuid.uuid4().hex}", "", 0
        self._served, self._given = served, given
        self._id, self._created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self._n_events = self._n_thoughts = 0

    def add(self, text: str, is_thought: bool) -> None:
        """A piece; thoughts are counted and not told."""
        if is_thought:
            self._n_thoughts += 1
        else:
            self.text += text

    def event(self, name: str, more: Mapping[str, Any]) -> str:
        """One event, as it is sent."""
        numbered = {"type": name, "sequence_number": self._n_events, **more}
        self._n_events += 1
        return f"event: {name}\n" + event(numbered).decode()

    def message(self, status: str) -> dict[str, Any]:
        """The one item that an answer has."""
        content = [] if status == "in_progress" else [text_part(self.text)]
        kind = {"id": self.item, "type": "message", "role": "assistant"}
        return {**kind, "status": status, "content": content}

    def done(self, begun: Begun) -> dict[str, Any]:
        """The whole answer, once its pieces have come."""
        is_whole = begun.result.finish == "stop"
        body = self.body("completed" if is_whole else "incomplete")
        n_out = len(begun.result.output)
        body["output"] = [self.message(body["status"])]
        body["incomplete_details"] = None if is_whole else {"reason": "max_output_tokens"}
        body["usage"] = {
            "input_tokens": self.n_prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": n_out,
            "output_tokens_details": {"reasoning_tokens": self._n_thoughts},
            "total_tokens": self.n_prompt + n_out,
        }
        return {**body, "timings": timings([begun.counted()])}

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
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
            "text": given.get("text", {"format": {"type": "text"}}),
            "metadata": {},
            "usage": None,
        }


def text_part(text: str) -> dict[str, Any]:
    """A message's content."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def begin(served: Served, given: Mapping[str, Any], work: Work) -> tuple[Begun, int]:
    """The generation, and its prompt's tokens. Raises: Refusal, UsageError, ContextError."""
    if given.get("tools") or given.get("tool_choice", "none") not in ("none", "auto"):
        text = "tools: expected them in /v1/chat/completions; here there is text alone"
        raise Refusal(400, text, param="tools", code="unsupported_parameter")
    found = passed(given)
    if (n_tokens := given.get("max_output_tokens")) is not None:
        found["max_tokens"] = n_tokens
    if (form := form_of(given.get("text", {}))) is not None:
        found |= {"json_schema": schema_of(form), "grammar": ""}
    if given.get("reasoning", {}).get("effort") in ("none", "minimal"):
        found["think"] = "off"
    options = served.limited(cast(Options, found))
    answering = served.answering
    config = answering.with_options(options)
    config = replace(config, stop=(*config.stop, *answering.template.stop))
    ids = answering.prompt(messages_of(given), thoughts(config))
    return beginner(served, work, ids, config, options)(0), len(ids)


def form_of(text: Mapping[str, Any]) -> dict[str, Any] | None:
    """The wanted form as chat completions name it, None for plain text. Raises: Refusal."""
    form = text.get("format")
    if form is None:
        return None
    if not isinstance(form, Mapping):
        seen = f"text.format is {form!r:.40}: expected an object with a type"
        raise Refusal(400, seen, param="text.format", code="invalid_value")
    if form.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {"schema": form.get("schema")}}
    return dict(form)


def messages_of(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation that instructions and input make. Raises: Refusal."""
    said = required(given, "input")
    items: Sequence[Any] = [{"role": "user", "content": said}] if isinstance(said, str) else said
    begin = (
        [{"role": "system", "content": given["instructions"]}] if given.get("instructions") else []
    )
    return [*begin, *(message_of(item) for item in items)]


def message_of(item: Any) -> dict[str, Any]:
    """One item of the input as a message. Raises: Refusal."""
    if not isinstance(item, Mapping) or item.get("type", "message") != "message":
        seen = f"input has {item!r:.60}: expected messages with role and content"
        raise Refusal(400, seen, param="input", code="invalid_value")
    content = item.get("content")
    if isinstance(content, list):
        known = [p for p in content if isinstance(p, Mapping) and p.get("type") in PARTS]
        if len(known) < len(content):
            seen = f"input has content {content!r:.60}: expected text; this is no vision model"
            raise Refusal(400, seen, param="input", code="invalid_value")
        content = "".join(str(part.get("text", "")) for part in known)
    return {"role": item.get("role"), "content": content}
