"""What /v1/responses takes as the conversation and its tools, in the terms of chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgespec.server.fields import required
from edgespec.server.refusal import Refusal

PARTS = ("input_text", "output_text", "text")  # of a message's content, all of them text
OWN = (
    "name",
    "description",
    "parameters",
    "strict",
)  # of a function, which has no level of its own


def messages_of(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation that instructions and input make. Raises: Refusal."""
    said = required(given, "input")
    items: Sequence[Any] = [{"role": "user", "content": said}] if isinstance(said, str) else said
    found = list[dict[str, Any]]()
    if given.get("instructions"):
        found.append({"role": "system", "content": given["instructions"]})
    for item in items:
        kind = item.get("type", "message") if isinstance(item, Mapping) else None
        if kind == "function_call":
            add_call(found, item)
        elif kind == "function_call_output":
            answer = {"role": "tool", "tool_call_id": item.get("call_id")}
            found.append({**answer, "content": text_of(item.get("output"))})
        elif kind == "message":
            found.append({"role": item.get("role"), "content": text_of(item.get("content"))})
        elif kind != "reasoning":  # which is of an earlier answer, and says nothing here
            seen = f"input has {item!r:.60}"
            expected = "messages with role and content, function_call or function_call_output"
            raise Refusal(400, f"{seen}: expected {expected}", param="input", code="invalid_value")
    return found


def add_call(found: list[dict[str, Any]], item: Mapping[str, Any]) -> None:
    """A call belongs to the message of the assistant before it, if there is one."""
    function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": None})
    found[-1].setdefault("tool_calls", []).append(call)


def text_of(content: Any) -> Any:
    """A message's content, its parts joined. Raises: Refusal for what is not text."""
    if not isinstance(content, list):
        return content
    known = [p for p in content if isinstance(p, Mapping) and p.get("type") in PARTS]
    if len(known) < len(content):
        seen = f"input has content {content!r:.60}: expected text; this is no vision model"
        raise Refusal(400, seen, param="input", code="invalid_value")
    return "".join(str(part.get("text", "")) for part in known)


def tools_of(given: Mapping[str, Any]) -> list[Any]:
    """The tools as chat completions have them. Raises: Refusal for other kinds."""
    found = []
    for tool in given.get("tools", []):
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            seen = f"tools has {tool!r:.60}: expected functions; no other tool runs here"
            raise Refusal(400, seen, param="tools", code="unsupported_parameter")
        function = {name: tool[name] for name in OWN if name in tool}
        found.append({"type": "function", "function": function})
    return found


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
