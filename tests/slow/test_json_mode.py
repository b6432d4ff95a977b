"""JSON mode on the demo pair, with speculation: many prompts, and every answer parses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import thorough
from test_llamacpp_grammar import check_words

import edgespec
from edgespec.backends.llamacpp.grammar import constraint_of, gbnf_of
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.cli.prompts import DIALOGUES, STORIES
from edgespec.session.session import Session

BOUNDED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "mood": {"enum": ["happy", "sad", "tired"]},
        "friends": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["name", "age", "mood", "friends"],
}
OPEN = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["title", "parts"],
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"heading": {"type": "string"}, "pages": {"type": "integer"}},
            "required": ["heading", "pages"],
        }
    },
}
ENDINGS = ("", " Answer in JSON.", " Be brief.", " Please.", " Thank you!", " Now.", " Why?")
N_TOKENS = 160


def prompts() -> list[str]:
    """The built-in prompts with different last words."""
    every = [text + more for more in ENDINGS for text in (*STORIES, *DIALOGUES)]
    return every[: thorough.of(100, 34)]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with edgespec.load(speculative="on", threads=1) as opened:
        yield opened


def told(session: Session, prompt: str, schema: str, **params) -> str:
    return session.decode([token for token, _ in scored(session, prompt, schema, **params)])


def scored(session: Session, prompt: str, schema: str, **params) -> list[tuple[int, float]]:
    """The answer's tokens, each with its log probability."""
    constraint = constraint_of(session.tokenizer, gbnf_of(schema), n_tokens=N_TOKENS)
    ids = session.prompt([{"role": "user", "content": prompt}])
    given = {"max_tokens": N_TOKENS, "constraint": constraint, "n_top": 0, **params}
    out = []
    for step in session.steps(ids, replace(session.params(), **given)):
        scores = (score.logprob for score in step.scores)
        out += zip(step.verdict.tokens, scores, strict=True)
    assert (
        session.turns.finish in ("stop", "length") and out[-1][0] in session.tokenizer.stop_tokens
    )
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "params"),
    [
        (BOUNDED, {}),
        (OPEN, {"temperature": 1.0}),
        ({}, {"temperature": 0.8, "top_k": 40, "top_p": 0.95}),
    ],
    ids=["bounded, greedy", "open, sampled", "any object, top-k"],
)
def test_answers_to_many_prompts_parse(session, schema, params):
    n_accepted = 0
    for prompt in prompts():
        found = json.loads(told(session, prompt, json.dumps(schema), **params))
        n_accepted += session.stats.n_accepted
        assert isinstance(found, dict)
        if schema is BOUNDED:
            assert list(found) == ["name", "age", "mood", "friends"]
            assert len(found["name"]) <= 24 and 0 <= found["age"] <= 120
            assert len(found["friends"]) <= 3 and all(len(one) <= 12 for one in found["friends"])
        if schema is OPEN:
            assert all(isinstance(part["pages"], int) for part in found["parts"])
    assert n_accepted > 5 * len(prompts())


@pytest.mark.slow
def test_greedy_json_is_the_same_without_speculation(session):
    """But for ties: tokens of a batch have logits that differ in the last digits."""
    n_ties = 0
    with edgespec.load(speculative="off", threads=1) as plain:
        for prompt in prompts()[:32]:
            pair = [scored(one, prompt, json.dumps(BOUNDED)) for one in (plain, session)]
            for (token, logprob), (other, other_logprob) in zip(*pair, strict=False):
                if token != other:
                    assert abs(logprob - other_logprob) < 0.05
                    n_ties += 1
                    break
    assert n_ties <= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "llama-spm", "qwen2", "phi-3", "gpt-2"])
def test_every_token_of_a_real_vocabulary_is_judged_as_a_list_of_words_does(data_folder, name):
    tokenizer = LlamaCppTokenizer.open(data_folder / "vocab" / f"ggml-vocab-{name}.gguf")
    assert check_words(tokenizer, 12) > 30
    tokenizer.close()
