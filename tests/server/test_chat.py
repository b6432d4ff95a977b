"""Chat completions, as OpenAI's client and as a plain one ask for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from serving import ASK, Call

from edgespec.server.running import Server

PATH = "/v1/chat/completions"


def said(server: Server, **options: Any) -> str:
    """What the model says if nobody serves it."""
    session = server.answering.session  # type: ignore[attr-defined]
    return "".join(piece.text for piece in session.chat(ASK, **options))


def test_an_answer_is_the_sessions_own(client: Any, server: Server) -> None:
    answer = client.chat.completions.create(model=server.name, messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.model == server.name == "demo"
    assert answer.choices[0].message.content == said(server)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert answer.timings["draft_n_accepted"] > 0
    assert answer.timings["predicted_per_second"] > 0
    assert len(answer.timings["accepted_by_position"]) == 2
    assert {"times_plain", "tested_by_position"} <= set(answer.timings)
    assert answer.timings["paused"] == ""


def test_a_stream_is_the_same_and_ends_as_openais(client: Any, server: Server, ask: Call) -> None:
    stream = client.chat.completions.create(model="default", messages=ASK, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said(server)
    answered = ask(PATH, {"messages": ASK, "stream": True, "max_tokens": 5})
    assert answered.headers["content-type"].startswith("text/event-stream")
    *events, last = answered.events()
    assert last == "[DONE]"
    parts = [json.loads(event) for event in events]
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert all("usage" not in part and "edgespec" not in part for part in parts)
    assert parts[-1]["choices"][0]["finish_reason"] == "length"
    assert [p["choices"][0]["finish_reason"] for p in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["timings"]["predicted_n"] == 5


def test_usage_and_drafted_tokens_come_if_asked_for(client: Any, ask: Call) -> None:
    chunks = list(
        client.chat.completions.create(
            model="default",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"show_drafted": True},
        )  # fmt: skip
    )
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 24
    drafted = [c.edgespec["drafted"] for c in chunks if c.choices and c.choices[0].delta.content]
    assert set(drafted) == {True, False}
    refused = ask(PATH, {"messages": ASK, "stream_options": {"include_usage": True}})
    assert refused.status == 400 and "without stream" in refused.error["message"]


def test_a_request_chooses_how_it_is_drafted(ask: Call) -> None:
    def timings(**more: Any) -> dict[str, Any]:
        return ask(PATH, {"messages": ASK, "max_tokens": 16, **more}).body["timings"]  # type: ignore[no-any-return]

    assert timings(speculative="off")["draft_n"] == 0
    assert len(timings(speculative="on", draft_tokens=1)["tested_by_position"]) == 1
    assert ask(PATH, {"messages": ASK, "speculative": "maybe"}).error["param"] == "speculative"


def test_several_answers_with_seeds_and_stops(client: Any, server: Server) -> None:
    given = {"model": "demo", "messages": ASK, "temperature": 1.0, "max_tokens": 10}
    both = client.chat.completions.create(**given, n=2, seed=4)
    alone = [client.chat.completions.create(**given, seed=seed) for seed in (4, 5)]
    texts = [choice.message.content for choice in both.choices]
    assert texts == [one.choices[0].message.content for one in alone]
    whole = said(server)
    cut = client.chat.completions.create(model="demo", messages=ASK, stop=[whole[10:14]])
    assert cut.choices[0].message.content == whole[:10]
    assert cut.choices[0].finish_reason == "stop"


def test_log_probabilities_and_biases(client: Any, server: Server) -> None:
    given = {"model": "demo", "messages": ASK, "max_tokens": 6}
    answer = client.chat.completions.create(**given, logprobs=True, top_logprobs=2)
    scored = answer.choices[0].logprobs.content
    assert "".join(one.token for one in scored) == answer.choices[0].message.content
    assert all(len(one.top_logprobs) == 2 and one.logprob <= 0 for one in scored)
    first = server.answering.encode(scored[0].token)[-1]
    biased = client.chat.completions.create(**given, logit_bias={str(first): -100})
    assert not biased.choices[0].message.content.startswith(scored[0].token)
    many = list(client.chat.completions.create(**given, logprobs=True, stream=True))
    tokens = [t.token for c in many if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert tokens == [one.token for one in scored]


def test_an_answer_fits_its_schema(client: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"animal": {"enum": ["fox", "bear"]}, "age": {"type": "integer"}},
        "required": ["animal", "age"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}
    answer = client.chat.completions.create(
        model="demo", messages=ASK, response_format=form, max_tokens=60
    )
    found = json.loads(answer.choices[0].message.content)
    assert found["animal"] in ("fox", "bear") and isinstance(found["age"], int)
    answer = client.chat.completions.create(
        model="demo", messages=ASK, response_format={"type": "json_object"}, max_tokens=40
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_grammars_are_taken_and_paths_are_not(ask: Call) -> None:
    answered = ask(PATH, {"messages": ASK, "grammar": 'root ::= "yes" | "no"'})
    assert answered.body["choices"][0]["message"]["content"] in ("yes", "no")
    refused = ask(PATH, {"messages": ASK, "grammar": "/etc/passwd"})
    assert refused.status == 400 and "expected GBNF" in refused.error["message"]


@pytest.mark.parametrize(
    ("given", "param", "expected"),
    [
        ({"temprature": 1}, "temprature", "did you mean 'temperature'?"),
        ({"temperature": "1"}, "temperature", "expected a number from 0 to 2"),
        ({"temperature": True}, "temperature", "expected a number"),
        ({"top_p": 1.5}, "top_p", "from 0 to 1"),
        ({"n": 0}, "n", "expected a whole number from 1"),
        ({"n": 5}, "n", "n is 5: expected at most 4"),
        ({"messages": []}, "messages", "is empty"),
        ({"messages": "hello"}, "messages", "expected a list"),
        ({"messages": None}, "messages", "missing"),
        ({"functions": [{}]}, "functions", "expected tools"),
        ({"top_logprobs": 3}, "top_logprobs", "without logprobs"),
        ({"modalities": ["audio"]}, "modalities", "all that this model writes"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"seed": 1 << 80}, "seed", "whole number"),
    ],
)
def test_a_wrong_field_is_named(
    ask: Call, given: dict[str, Any], param: str, expected: str
) -> None:
    refused = ask(PATH, {"messages": ASK, **given})
    assert refused.status == 400
    assert refused.error["param"] == param and expected in refused.error["message"]


def test_what_a_session_refuses_is_refused_in_openais_shape(ask: Call, client: Any) -> None:
    from openai import BadRequestError, NotFoundError

    long = [{"role": "user", "content": "fox " * 3000}]
    refused = ask(PATH, {"messages": long, "stream": True})
    assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
    with pytest.raises(BadRequestError, match="expected system, developer, user"):
        client.chat.completions.create(model="demo", messages=[{"role": "pope", "content": "x"}])
    with pytest.raises(NotFoundError, match="'gpt-4' is not served here: expected 'demo'"):
        client.chat.completions.create(model="gpt-4", messages=ASK)
    picture = [{"role": "user", "content": [{"type": "image_url"}]}]
    assert "no vision model" in ask(PATH, {"messages": picture}).error["message"]


def test_what_does_nothing_here_is_taken(ask: Call) -> None:
    more = {"user": "me", "metadata": {}, "store": False, "service_tier": "auto", "n": None}
    more |= {"parallel_tool_calls": True, "reasoning_effort": "low", "functions": None}
    assert ask(PATH, {"messages": ASK, "max_tokens": 2, **more}).status == 200
