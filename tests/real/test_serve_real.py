"""A public model behind the server: tools in its own template's syntax, chosen and forced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import call

import edgespec
from edgespec.server.running import Server

pytestmark = pytest.mark.real
PATH = "/v1/chat/completions"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city now.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 20},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
            },
        },
    }
]
ASK = [{"role": "user", "content": "What is the weather in Paris, in celsius? Call the function."}]


@pytest.fixture(scope="module")
def server(real_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        model = real_models / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
        with edgespec.serve(
            model, speculative="off", loading="map", ctx_size=1024, max_tokens=64
        ) as one:
            yield one


def test_its_template_is_told_of_tools(server: Server) -> None:
    answering = server.answering
    assert "<tool_call>" in answering.template.source
    found = call(server.url, PATH, {"messages": ASK, "tools": TOOLS, "max_tokens": 64}).body
    message = found["choices"][0]["message"]
    for one in message.get("tool_calls", ()):
        assert one["function"]["name"] == "get_weather"
        assert json.loads(one["function"]["arguments"])["city"] == "Paris"
    assert message.get("tool_calls") or message["content"]


def test_a_forced_call_is_right_and_its_result_is_read(server: Server) -> None:
    given: dict[str, Any] = {"messages": ASK, "tools": TOOLS, "tool_choice": "required"}
    choice = call(server.url, PATH, given).body["choices"][0]
    (one,) = choice["message"]["tool_calls"]
    found = json.loads(one["function"]["arguments"])
    assert found["city"] == "Paris" and found["unit"] == "celsius"
    assert choice["finish_reason"] == "tool_calls"
    result = {"role": "tool", "tool_call_id": one["id"], "content": '{"degrees": 17}'}
    more = {"messages": [*ASK, choice["message"], result], "tools": TOOLS, "max_tokens": 40}
    assert "17" in call(server.url, PATH, more).body["choices"][0]["message"]["content"]
