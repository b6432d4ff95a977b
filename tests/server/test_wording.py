"""What is refused names the fields of the request, and what OpenAI takes is taken."""

from __future__ import annotations

from typing import Any

import pytest
from serving import ASK, Call

from edgespec.config import options
from edgespec.errors import UsageError
from edgespec.server import fields
from edgespec.server.refusal import Refusal
from edgespec.server.wording import worded

CHAT, TEXTS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
FIRST = {CHAT: "messages", TEXTS: "prompt", RESPONSES: "input"}
EVERY = tuple(FIRST)


def asked(path: str, **given: Any) -> dict[str, Any]:
    """A request of this path that asks for two tokens."""
    most = "max_output_tokens" if path == RESPONSES else "max_tokens"
    return {FIRST[path]: ASK if path == CHAT else "A fox", most: 2, **given}


@pytest.mark.parametrize("path", EVERY)
def test_what_openai_takes_at_the_edge_of_a_field_is_taken(ask: Call, path: str) -> None:
    more: dict[str, Any] = {"top_p": 0, "temperature": 1, "seed": -1, "user": "me"}
    if path != RESPONSES:
        more["stop"] = ""
    assert ask(path, asked(path, **more)).status == 200
    assert ask(path, asked(path, seed=1 << 60)).status == 200
    events = ask(path, asked(path, stream=True, stream_options={"include_obfuscation": False}))
    assert events.status == 200 and events.events()


def test_no_share_is_the_likeliest_token(ask: Call) -> None:
    def said(**given: Any) -> str:
        return str(ask(TEXTS, {"prompt": "A fox", "max_tokens": 8, **given}).body["choices"])

    assert said(temperature=2, top_p=0) == said(temperature=0)


POPE = [{"role": "pope", "content": "x"}]
LONG = "fox " * 3000


@pytest.mark.parametrize(
    ("path", "given", "param", "expected"),
    [
        (CHAT, {"max_tokens": 0}, "max_tokens", "1 or more; or -1"),
        (CHAT, {"max_completion_tokens": 1, "max_tokens": 2}, "max_tokens", "expected one of"),
        (TEXTS, {"max_tokens": -2}, "max_tokens", "max_tokens is -2"),
        (RESPONSES, {"stream_options": {"x": True}}, "stream_options", "include_obfuscation and"),
        (TEXTS, {"stream_options": {"include_usage": True}}, "stream_options", "without stream"),
        (CHAT, {"grammar": "root ::= no"}, "grammar", "the grammar 'root ::= no' was refused"),
        (CHAT, {"logit_bias": {"99999": 1}}, "logit_bias", "logit_bias: token 99999"),
        (CHAT, {"messages": POPE}, "messages", "message 0 has role"),
        (RESPONSES, {"input": POPE}, "input", "message 0 has role"),
        (RESPONSES, {"input": []}, "input", "input is empty"),
        (TEXTS, {"prompt": [[]]}, "prompt", "the prompt has no tokens"),
        (CHAT, {"messages": [{"role": "user", "content": LONG}]}, "messages", "context holds"),
        (TEXTS, {"prompt": LONG}, "prompt", "context holds"),
        (TEXTS, {"prompt": LONG, "max_tokens": 0}, "prompt", "context holds"),
        (RESPONSES, {"input": LONG}, "input", "context holds"),
        (RESPONSES, {"top_logprobs": 2}, "top_logprobs", "expected include to have"),
        (RESPONSES, {"text": {"format": {"type": "x"}}}, "text.format", "expected one of"),
        (RESPONSES, {"context_management": []}, "context_management", "nothing is compacted"),
        (RESPONSES, {"moderation": {}}, "moderation", "nothing is moderated"),
    ],
)
def test_what_is_refused_names_a_field_of_the_request(
    ask: Call, path: str, given: dict[str, Any], param: str, expected: str
) -> None:
    refused = ask(path, asked(path, **given))
    assert refused.status == 400
    assert refused.error["param"] == param and expected in refused.error["message"]


def test_every_field_of_openais_is_taken_ignored_or_refused_by_name() -> None:
    from openai.types import completion_create_params, embedding_create_params
    from openai.types.chat import completion_create_params as chat_create_params
    from openai.types.responses import response_create_params

    completions = "CompletionCreateParamsStreaming"
    for module, name, known in (
        (chat_create_params, completions, fields.CHAT),
        (completion_create_params, completions, fields.COMPLETIONS),
        (response_create_params, "ResponseCreateParamsStreaming", fields.RESPONSES),
        (embedding_create_params, "EmbeddingCreateParams", fields.EMBEDDINGS),
    ):
        theirs = getattr(module, name).__annotations__
        assert set(theirs) - set(known) - fields.IGNORED - set(fields.NOT_HERE) == set(), name


def test_every_flag_becomes_a_field() -> None:
    for one, option in options():
        flag = option.flags[-1]
        if not option.per_call or one.name == "json_schema":
            continue
        with pytest.raises(Refusal) as caught, worded({}, {**fields.CHAT, "think": None}):
            raise UsageError(f"{flag} is '': expected another; set {flag}=1")
        error = caught.value.body()["error"]
        assert error["message"] == f"{one.name} is '': expected another; set {one.name}=1"
        assert error["param"] == one.name
    with pytest.raises(Refusal) as caught, worded({"max_completion_tokens": 9}, fields.CHAT):
        raise UsageError("max_tokens is 9: expected at most 8")
    assert caught.value.body()["error"]["param"] == "max_completion_tokens"
    for given, field in (
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"text": {"format": {}}}, "text.format"),
        ({"tools": [{}]}, "tools"),
    ):
        known = fields.RESPONSES if "text" in given else fields.CHAT
        with pytest.raises(Refusal) as caught, worded(given, known):
            raise UsageError("--json-schema: the model's tokenizer: expected one")
        assert caught.value.body()["error"]["param"] == field
