"""llama.cpp's grammar sampler as a constraint, against oracles that know nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgespec
from edgespec.backends.llamacpp import grammar as llamacpp_grammar
from edgespec.backends.llamacpp.grammar import KEPT, LlamaCppConstraint, constraint_of, gbnf_of
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.errors import TokenizerError, UsageError
from edgespec.grammar.gbnf import NEVER, Grammar
from edgespec.grammar.walk import Walk
from edgespec.session.session import Session

DEMO = Path(__file__).parents[2] / "models" / "demo" / "target.gguf"
WORDS = ["yes", "yellow", "no", "né", "nœud", "日本", "日曜", "😀😀", "😁", "“so”"]
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "likes": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 2},
        },
        "required": ["name", "age"],
    }
)


@pytest.fixture(scope="module")
def tokenizer():
    return LlamaCppTokenizer.open(DEMO)


@pytest.fixture(scope="module")
def session():
    with edgespec.load(speculative="on", draft_tokens=4, threads=1) as opened:
        yield opened


def words_gbnf() -> str:
    return "root ::= " + " | ".join(json.dumps(word, ensure_ascii=False) for word in WORDS)


def check_words(tokenizer: LlamaCppTokenizer, n_paths: int) -> int:
    """Compare every token along random texts with a list of words; how many times were compared.

    A token may follow if a word begins with the bytes so far and its own.
    """
    language = [word.encode() for word in WORDS]
    pieces = [tokenizer.piece(token) for token in range(tokenizer.n_vocab)]
    constraint = constraint_of(tokenizer, words_gbnf())
    rng, n_compared, ids = np.random.default_rng(0), 0, np.arange(tokenizer.n_vocab)
    for _ in range(n_paths):
        path: list[int] = []
        while tokenizer.stop_tokens.isdisjoint(path):
            text = b"".join(pieces[token] for token in path)
            begun = [word[len(text) :] for word in language if word.startswith(text)]
            expected = np.array([bool(p) and any(b.startswith(p) for b in begun) for p in pieces])
            expected[list(tokenizer.stop_tokens)] = text in language
            assert (constraint.allowed(path, ids) == expected).all(), text
            n_compared += 1
            path.append(int(rng.choice(np.flatnonzero(expected))))
    return n_compared


def test_every_token_is_judged_as_a_list_of_words_does(tokenizer):
    """Words of several scripts, whose characters tokens split; never what is not UTF-8."""
    assert check_words(tokenizer, 12) > 50


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2"])
def test_real_vocabularies_too(data_folder, name):
    path = data_folder / "vocab" / f"ggml-vocab-{name}.gguf"
    opened = LlamaCppTokenizer.open(path)
    constraint = constraint_of(opened, words_gbnf())
    single = [int(t) for t in opened.single_bytes if t >= 0]
    for text in ("", "y", "n\xc3", "\xe6\x97", "\xf0\x9f\x98\x80\xf0\x9f"):
        path = [int(opened.single_bytes[b]) for b in text.encode("latin-1")]
        begun = [
            w.encode()[len(path) :] for w in WORDS if w.encode().startswith(text.encode("latin-1"))
        ]
        expected = [any(b.startswith(opened.piece(t)) for b in begun) for t in single]
        assert constraint.allowed(path, np.array(single)).tolist() == expected
        assert sum(expected) > 0
    opened.close()


RANGES = json.dumps(
    {
        "type": "object",
        "properties": {
            "n": {"type": "number", "minimum": -2.5, "exclusiveMaximum": 1e5},
            "p": {"pattern": r'^(?:[\w.é-ü]+\s|"\\"|[^a-z\d]){2,}$'},
        },
        "required": ["n", "p"],
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("schema", ["", PERSON, RANGES])
def test_both_readers_of_grammars_agree_on_every_token(tokenizer, schema):
    """llama.cpp's and our own, along random texts in JSON."""
    gbnf = gbnf_of(schema)
    walk, constraint = Walk(Grammar(gbnf)), constraint_of(tokenizer, gbnf)
    rng, ids = np.random.default_rng(3), np.arange(tokenizer.n_vocab)
    place, path = walk.start, []
    for _ in range(14):
        found = constraint.allowed(path, ids)
        for token in map(int, ids):
            piece = tokenizer.piece(token)
            if token in tokenizer.stop_tokens:
                expected = walk.least(place) == 0
            else:
                expected = bool(piece) and walk.least(walk.read(place, piece)) < NEVER
            assert found[token] == expected, (path, piece)
        may = [t for t in np.flatnonzero(found) if t not in tokenizer.stop_tokens]
        if not may:
            break
        path.append(int(rng.choice(may)))
        place = walk.read(place, tokenizer.piece(path[-1]))
    assert len(path) > 8


def test_the_answer_depends_on_the_text_alone(tokenizer):
    """Jumps ahead, back and sideways, in portions of any size, against a new constraint."""
    gbnf, rng = gbnf_of(""), np.random.default_rng(5)
    text = tokenizer.encode('{"a": ["Once upon a time, there was", 12, true], "b": null}')
    other = tokenizer.encode('{"a": [{"c": "d"}]}')
    used = constraint_of(tokenizer, gbnf)
    for i in range(60):
        path = (text if i % 3 else other)[: rng.integers(len(text))]
        if i % 7 == 0:
            path = [*path, text[0], text[0]]  # most likely broken
        ids = rng.choice(tokenizer.n_vocab, size=(1, 5, 90, 700)[i % 4], replace=False)
        fresh = constraint_of(tokenizer, gbnf)
        expected = fresh.allowed(path, ids)
        assert (used.allowed(path, ids) == expected).all()
        one_by_one = [used.allowed(path, ids[j : j + 1])[0] for j in range(0, len(ids), 30)]
        assert one_by_one == expected[::30].tolist()
        fresh.close()


def test_what_may_come_second_depends_on_what_came_first(tokenizer):
    constraint = constraint_of(tokenizer, 'root ::= "ab" | "cd"')
    a, b, c, d = (tokenizer.single_bytes[ord(one) : ord(one) + 1] for one in "abcd")
    for _ in range(2):
        assert constraint.allowed(a.tolist(), b) and not constraint.allowed(a.tolist(), d)
        assert constraint.allowed(c.tolist(), d) and not constraint.allowed(c.tolist(), b)


def test_nothing_follows_a_text_that_breaks_the_grammar(tokenizer):
    constraint = constraint_of(tokenizer, 'root ::= "yes"')
    yes, no = tokenizer.encode("yes"), tokenizer.encode("no")
    assert not constraint.allowed(no, np.arange(tokenizer.n_vocab)).any()
    assert not constraint.allowed([*no, *yes], np.array(yes)).any()
    assert constraint.allowed([], np.array([yes[0], no[0], -1, 10**6])).tolist()[1:] == [False] * 3


def test_control_tokens_are_never_spelled_out(tokenizer):
    """llama.cpp would take <|im_start|> for its letters, which the text then lacks."""
    constraint = constraint_of(tokenizer, gbnf_of(""))
    path = tokenizer.encode('{"a')
    ids = np.arange(tokenizer.n_vocab)
    found = ids[constraint.allowed(path, ids)]
    silent = [t for t in range(tokenizer.n_vocab) if not tokenizer.piece(t)]
    assert silent and not set(silent) & set(found.tolist())
    assert not any(constraint.allowed(path, np.array([token]))[0] for token in silent)


def test_states_are_few_and_all_are_freed(tokenizer, monkeypatch):
    made, freed = [], []
    constraint = LlamaCppConstraint(tokenizer, "root ::= [a-z ]*")
    clone, free = constraint._clone, constraint._free
    monkeypatch.setattr(constraint, "_clone", lambda state: made.append(clone(state)) or made[-1])
    monkeypatch.setattr(constraint, "_free", lambda state: freed.append(state) or free(state))
    path = tokenizer.encode("once upon a time there was a little fox " * 8)
    for n in range(len(path)):
        assert constraint.allowed(path[:n], np.array([path[n]]))[0]
        assert len(made) - len(freed) <= KEPT
    assert len(made) == len(path) - 1  # each token was read once
    constraint.allowed(path[:5], np.array([path[5]]))
    constraint.close()
    constraint.close()
    assert len(freed) == len(made) + 1  # the beginning
    with pytest.raises(UsageError, match="the grammar is closed: expected an open one"):
        constraint.allowed([], np.array([1]))


def test_a_closed_model_ends_in_one_line():
    opened = LlamaCppTokenizer.open(DEMO)
    constraint = constraint_of(opened, 'root ::= "a"')
    opened.close()
    with pytest.raises(TokenizerError, match="the model is closed"):
        constraint.allowed([], np.array([1]))
    constraint.close()


@pytest.mark.parametrize(
    "gbnf, message",
    [
        ("", "the grammar is empty: expected GBNF"),
        (" \n", "the grammar is empty"),
        ("hello", "'hello' was refused .*: expected GBNF with a rule named root"),
        ('a ::= "x"', "does not contain a 'root' symbol"),
        ("root ::= other", "was refused"),
        ('root ::= root "a" | "b"', "left recursion"),
        ("root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000, "200000 deep: expected at most 1000"),
        ("root ::= " + " | ".join(f'"{n}"' for n in range(4000)), "of 4000 alternatives: expected"),
        ('root ::= "' + "a" * 2_000_000 + '"', "expected at most 1048576; shorten it"),
    ],
)
def test_a_bad_grammar_ends_in_one_line(tokenizer, gbnf, message):
    with pytest.raises(UsageError, match=message) as caught:
        constraint_of(tokenizer, gbnf, n_tokens=9)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 2000, "maxLength": 5000},
        {"type": "array", "items": json.loads(PERSON), "minItems": 2000, "maxItems": 5000},
        {"type": "string", "pattern": "^(a|b[cd]e){2000}f{0,5000}$"},
    ],
)
def test_llama_cpp_takes_the_longest_repetitions_that_a_schema_may_have(tokenizer, schema):
    constraint = constraint_of(tokenizer, gbnf_of(json.dumps(schema)), n_tokens=40)
    first = constraint.allowed([], np.arange(tokenizer.n_vocab))
    assert first.any() and not first.all()


def test_a_grammar_that_only_llama_cpp_reads_may_be_cut_and_says_so(tokenizer, caplog):
    constraint = constraint_of(tokenizer, "root ::= <[7]> | [a-z]+", n_tokens=5)
    assert isinstance(constraint, LlamaCppConstraint)
    assert "may be cut by the token limit" in caplog.text


def ask(session: Session, n_tokens: int, gbnf: str, **params) -> str:
    constraint = constraint_of(session.tokenizer, gbnf, n_tokens=n_tokens)
    prompt = session.prompt([{"role": "user", "content": "Tell me a story about a fox."}])
    given = {"max_tokens": n_tokens, "constraint": constraint, **params}
    steps = list(session.steps(prompt, replace(session.params(), **given)))
    assert session.turns.finish in ("stop", "length")
    return session.decode([token for step in steps for token in step.verdict.tokens])


@pytest.mark.slow
@pytest.mark.parametrize("schema, n_tokens", [(PERSON, 50), ("", 30)])
def test_greedy_json_is_the_same_with_and_without_speculation(session, schema, n_tokens):
    gbnf = gbnf_of(schema)
    told = ask(session, n_tokens, gbnf)
    assert session.stats.n_accepted > 0
    assert session.stats.n_tested <= session.stats.n_drafted
    with edgespec.load(speculative="off", threads=1) as plain:
        assert ask(plain, n_tokens, gbnf) == told
    json.loads(told)


@pytest.mark.slow
def test_an_answer_that_the_limit_made_end_says_length(session):
    """It parses either way; with and without drafts, and when sampled."""
    gbnf = gbnf_of(PERSON)
    with edgespec.load(speculative="off", threads=1) as plain:
        for one, temperature in ((session, 0.0), (session, 1.0), (plain, 0.0)):
            found = {}
            for n_tokens in (16, 24, 200):
                json.loads(ask(one, n_tokens, gbnf, temperature=temperature, seed=1))
                found[n_tokens] = one.turns.finish
                assert len(one.turns.output) <= n_tokens
            assert found == {16: "length", 24: "length", 200: "stop"}
        n_whole = len(plain.turns.output)
        for n_left, finish in ((0, "stop"), (-1, "length")):
            ask(plain, n_whole + n_left, gbnf)
            assert (plain.turns.finish, len(plain.turns.output)) == (finish, n_whole + n_left)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule, chain",
    [("match", {}), ("rejection", {"top_k": 20, "top_p": 0.9}), ("block", {"min_p": 0.05})],
)
def test_drawn_json_parses_by_every_rule(session, rule, chain):
    found = ask(session, 60, gbnf_of(PERSON), temperature=1.0, verification=rule, **chain)
    person = json.loads(found)
    assert len(person["name"]) <= 12 and 0 <= person["age"] <= 120


def test_the_library_is_loaded_with_the_first_grammar_only():
    code = "import sys; from edgespec.decode import constrained; "
    code += "from edgespec.grammar import schema; "
    code += "print('llama_cpp' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
    assert llamacpp_grammar.gbnf_of is gbnf_of
