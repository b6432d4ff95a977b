"""What a call of `create_chat_completion` asks for, in llama-cpp-python's or OpenAI's terms.

Knows names and values alone; what comes out is in completion.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from numbers import Integral
from typing import Any, cast

from edgespec.config import check_known
from edgespec.errors import UsageError
from edgespec.option import CONSTRAINTS, Options
from edgespec.session.tools import Tools, tools_of

Message = Mapping[str, Any]
TYPES = ("text", "json_object", "json_schema")
WHOLE_CONTEXT = 1 << 30  # more tokens than any context has
STREAMING = {"include_usage", "include_obfuscation"}  # the latter changes nothing here


class ChatOptions(Options, total=False):
    """What a call of `Session.create_chat_completion` may choose beside the options of `chat`.

    response_format: {"type": "json_object"}, perhaps with a "schema", or {"type": "json_schema",
    "json_schema": {"schema": ...}}. n: answers, with a seed one more for each. stream_options:
    {"include_usage": True} for the counts in a last chunk. max_completion_tokens: max_tokens.
    chat_template_kwargs: for the chat template besides, as in {"enable_thinking": False}.
    tools: functions that the model may call; tool_choice: auto, none, required or one of them by
    name, whose arguments then fit their schema. typical_p: 1.0, which is off. model, user and
    parallel_tool_calls are ignored. Of llama-cpp-python's arguments functions, tfs_z, mirostat_*
    and logits_processor are not known.
    """

    logprobs: bool | None
    top_logprobs: int | None
    response_format: Mapping[str, Any] | None
    n: int | None
    max_completion_tokens: int | None
    stream_options: Mapping[str, Any] | None
    chat_template_kwargs: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    typical_p: float | None
    model: str | None
    user: str | None


OWN = ChatOptions.__annotations__.keys() - Options.__annotations__.keys()


@dataclass(frozen=True)
class Request:
    """A call in the terms of `Session.chat`, and the shape that its answers take.

    drafted: each part of a stream says whether it was drafted. tools: that may be called.
    """

    options: Options
    n: int = 1
    logprobs: bool = False
    usage: bool = False
    drafted: bool = False
    template: Mapping[str, Any] = field(default_factory=dict)
    tools: Tools | None = None


def request_of(given: ChatOptions, *, stream: bool) -> Request:
    """What a call in llama-cpp-python's or OpenAI's terms asks for.

    A negative or zero max_tokens means up to the end of the context; a negative seed counts as none
    given: the session's own, or a fresh one. Raises: UsageError.
    """
    check_known(given, tuple(ChatOptions.__annotations__), "create_chat_completion")
    out = cast(Options, {name: value for name, value in given.items() if name not in OWN})
    logprobs = bool(given.get("logprobs"))
    if logprobs:
        out["n_top"] = checked_count("top_logprobs", given.get("top_logprobs") or 0, 0)
    tools = tools_of(given.get("tools"), given.get("tool_choice"))
    out.update(constraint_of(given, tools))
    n_tokens, seed = limit_of(given), given.get("seed")
    if n_tokens is not None:
        out["max_tokens"] = n_tokens if n_tokens > 0 else WHOLE_CONTEXT
    if seed is not None and checked_count("seed", seed) < 0:
        out["seed"] = None
    if given.get("typical_p") not in (None, 1):
        raise UsageError(
            f"typical_p is {given['typical_p']!r}: expected 1.0, which is off; choose by "
            "temperature, top_k, top_p or min_p"
        )
    more = given.get("chat_template_kwargs") or {}
    if not isinstance(more, Mapping) or not all(isinstance(name, str) for name in more):
        raise UsageError(
            f'chat_template_kwargs is {more!r:.60}: expected an object, as {{"enable_thinking": '
            "False}"
        )
    n = checked_count("n", 1 if given.get("n") is None else given["n"], 1)
    usage = wants_usage(given.get("stream_options"), stream=stream)
    return Request(out, n, logprobs, usage, template=more, tools=tools)


def limit_of(given: ChatOptions) -> int | None:
    """max_tokens by either name. Raises: UsageError where both are given and differ."""
    asked = {
        "max_tokens": given.get("max_tokens"),
        "max_completion_tokens": given.get("max_completion_tokens"),
    }
    found = {checked_count(name, n) for name, n in asked.items() if n is not None}
    if len(found) > 1:
        raise UsageError(
            f"max_tokens is {given['max_tokens']!r}, max_completion_tokens "
            f"{given['max_completion_tokens']!r}: expected one of them; leave the other out"
        )
    return found.pop() if found else None


def wants_usage(options: Mapping[str, Any] | None, *, stream: bool) -> bool:
    """Whether a stream ends with the token counts. Raises: UsageError."""
    if options is None:
        return False
    if not isinstance(options, Mapping) or options.keys() - STREAMING or not stream:
        seen = f"stream_options {options!r:.60}" + " without stream" * (not stream)
        raise UsageError(f'{seen}: expected {{"include_usage": True}}, with stream=True')
    return bool(options.get("include_usage"))


def checked_count(name: str, n: object, least: float = -inf) -> int:
    """A whole number that was given. Raises: UsageError."""
    if isinstance(n, bool) or not isinstance(n, Integral) or int(n) < least:
        more = f", {least} or more" if least > -inf else ""
        raise UsageError(f"{name} is {n!r:.60}: expected a whole number{more}")
    return int(n)


def plain(messages: Sequence[Message]) -> list[Message]:
    """Messages whose content is a list of text parts, with the parts joined.

    Raises: UsageError for messages that are no list, or parts that are not text.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise UsageError(f"messages is {messages!r:.60}: expected a list of role and content")
    return [joined(message) for message in messages]


def joined(message: Message) -> Message:
    """One message, its text parts joined."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list):
        return message
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise UsageError(f"content part {part!r:.60}: expected text; this is no vision model")
    return {**message, "content": "".join(str(part.get("text", "")) for part in content)}


def constraint_of(given: ChatOptions, tools: Tools | None) -> Options:
    """JSON schema and grammar of this answer, "" for none; left out where they are the session's.

    Raises: UsageError for more than one form of an answer.
    """
    asked = given.get("response_format")
    schema, what = None if asked is None else schema_of(asked), "response_format"
    if tools is not None and tools.forced:
        if schema:
            raise UsageError("response_format with a tool that has to be called: expected one")
        schema, what = tools.schema, "a tool that has to be called"
    own = {name: form for name in CONSTRAINTS if (form := given.get(name)) not in (None, "")}
    if schema and own:
        raise UsageError(f"{what} and {next(iter(own))}: expected one of them")
    return cast(Options, {} if schema is None else {"json_schema": schema, "grammar": ""} | own)


def schema_of(response_format: Mapping[str, Any]) -> str:
    """The JSON schema that an answer of this form fits; "" for plain text.

    Raises: UsageError for a form that is neither text, json_object nor json_schema.
    """
    kind = response_format.get("type") if isinstance(response_format, Mapping) else response_format
    if not isinstance(response_format, Mapping) or kind not in TYPES:
        expected = ", ".join(f'{{"type": "{one}"}}' for one in TYPES)
        raise UsageError(f"response_format is of type {kind!r}: expected one of {expected}")
    if kind == "text":
        return ""
    schema: Any = response_format.get("schema", {})
    if kind == "json_schema":
        schema = response_format.get("json_schema", {})
        schema = schema.get("schema") if isinstance(schema, Mapping) else None
    if not isinstance(schema, Mapping):
        raise UsageError(
            f"response_format {dict(response_format)!r:.80}: expected a schema, as in "
            '{"type": "json_schema", "json_schema": {"schema": {...}}}'
        )
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise UsageError(f"response_format: {error}: expected a schema in plain JSON") from error
