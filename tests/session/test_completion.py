"""completion.py: the shape that apps written for llama-cpp-python expect, over a real session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgespec.errors import ContextError, UsageError
from edgespec.session.load import load
from edgespec.session.request import request_of, schema_of
from edgespec.session.session import Session

ASK = [{"role": "user", "content": "Tell me a story about a little fox."}]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The demo pair, drafting two tokens a round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with load(speculative="on", draft_tokens=2, threads=1, max_tokens=24) as one:
            yield one


def test_a_whole_answer_has_llama_cpp_pythons_shape(session: Session) -> None:
    answer = session.create_chat_completion(ASK)
    said = "".join(piece.text for piece in session.chat(ASK))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "target.gguf"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    n_prompt = len(session.prompt(ASK))
    assert answer["usage"] == {
        "prompt_tokens": n_prompt,
        "completion_tokens": 24,
        "total_tokens": n_prompt + 24,
    }
    assert answer["timings"]["predicted_n"] == 24
    assert answer["timings"]["draft_n_accepted"] > 0


def test_the_end_token_is_not_listed_even_where_text_waited_for_it(session: Session) -> None:
    table = [{"role": "user", "content": "I want to book a table."}]
    (plain,) = session.create_chat_completion(table, logprobs=True, max_tokens=60)["choices"]
    text = plain["message"]["content"] or ""
    (other,) = session.create_chat_completion(
        table, logprobs=True, max_tokens=60, stop=[f"{text[-1]}@"]
    )["choices"]
    assert plain["finish_reason"] == other["finish_reason"] == "stop"
    assert plain["logprobs"] is not None and plain["logprobs"] == other["logprobs"]
    assert "".join(one["token"] for one in plain["logprobs"]["content"]).strip() == text


def test_its_keys_are_those_of_llama_cpp_python(session: Session) -> None:
    from llama_cpp import llama_types

    answer = session.create_chat_completion(ASK, logprobs=True, max_tokens=3)
    assert set(llama_types.CreateChatCompletionResponse.__annotations__) <= set(answer)
    choice = answer["choices"][0]
    assert set(llama_types.ChatCompletionResponseChoice.__annotations__) == set(choice)
    assert choice["logprobs"] is not None
    assert set(llama_types.ChatCompletionLogprobs.__annotations__) == set(choice["logprobs"])
    token = choice["logprobs"]["content"][0]
    assert set(llama_types.ChatCompletionLogprobToken.__annotations__) == set(token)
    chunk = next(session.create_chat_completion(ASK, stream=True))
    assert set(llama_types.CreateChatCompletionStreamResponse.__annotations__) <= set(chunk)
    streamed = llama_types.ChatCompletionStreamResponseChoice.__annotations__
    assert set(streamed) == set(chunk["choices"][0])


def test_chunks_join_to_the_whole_answer(session: Session) -> None:
    whole = session.create_chat_completion(ASK)["choices"][0]["message"]["content"]
    chunks = list(session.create_chat_completion(ASK, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant"}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == whole
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (
        len(chunks) - 1
    )
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stop_string_and_a_seed_are_taken(session: Session) -> None:
    whole = session.create_chat_completion(ASK)["choices"][0]["message"]["content"]
    cut = session.create_chat_completion(ASK, stop=whole[10:14])["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == (whole[:10], "stop")
    one, same, other = (
        session.create_chat_completion(ASK, temperature=1.0, seed=seed)["choices"][0]["message"]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_log_probabilities_are_the_targets_own(session: Session) -> None:
    answer = session.create_chat_completion(ASK, logprobs=True, top_logprobs=3, max_tokens=12)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs is not None
    scored = logprobs["content"]
    assert len(scored) == 12
    assert "".join(one["token"] for one in scored) == answer["choices"][0]["message"]["content"]
    ids, emitted = session.prompt(ASK), list(session.turns.output)
    target = session.target
    target.truncate(0)
    target.extend(ids[:-1])
    rows = target.forward([ids[-1], *emitted[:-1]]).astype(np.float64)
    for row, token, one in zip(rows, emitted, scored, strict=True):
        law = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert one["logprob"] == pytest.approx(law[token], abs=1e-2)
        best = np.argsort(-law)[:3]
        assert [top["logprob"] for top in one["top_logprobs"]] == pytest.approx(law[best], abs=1e-2)
        assert bytes(one["bytes"]) == session.token_bytes(token)


def test_streamed_log_probabilities_are_those_of_the_whole(session: Session) -> None:
    whole = session.create_chat_completion(ASK, logprobs=True)["choices"][0]["logprobs"]
    chunks = session.create_chat_completion(ASK, logprobs=True, stream=True)
    streamed = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert whole is not None
    joined = [token for part in streamed if part is not None for token in part["content"]]
    assert [one["token"] for one in joined] == [one["token"] for one in whole["content"]]


def test_json_answers_fit_their_schema(session: Session) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    forms = (
        {"type": "json_object", "schema": schema},
        {"type": "json_schema", "json_schema": {"name": "fox", "schema": schema}},
    )
    for form in forms:
        answer = session.create_chat_completion(ASK, response_format=form, max_tokens=80)
        found = json.loads(answer["choices"][0]["message"]["content"])
        assert set(found) == {"name", "age"}
        assert isinstance(found["age"], int)
        assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.slow
def test_json_ends_before_the_token_limit_and_before_the_context(session: Session) -> None:
    form = {"type": "json_object"}
    answer = session.create_chat_completion(ASK, response_format=form, max_tokens=20)["choices"][0]
    assert isinstance(json.loads(answer["message"]["content"]), dict)
    assert answer["finish_reason"] == "length"
    assert len(session.turns.output) <= 20
    n_left = 12
    n_prompt = session.target.n_context - n_left
    prompt = ([*session.prompt(ASK)] * 100)[:n_prompt]
    text = "".join(p.text for p in session.generate(prompt, json_schema="{}", max_tokens=400))
    assert isinstance(json.loads(text), dict)
    assert session.turns.finish == "context"
    assert len(session.turns.output) <= n_left + 1


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "xml"}, 'of type .xml.: expected one of ."type": "text".'),
        ("json", "of type 'json': expected one of"),
        ({"type": "json_object", "schema": {"enum": [{1}]}}, "expected a schema in plain JSON"),
        ({"type": "json_schema"}, "expected a schema, as in"),
        ({"type": "json_object", "schema": 3}, "expected a schema"),
    ],
)
def test_an_unknown_form_is_refused(form: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        schema_of(form)


def test_plain_text_undoes_the_schema_of_the_session() -> None:
    assert schema_of({"type": "text"}) == ""
    with load(speculative="off", threads=1, json_schema={"type": "object"}) as one:  # type: ignore[arg-type]
        given = {"max_tokens": 16, "response_format": {"type": "text"}}
        said = one.create_chat_completion(ASK, **given)["choices"][0]["message"]["content"]  # type: ignore[call-overload]
        assert said.startswith("Once upon a time")
        said = one.create_chat_completion(ASK, max_tokens=16)["choices"][0]["message"]["content"]
        assert isinstance(json.loads(said), dict)


TOOL = {"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"grammar": 'root ::= "yes"'}, "response_format and grammar"),
        ({"json_schema": {"type": "array"}}, "response_format and json_schema"),
        ({"tools": [TOOL], "tool_choice": "required"}, "response_format with a tool"),
    ],
)
def test_two_forms_of_one_answer_are_refused(given: dict[str, object], line: str) -> None:
    form = {"type": "json_object"}
    with pytest.raises(UsageError, match=f"^{line}.*: expected one"):
        request_of({"response_format": form, **given}, stream=False)  # type: ignore[typeddict-item]
    plain = request_of({"response_format": {"type": "text"}, **given}, stream=False)  # type: ignore[typeddict-item]
    kept = [plain.options[name] for name in ("json_schema", "grammar")]  # type: ignore[literal-required]
    assert kept.count("") == 1


def test_a_tool_that_has_to_be_called_leaves_no_room_for_a_grammar() -> None:
    given = {"tools": [TOOL], "tool_choice": "required", "grammar": 'root ::= "yes"'}
    with pytest.raises(UsageError, match="^a tool that has to be called and grammar: expected one"):
        request_of(given, stream=False)  # type: ignore[arg-type]


def test_a_negative_seed_counts_as_none_given() -> None:
    with load(speculative="off", threads=1, seed=7, temperature=1.5, max_tokens=24) as one:
        said = [
            one.create_chat_completion(ASK, seed=seed)["choices"][0]["message"]
            for seed in (None, -1, 8)
        ]
    assert said[0] == said[1] != said[2]


@pytest.mark.slow
def test_what_callers_of_llama_cpp_python_give_is_understood(session: Session) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": ASK[0]["content"]}]}]
    expected = session.create_chat_completion(ASK)["choices"][0]["message"]
    assert (
        session.create_chat_completion(parts, model="x", seed=-1)["choices"][0]["message"]
        == expected
    )
    answer = session.create_chat_completion(ASK, max_tokens=-1)
    assert answer["usage"]["completion_tokens"] > 24
    scored = session.create_chat_completion(ASK, logprobs=True, top_logprobs=None, max_tokens=2)
    assert len(scored["choices"][0]["logprobs"]["content"]) == 2  # type: ignore[index]
    biased = session.create_chat_completion(ASK, logit_bias={"5": -100}, max_tokens=2)  # type: ignore[dict-item]
    assert biased["usage"]["completion_tokens"] == 2


def test_newer_names_and_ignored_ones_are_taken(session: Session) -> None:
    ignored = {"user": "me", "model": "x", "typical_p": 1.0, "n": 1, "logprobs": None}
    answer = session.create_chat_completion(ASK, max_completion_tokens=5, **ignored)  # type: ignore[call-overload]
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["logprobs"] is None


def test_several_choices_are_whole_answers_with_seeds_of_their_own(session: Session) -> None:
    given = {"temperature": 1.0, "max_tokens": 12}
    answer = session.create_chat_completion(ASK, n=3, seed=4, **given)  # type: ignore[call-overload]
    alone = [
        session.create_chat_completion(ASK, seed=seed, **given)["choices"][0]  # type: ignore[call-overload]
        for seed in (4, 5, 6)
    ]
    assert answer["choices"] == [{**choice, "index": i} for i, choice in enumerate(alone)]
    assert answer["usage"]["completion_tokens"] == answer["timings"]["predicted_n"] == 36
    assert answer["usage"]["prompt_tokens"] == len(session.prompt(ASK))


def test_a_stream_of_several_choices_gives_one_after_another(session: Session) -> None:
    given = {"temperature": 1.0, "max_tokens": 12, "n": 2, "seed": 4}
    whole = session.create_chat_completion(ASK, **given)  # type: ignore[call-overload]
    chunks = list(
        session.create_chat_completion(
            ASK, stream=True, stream_options={"include_usage": True}, **given
        )  # type: ignore[call-overload]
    )
    *parts, last = chunks
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(part["usage"] is None for part in parts)
    for choice in whole["choices"]:
        own = [p["choices"][0] for p in parts if p["choices"][0]["index"] == choice["index"]]
        assert own[0]["delta"] == {"role": "assistant"}
        said = "".join(one["delta"].get("content", "") for one in own)
        assert (said, own[-1]["finish_reason"]) == (
            choice["message"]["content"],
            choice["finish_reason"],
        )
    indices = [part["choices"][0]["index"] for part in parts]
    assert indices == sorted(indices)


def test_closing_a_stream_ends_its_generation(session: Session) -> None:
    chunks = session.create_chat_completion(ASK, stream=True)
    assert "usage" not in next(chunks)
    next(chunks)
    assert session.turns.running
    chunks.close()
    assert not session.turns.running


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"messages": None}, "messages is None: expected a list"),
        ({"messages": "Hello"}, "messages is 'Hello': expected a list"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no vision model"),
        ({"top_logprobs": "2"}, "top_logprobs is '2': expected a whole number"),
        ({"top_logprobs": -1}, "top_logprobs is -1: expected a whole number"),
        ({"logit_bias": {5: float("nan")}}, "nan for token 5: expected a number"),
        ({"logit_bias": {"five": 1}}, "logit_bias 'five': 1: expected an id"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"functions": []}, "unknown key 'functions'"),
        ({"typical_p": 0.9}, "typical_p is 0.9: expected 1.0, which is off; choose by temp"),
        ({"seed": "3"}, "seed is '3': expected a whole number"),
        ({"max_tokens": "5"}, "max_tokens is '5': expected a whole number"),
        ({"max_tokens": [1]}, r"max_tokens is \[1\]: expected a whole number"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens is 1.5: expected a whole number"),
        ({"logit_bias": [1, 2]}, "logit_bias is .1, 2.: expected biases by id"),
        ({"n": 0}, "n is 0: expected a whole number, 1 or more"),
        ({"n": "2"}, "n is '2': expected a whole number"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens is 3, .* expected one of them"),
        ({"stream_options": {"include_usage": True}}, "without stream: expected ."),
        ({"stream_options": {"chunks": 1}, "stream": True}, "'chunks': 1.: expected ."),
    ],
)
def test_a_mistake_is_one_line(session: Session, given: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        session.create_chat_completion(**{"messages": ASK, "logprobs": True, **given})  # type: ignore[call-overload]


def test_a_prompt_that_does_not_fit_is_refused_before_the_first_chunk(session: Session) -> None:
    long = [{"role": "user", "content": "fox " * 2000}]
    with pytest.raises(ContextError, match="the context holds"):
        session.create_chat_completion(long, stream=True)


def test_tokens_delivered_do_not_depend_on_drafting(session: Session) -> None:
    whole = session.create_chat_completion(ASK)["choices"][0]["message"]["content"]
    used = {
        how: session.create_chat_completion(ASK, stop=whole[20:24], speculative=how)["usage"]
        for how in ("on", "off")
    }
    assert used["on"] == used["off"]


def test_a_schema_needs_the_grammar_of_a_gguf_tokenizer(tmp_path: Path, session: Session) -> None:
    from edgespec.config import Config
    from edgespec.session.opening import open_constraint

    class Other:
        pass

    with pytest.raises(UsageError, match="--json-schema: the model's tokenizer is a tokenizer.j"):
        open_constraint(Config(json_schema="{}"), Other(), 9)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected one of them"):
        open_constraint(Config(json_schema="{}", grammar="x"), session.tokenizer, 9)
    with pytest.raises(UsageError, match="none.gbnf: No such file.*: expected a grammar .* or its"):
        open_constraint(Config(grammar=str(tmp_path / "none.gbnf")), session.tokenizer, 9)
    with pytest.raises(UsageError, match="none.json: No such file.*: expected a schema .* or its"):
        open_constraint(Config(json_schema=str(tmp_path / "none.json")), session.tokenizer, 9)


@pytest.mark.parametrize("gbnf", ['root ::= "yes" | "no"', 'root ::=\n  "yes" |\n  "no"\n'])
def test_a_grammar_may_be_given_as_text_or_as_a_file(
    tmp_path: Path, session: Session, gbnf: str
) -> None:
    file = tmp_path / "a.gbnf"
    file.write_text(gbnf)
    for grammar in (gbnf, str(file)):
        pieces = list(session.generate("Is the fox red?", grammar=grammar, max_tokens=9))
        assert "".join(piece.text for piece in pieces) in ("yes", "no")
    with pytest.raises(UsageError, match="the grammar .* was refused"):
        session.generate("Is the fox red?", grammar="yes\nno", max_tokens=9)
