"""Functions that a model may call: how a chat template is told of them, how calls are forced.

A template that knows tools is given them; for one that does not they are described in the system's
words, in the way of Hermes. Where a call is asked for, the prompt begins it and a grammar holds
its name and arguments to what was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgespec.errors import UsageError
from edgespec.session.prompt import Prompt
from edgespec.text.calls import END, TAG, Calls
from edgespec.text.template import ChatTemplate, Message
from edgespec.text.thoughts import CLOSE

MOST = 128
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
SAID = (
    "These functions can be called; each line describes one in JSON.\n{functions}\nTo call one, "
    'answer with its name and arguments, like this:\n<tool_call>\n{{"name": "...", "arguments": '
    "{{...}}}}\n</tool_call>"
)


@dataclass(frozen=True)
class Tools:
    """What a request gives. functions: as OpenAI's tools name them. forced: only these may be
    called, and one has to be; none where the model may choose.
    """

    functions: tuple[Mapping[str, Any], ...]
    forced: tuple[Mapping[str, Any], ...] = ()

    @property
    def schema(self) -> str:
        """Of a call that is forced, "" where none is."""
        if not self.forced:
            return ""
        many = len(self.forced) > 1
        calls = [
            schema_of_call(one, f"/anyOf/{i}" if many else "") for i, one in enumerate(self.forced)
        ]
        return json.dumps({"anyOf": calls} if many else calls[0])

    def reader(self, template: ChatTemplate) -> Calls:
        """What tells calls from text in an answer."""
        return Calls(tagged=is_tagged(template), is_open=bool(self.forced))

    def lead(self, template: ChatTemplate, prompt: Prompt) -> str:
        """What the prompt says of a forced answer."""
        thought = f"\n{CLOSE}\n\n" if prompt.is_open else ""
        return thought + (f"{TAG}\n" if is_tagged(template) else "") if self.forced else ""

    def more(self, template: ChatTemplate) -> dict[str, Any]:
        """What the template is told besides."""
        told: dict[str, Any] = {}
        if knows_tools(template):
            told["tools"] = [{"type": "function", "function": dict(one)} for one in self.functions]
        if self.forced and template.asks:
            told["enable_thinking"] = False
        return told


def tools_of(tools: Any, choice: Any) -> Tools | None:
    """What `tools` and `tool_choice` ask for, None where nothing may be called.

    Raises: UsageError.
    """
    if not isinstance(tools or [], list):
        raise UsageError(f"tools is {tools!r:.60}: expected a list of functions")
    functions = tuple(function_of(one) for one in tools or [])
    names = [one["name"] for one in functions]
    if len(functions) > MOST or len(set(names)) < len(names):
        raise UsageError(f"tools has {len(names)} functions: expected at most {MOST}, each once")
    if not functions:
        if choice not in (None, "none", "auto"):
            raise UsageError(f"tool_choice is {choice!r:.60} without tools: expected tools")
        return None
    if choice in (None, "auto"):
        return Tools(functions)
    if choice == "none":
        return None
    if choice == "required":
        return Tools(functions, functions)
    name = choice.get("function", choice) if isinstance(choice, Mapping) else choice
    name = name.get("name") if isinstance(name, Mapping) else None
    forced = tuple(one for one in functions if one["name"] == name)
    if not forced:
        raise UsageError(
            f"tool_choice is {choice!r:.80}: expected auto, none, required, or "
            f'{{"type": "function", "function": {{"name": ...}}}} with one of {", ".join(names)}'
        )
    return Tools(functions, forced)


def function_of(tool: Any) -> Mapping[str, Any]:
    """A tool's function. Raises: UsageError."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
        raise UsageError(
            f'tools has {tool!r:.60}: expected {{"type": "function", "function": {{"name": ...}}}}'
        )
    name, parameters = function.get("name"), function.get("parameters") or {}
    if not isinstance(name, str) or not name or not isinstance(parameters, Mapping):
        raise UsageError(
            f"tools has the function {function!r:.60}: expected a name, and as parameters a schema"
        )
    return function


def schema_of_call(function: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The schema of a call; place: where it will stand, which references have to name."""
    given = function.get("parameters") or NO_PARAMETERS
    arguments = moved(given, f"#{place}/properties/arguments")
    if "type" not in arguments and "properties" in arguments:
        arguments["type"] = "object"
    named = {"name": {"const": function["name"]}, "arguments": arguments}
    return {"type": "object", "properties": named, "required": ["name", "arguments"]}


def moved(schema: Any, place: str) -> Any:
    """A schema whose references to itself hold where it is a part of another."""
    if isinstance(schema, list):
        return [moved(one, place) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: moved(one, place) for key, one in schema.items()}
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#"):
        found["$ref"] = place + ref[1:]
    return found


def knows_tools(template: ChatTemplate) -> bool:
    """Whether a template says something of tools by itself."""
    return "tools" in template.source


def is_tagged(template: ChatTemplate) -> bool:
    """Whether calls stand between tags; else an answer is one."""
    return TAG in template.source or not knows_tools(template)


def with_calls(
    messages: Sequence[Message], tools: Tools | None, template: ChatTemplate
) -> list[Message]:
    """The conversation as its template can write it: with calls, their results, and the tools."""
    if knows_tools(template):
        as_objects = "tojson" in template.source
        return [parsed(one) if as_objects else one for one in messages]
    found = [spelled(one) for one in messages]
    if tools is None:
        return found
    functions = "\n".join(json.dumps(one, ensure_ascii=False) for one in tools.functions)
    said = SAID.format(functions=functions)
    if found and isinstance(found[0], Mapping) and found[0].get("role") == "system":
        first = {**found[0], "content": f"{found[0].get('content', '')}\n\n{said}"}
        return [first, *found[1:]]
    return [{"role": "system", "content": said}, *found]


def parsed(message: Message) -> Message:
    """With the arguments of its calls as objects, which templates write as JSON themselves."""
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    if not calls:
        return message
    return {**message, "tool_calls": [with_object(one) for one in calls_of(message)]}


def with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call with its arguments read."""
    function = dict(call["function"])
    function["arguments"] = arguments_of(function)
    return {**call, "function": function}


def spelled(message: Message) -> Message:
    """With calls and results as text, for a template that knows neither."""
    if not isinstance(message, Mapping):
        return message
    if message.get("role") == "tool":
        content = f"<tool_response>\n{message.get('content')}\n</tool_response>"
        return {"role": "user", "content": content}
    if not message.get("tool_calls"):
        return message
    texts = [str(message.get("content") or "")]
    for call in calls_of(message):
        function = call["function"]
        said = {"name": function.get("name"), "arguments": arguments_of(function)}
        texts.append(f"{TAG}\n{json.dumps(said, ensure_ascii=False)}\n{END}")
    return {"role": "assistant", "content": "\n".join(filter(None, texts))}


def calls_of(message: Message) -> list[Mapping[str, Any]]:
    """The calls that a message made. Raises: UsageError."""
    calls = message["tool_calls"]
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UsageError(
                f'tool_calls has {call!r:.60}: expected {{"id": ..., "type": "function", '
                '"function": {"name": ..., "arguments": ...}}'
            )
    return list(calls)


def arguments_of(function: Mapping[str, Any]) -> Any:
    """A call's arguments: what their JSON says, if it is some."""
    given = function.get("arguments", {})
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given or "{}")
    except (ValueError, RecursionError):
        return given
