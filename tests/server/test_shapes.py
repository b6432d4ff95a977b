"""Tools, texts that go on, and responses, as OpenAI's client asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serving import ASK, OPTIONS, Call, call

import edgespec
from edgespec.server.running import Server
from edgespec.server.said import messages_of

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {
                "type": "object",
                "properties": {"place": {"enum": ["wood", "lake"]}},
                "required": ["place"],
            },
        },
    }
]


def test_a_function_is_called_whole_and_in_deltas(client: Any) -> None:
    given = {"model": "demo", "messages": ASK, "tools": TOOLS, "tool_choice": "required"}
    answer = client.chat.completions.create(**given, max_tokens=60)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "look"
    assert json.loads(call.function.arguments)["place"] in ("wood", "lake")
    assert answer.choices[0].finish_reason == "tool_calls"
    parts = [
        part
        for chunk in client.chat.completions.create(**given, max_tokens=60, stream=True)
        for part in chunk.choices[0].delta.tool_calls or ()
    ]
    assert parts[0].function.name == "look"
    assert "".join(part.function.arguments for part in parts) == call.function.arguments
    said = [
        *ASK, answer.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "a fox"},
    ]  # fmt: skip
    after = client.chat.completions.create(model="demo", messages=said, tools=TOOLS, max_tokens=8)
    assert after.choices[0].message.content


def test_texts_go_on(client: Any, server: Server, ask: Call) -> None:
    session = server.answering.session  # type: ignore[attr-defined]
    text = "Once upon a time"
    expected = "".join(p.text for p in session.generate(text, max_tokens=12))
    given = {"model": "demo", "prompt": text, "max_tokens": 12}
    answer = client.completions.create(**given)
    assert (answer.object, answer.choices[0].text) == ("text_completion", expected)
    assert answer.usage.completion_tokens == 12
    chunks = list(client.completions.create(**given, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "length"
    ids = session.encode(text)
    many = client.completions.create(model="demo", prompt=[ids, ids], max_tokens=12, n=2)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert {choice.text for choice in many.choices} == {expected}
    echoed = client.completions.create(**given, echo=True).choices[0].text
    assert echoed == text + expected
    scored = client.completions.create(**given, logprobs=2).choices[0].logprobs
    assert "".join(scored.tokens) == expected and len(scored.top_logprobs[0]) == 2
    assert scored.text_offset[1] == len(scored.tokens[0])
    streamed = {**given, "stream": True, "n": 2, "stream_options": {"include_usage": True}}
    events = ask("/v1/completions", streamed).events()
    assert events[-1] == "[DONE]" and json.loads(events[-2])["usage"]["completion_tokens"] == 24


def test_no_tokens_are_what_was_asked_for(client: Any, ask: Call) -> None:
    given = {"model": "demo", "prompt": "A fox", "max_tokens": 0}
    answer = client.completions.create(**given)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "length")
    assert answer.usage.completion_tokens == 0 and answer.usage.prompt_tokens > 0
    assert client.completions.create(**given, echo=True).choices[0].text == "A fox"
    chunks = list(client.completions.create(**given, echo=True, stream=True))
    assert [chunk.choices[0].text for chunk in chunks] == ["A fox", ""]
    whole = ask("/v1/completions", {**given, "max_tokens": -1, "stop": "."}).body
    assert whole["choices"][0]["text"]


def test_texts_that_cannot_go_on_are_refused(ask: Call) -> None:
    def refused(**given: Any) -> dict[str, Any]:
        return ask("/v1/completions", given).error

    assert refused()["param"] == "prompt"
    assert refused(prompt=[])["param"] == refused(prompt=[[1 << 40]])["param"] == "prompt"
    assert refused(prompt=[{"a": 1}])["param"] == "prompt"
    assert refused(prompt=["x"] * 33)["param"] == "prompt"
    assert "before a suffix" in refused(prompt="x", suffix="y")["message"]
    assert refused(prompt="x", best_of=3)["param"] == "best_of"
    assert refused(prompt="x", echo=True, logprobs=1)["param"] == "echo"
    assert "context holds" in refused(prompt="fox " * 3000, stream=True)["message"]


def test_a_response_is_whole_and_streamed(client: Any, server: Server) -> None:
    answer = client.responses.create(
        model="demo", input=ASK[0]["content"], max_output_tokens=12, temperature=0
    )
    session = server.answering.session  # type: ignore[attr-defined]
    expected = "".join(p.text for p in session.chat(ASK, max_tokens=12))
    assert answer.output_text == expected
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 12
    said = [{"role": "user", "content": [{"type": "input_text", "text": ASK[0]["content"]}]}]
    events = list(client.responses.create(model="demo", input=said, stream=True, temperature=0,
                                          max_output_tokens=12))  # fmt: skip
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.incomplete",
    ]  # fmt: skip
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == expected == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_response_scores_its_tokens_and_says_what_was_known(client: Any, server: Server) -> None:
    given = {"model": "demo", "input": "A fox?", "max_output_tokens": 6, "metadata": {"a": "b"}}
    given |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "temperature": 0}
    answer = client.responses.create(**given, truncation="auto", user="me")
    (part,) = answer.output[0].content
    assert "".join(one.token for one in part.logprobs) == part.text == answer.output_text
    assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in part.logprobs)
    assert (answer.metadata, answer.truncation) == ({"a": "b"}, "disabled")
    events = list(client.responses.create(**given, stream=True))
    new = [one.token for e in events if e.type.endswith("text.delta") for one in e.logprobs]
    assert new == [one.token for one in part.logprobs]
    usage = events[-1].response.usage
    assert usage.input_tokens_details.cached_tokens == usage.input_tokens - 1  # all but the last
    plain = client.responses.create(model="demo", input="A bear?", max_output_tokens=2)
    assert plain.usage.input_tokens_details.cached_tokens < plain.usage.input_tokens - 1
    assert plain.output[0].content[0].logprobs == []


THINKS = "{% for one in messages %}{{ one.content.split('</think>')[-1] }} {% endfor %}"
SAYS = 'root ::= "<think>red fox.</think>\\n\\nThe red fox ran."'


def test_a_response_has_the_thoughts_before_it(tmp_path: Path) -> None:
    from openai.types.responses import ResponseReasoningItem

    template = tmp_path / "thinks.jinja"
    template.write_text(THINKS)
    with edgespec.serve(chat_template=str(template), grammar=SAYS, **OPTIONS) as server:
        given = {
            "input": "Say it.", "stream": True, "max_output_tokens": 60,
            "include": ["message.output_text.logprobs"],
        }  # fmt: skip
        events = [json.loads(e) for e in call(server.url, "/v1/responses", given).events()]
    whole = events[-1]["response"]
    thoughts, said = whole["output"]
    read = ResponseReasoningItem.model_validate(thoughts)
    assert read.content is not None and read.content[0].text == "red fox."
    assert said["content"][0]["text"] == "The red fox ran."
    scored = "".join(one["token"] for one in said["content"][0]["logprobs"])
    assert scored == "The red fox ran."  # neither the tag nor the space after it
    assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    deltas = [e["delta"] for e in events if e["type"] == "response.reasoning_text.delta"]
    assert "".join(deltas) == "red fox."
    kinds = [e["type"].removeprefix("response.") for e in events if "delta" not in e["type"]]
    opened = ["output_item.added", "content_part.added"]
    closed = ["content_part.done", "output_item.done"]
    assert kinds == [
        "created", "in_progress", *opened, "reasoning_text.done", *closed,
        *opened, "output_text.done", *closed, "completed",
    ]  # fmt: skip


def test_a_response_fits_its_schema_and_tells_its_limits(client: Any, ask: Call) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "name": "it", "schema": schema}
    answer = client.responses.create(
        model="demo", instructions="Be brief.", input="A number?", text={"format": form},
        max_output_tokens=40, parallel_tool_calls=False,
    )  # fmt: skip
    assert answer.status == "completed" and set(json.loads(answer.output_text)) == {"n"}
    assert answer.parallel_tool_calls is False
    for given, expected in (
        ({"previous_response_id": "resp_1"}, "no answer is kept here"),
        ({"tools": [{"type": "web_search"}]}, "expected functions; no other tool runs here"),
        ({"tools": [{"type": "function"}]}, "expected a name"),
        ({"tool_choice": "required"}, "without tools"),
        ({"input": [{"type": "function_call", "name": 3}]}, "tool_calls has"),
        ({"input": [{"type": "image"}]}, "expected messages"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "no vision model"),
        ({"input": []}, "input is empty"),
        ({"text": {"format": 3}}, "expected an object with a type"),
    ):
        refused = ask("/v1/responses", {"input": "x", **given})
        assert refused.status == 400 and expected in refused.error["message"]


FUNCTION = {"type": "function", **TOOLS[0]["function"]}


def test_a_response_calls_functions_and_goes_on_with_what_they_said(client: Any) -> None:
    given = {"model": "demo", "tools": [FUNCTION], "temperature": 0, "max_output_tokens": 60}
    question = {"role": "user", "content": ASK[0]["content"]}
    answer = client.responses.create(input=[question], tool_choice="required", **given)
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "look", "completed")
    assert json.loads(call.arguments)["place"] in ("wood", "lake")
    assert answer.status == "completed" and answer.tools[0].name == "look"
    forced = {"type": "function", "name": "look"}
    events = list(
        client.responses.create(input=[question], tool_choice=forced, stream=True, **given)
    )
    kinds = [event.type for event in events]
    assert kinds[2] == "response.output_item.added" and events[2].item.name == "look"
    assert kinds[-3:] == [
        "response.function_call_arguments.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == events[-3].arguments == call.arguments
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = {"type": "function_call_output", "call_id": call.call_id, "output": "a fox"}
    after = client.responses.create(input=[question, call, said], **given)
    assert after.output_text


def test_a_call_in_a_response_reads_like_one_in_a_chat() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    given = {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Where?"}, {"type": "reasoning", "summary": []},
            {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            call, {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "a fox"},
        ],
    }  # fmt: skip
    system, user, assistant, tool = messages_of(given)
    assert (system["role"], user["content"], assistant["content"]) == (
        "system",
        "Where?",
        "I look.",
    )
    assert [one["id"] for one in assistant["tool_calls"]] == ["c1", "c2"]
    assert tool == {"role": "tool", "tool_call_id": "c1", "content": "a fox"}
