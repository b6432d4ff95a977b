"""tools.py: what a template is told of functions, and calls that are forced, over the demo pair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgespec.errors import UsageError
from edgespec.session.load import load
from edgespec.session.session import Session
from edgespec.session.tools import is_tagged, knows_tools, schema_of_call, tools_of, with_calls

ASK = [{"role": "user", "content": "Where is the fox?"}]
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["wood", "lake"]}, "times": {"type": "integer"}},
            "required": ["place", "times"],
        },
    },
}
WAIT = {"type": "function", "function": {"name": "wait"}}
NAMED = {"type": "function", "function": {"name": "look"}}
QWEN = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "<tool_call><|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }}"
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function",
         "function": {"name": "look", "arguments": '{"place": "lake", "times": 1}'}}
    ],
}  # fmt: skip
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "a fox"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with load(speculative="on", draft_tokens=2, threads=1, max_tokens=80) as one:
            yield one


def spelled(session: Session, messages: Any, tools: Any, choice: Any = None) -> str:
    template = session.template
    found = tools_of(tools, choice)
    more = {} if found is None else found.more(template)
    return template.text(with_calls(messages, found, template), more=more)


def test_a_template_that_knows_no_tools_is_told_in_words(session: Session) -> None:
    assert not knows_tools(session.template) and is_tagged(session.template)
    text = spelled(session, [*ASK, CALLED, RESULT], [LOOK])
    assert '"description": "Looks somewhere."' in text and "<|system|>" in text
    assert '<tool_call>\n{"name": "look", "arguments": {"place": "lake", "times": 1}}' in text
    assert "<|user|><tool_response>\na fox\n</tool_response>" in text
    system = [{"role": "system", "content": "Be brief."}, *ASK]
    assert "Be brief.\n\nThese functions" in spelled(session, system, [LOOK])
    assert "look" not in spelled(session, ASK, [LOOK], "none")


def test_a_template_that_knows_tools_is_given_them(tmp_path: Any) -> None:
    file = tmp_path / "qwen.jinja"
    file.write_text(QWEN)
    with load(chat_template=str(file), speculative="off", threads=1) as one:
        assert knows_tools(one.template) and is_tagged(one.template)
        text = spelled(one, [*ASK, CALLED, RESULT], [LOOK, WAIT])
        assert text.startswith("<|im_start|>system\n{") and '"name": "wait"' in text
        assert '<tool_call>{"place": "lake", "times": 1}</tool_call>' in text


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_call_fits_its_schema(session: Session, choice: Any) -> None:
    tools = [LOOK] if choice == "required" else [LOOK, WAIT]
    answer = session.create_chat_completion(ASK, tools=tools, tool_choice=choice)
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    (call,) = message["tool_calls"]
    assert call["type"] == "function" and call["function"]["name"] == "look"
    found = json.loads(call["function"]["arguments"])
    assert set(found) == {"place", "times"} and found["place"] in ("wood", "lake")
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["timings"]["draft_n"] > 0  # calls are drafted as well


@pytest.mark.slow
def test_a_call_comes_as_deltas_that_join_to_the_whole(session: Session) -> None:
    given: Any = {"tools": [LOOK, WAIT], "tool_choice": "required"}
    whole = session.create_chat_completion(ASK, **given)["choices"][0]["message"]["tool_calls"][0]
    chunks = list(session.create_chat_completion(ASK, stream=True, **given))
    parts = [p for c in chunks for p in c["choices"][0]["delta"].get("tool_calls", ())]
    assert parts[0]["id"].startswith("call_") and parts[0]["type"] == "function"
    assert all("id" not in part for part in parts[1:])
    assert parts[0]["function"]["name"] == whole["function"]["name"]
    joined = "".join(part["function"]["arguments"] for part in parts)
    assert joined == whole["function"]["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_model_that_may_call_and_does_not_says_text(session: Session) -> None:
    answer = session.create_chat_completion(ASK, tools=[LOOK], max_tokens=12)
    message = answer["choices"][0]["message"]
    assert message["content"] and "tool_calls" not in message
    chunks = session.create_chat_completion(ASK, tools=[LOOK], max_tokens=12, stream=True)
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == message["content"]


def test_references_in_parameters_still_hold() -> None:
    parameters = {
        "properties": {"to": {"$ref": "#/$defs/place"}},
        "required": ["to"],
        "$defs": {"place": {"enum": ["wood"]}},
    }
    schema = schema_of_call({"name": "go", "parameters": parameters}, "/anyOf/1")
    arguments = schema["properties"]["arguments"]
    assert arguments["properties"]["to"] == {"$ref": "#/anyOf/1/properties/arguments/$defs/place"}
    assert arguments["type"] == "object"


def test_references_work_in_answers(session: Session) -> None:
    parameters = {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/place"}},
        "required": ["to"],
        "$defs": {"place": {"enum": ["wood"]}},
    }
    tools: Any = [WAIT, {"type": "function", "function": {"name": "go", "parameters": parameters}}]
    choice: Any = {"type": "function", "function": {"name": "go"}}
    answer = session.create_chat_completion(ASK, tools=tools, tool_choice=choice)
    call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (call["name"], json.loads(call["arguments"])) == ("go", {"to": "wood"})


@pytest.mark.parametrize(
    ("tools", "choice", "expected"),
    [
        ("look", None, "tools is 'look': expected a list"),
        ([{"name": "look"}], None, "tools has .*expected"),
        ([{"type": "web_search", "function": {"name": "x"}}], None, "tools has .*expected"),
        ([{"type": "function", "function": {"name": 3}}], None, "expected a name"),
        ([{"type": "function", "function": {"name": "x", "parameters": 3}}], None, "a schema"),
        ([LOOK, LOOK], None, "each once"),
        ([], "required", "without tools"),
        ([LOOK], {"type": "function", "function": {"name": "other"}}, "with one of look"),
        ([LOOK], "sometimes", "expected auto, none, required"),
    ],
)
def test_a_mistake_is_said(tools: Any, choice: Any, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        tools_of(tools, choice)


def test_a_form_and_a_forced_call_exclude_each_other(session: Session) -> None:
    with pytest.raises(UsageError, match="expected one"):
        session.create_chat_completion(
            ASK, tools=[LOOK], tool_choice="required", response_format={"type": "json_object"}
        )


def test_bad_calls_in_a_conversation_are_said(session: Session) -> None:
    for calls in ([3], [{"function": {}}], {"id": 1}):
        with pytest.raises(UsageError, match="tool_calls has"):
            with_calls([{**CALLED, "tool_calls": calls}], None, session.template)
