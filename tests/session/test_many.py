"""Several requests at once by real models: each is answered as it is alone."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import hybrid_maker
import pytest
import window_maker

import edgespec
from edgespec.check.lossless import first_difference, float_error_of
from edgespec.config import Config
from edgespec.drafters.bridges.ngram_file import read
from edgespec.errors import BackendError, Cancelled, ContextError, UsageError
from edgespec.session.many.many import Many
from edgespec.session.many.opening import (
    caches_bytes,
    foreseen,
    needed_bytes,
    open_many,
    sizes,
    why_not,
)
from edgespec.session.many.solo import Solo

TOPICS = ("a fox", "a kite", "two friends", "a boat", "the moon", "a lost dog", "a cake", "rain")
TABLE = "I want to book a table."
N = 24


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("EDGESPEC_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def many(home):
    with open_many(Config(threads=1, ctx_size=512), n_parallel=8, n_queue=8) as opened:
        assert isinstance(opened, Many)
        yield opened


@pytest.fixture(scope="module")
def alone(home):
    with edgespec.load(threads=1, ctx_size=512, speculative="off") as session:
        yield session


def asked(topic: str, how: str = "Tell me") -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{how} a story about {topic}."}]


def begin(many, text, **options):
    config = many.with_options(options, many.template.stop)
    return many.begin(many.prompt(text), config, options)


def said(begun) -> str:
    return "".join(piece.text for piece in begun.pieces)


def tied(alone, prompt, one, other, noise) -> bool:
    """Whether two outputs part where the target's two best are closer than its noise."""
    at = first_difference(one, other)
    alone.target.truncate(0)
    logits = alone.target.forward([*prompt, *one[:at]], n_rows=1)[-1]
    return abs(float(logits[one[at]] - logits[other[at]])) <= noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"), [("off", "Tell me"), ("auto", "Please tell us"), ("on", "I want to hear")]
)
def test_eight_at_once_say_what_each_says_alone(many, alone, how, words):
    all_ = [begin(many, asked(topic, words), max_tokens=N, speculative=how) for topic in TOPICS]
    texts = [said(one) for one in all_]
    noise = 0.0
    for topic, begun, text in zip(TOPICS, all_, texts, strict=True):
        prompt = alone.prompt(asked(topic, words))
        expected = "".join(p.text for p in alone.chat(asked(topic, words), max_tokens=N))
        output = alone.turns.output
        if begun.result.output == output:
            assert text == expected
            continue
        noise = noise or 2 * float_error_of(alone.target, prompt[:40])
        assert tied(alone, list(prompt), output, begun.result.output, noise), topic
    assert [one.result.finish for one in all_] == ["length"] * 8
    assert many.rounds.n_shared > 10
    n_drafted = sum(one.counted().n_drafted for one in all_)
    assert (n_drafted > 0) == (how != "off")
    assert all(one.counted().plain_token_s > 0 for one in all_)


def test_the_model_drafts_for_several_at_once(many):
    many.rounds.forget()  # else n-grams find most in what was said before
    new = [asked(topic, "Sing me") for topic in TOPICS[:4]]
    all_ = [begin(many, one, max_tokens=N, speculative="on") for one in new]
    assert all(said(one) for one in all_)
    arms = [one.counted().arms for one in all_]
    assert sum(arm["model"].n_accepted for arm in arms if "model" in arm) > 25


def test_an_answer_ends_as_its_options_say(many):
    seeded = {"temperature": 0.8, "seed": 3, "max_tokens": 12}
    one, other = begin(many, asked("tea"), **seeded), begin(many, asked("tea"), **seeded)
    stopped = begin(many, asked("a fox"), max_tokens=60, stop=["."], speculative="on")
    short = begin(many, [{"role": "user", "content": TABLE}], max_tokens=60, n_top=2)
    pieces = list(short.pieces)
    assert "." not in said(stopped) and stopped.result.finish == "stop"
    assert short.result.finish == "stop"
    assert all(len(score.top) == 2 for piece in pieces for _, score in piece.scores)
    assert said(one) == said(other)
    assert one.counted().n_tokens == 12


def test_an_answer_follows_its_schema_beside_others(many):
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'
    other = begin(many, asked("a fox"), max_tokens=20)
    text = said(begin(many, asked("a number"), json_schema=schema, max_tokens=40))
    assert text.startswith("{") and text.rstrip().endswith("}")
    assert said(other)


@pytest.mark.parametrize("n_read", [0, 2])
def test_who_stops_reading_frees_its_slot_within_a_round(many, n_read):
    begun = begin(many, asked("a fox"), max_tokens=400)
    for _ in range(n_read):
        next(begun.pieces)
    begun.pieces.close()
    before = many.rounds.n_rounds
    while many.load().n_running:
        pass
    assert many.rounds.n_rounds <= before + 2
    assert begun.result.finish == "cancelled"
    dropped = begin(many, asked("a fox"), max_tokens=400)
    del dropped
    while many.load().n_running:
        pass


def test_what_does_not_fit_is_refused_and_hurts_nobody(many):
    other = begin(many, asked("a boat"), max_tokens=20)
    config = many.with_options({})
    with pytest.raises(ContextError, match="the prompt has 600 tokens, the context holds 512"):
        many.begin([1] * 600, config, {})
    with pytest.raises(UsageError, match="the prompt has no tokens"):
        many.begin([], config, {})
    with pytest.raises(UsageError, match="temperature is"):
        many.with_options({"temperature": "hot"})
    assert said(other)
    # An answer that fills its share of the context ends there.
    full = many.begin([5] * 505, many.with_options({"max_tokens": 60}), {"max_tokens": 60})
    said(full)
    assert full.result.finish in ("context", "stop")
    assert len(full.result.output) <= 8


def test_a_failing_forward_ends_all_in_one_line_and_the_next_work(many, monkeypatch):
    expected = said(begin(many, asked("rain"), max_tokens=10))
    model, real = type(many.target), type(many.target).forward_sequences
    calls = []

    def broken(self, parts):
        calls.append(len(parts))
        if self is many.target and len(calls) > 4:
            raise BackendError("llama_decode returned 3: expected 0; report it")
        return real(self, parts)

    monkeypatch.setattr(model, "forward_sequences", broken)
    how = {"max_tokens": 40, "speculative": "off"}  # drafts might end one before
    all_ = [begin(many, asked(topic), **how) for topic in TOPICS[:3]]
    for one in all_:
        with pytest.raises(BackendError, match="llama_decode returned 3"):
            said(one)
    monkeypatch.undo()
    assert said(begin(many, asked("rain"), max_tokens=10)) == expected


def test_all_threads_may_ask(many):
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        texts[i] = said(begin(many, asked(TOPICS[i % 4]), max_tokens=10))

    threads = [threading.Thread(target=ask, args=[i]) for i in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(texts) == list(range(12)) and all(texts.values())


def test_closing_ends_what_goes_on(home):
    config = Config(threads=1, ctx_size=512, speculative="off")
    with open_many(config, n_parallel=2) as opened:
        begun = begin(opened, asked("a fox"), max_tokens=400)
        next(begun.pieces)
    with pytest.raises(Cancelled, match="closed"):
        said(begun)
    with pytest.raises(UsageError, match="the model is closed"):
        opened.begin([1], opened.config, {})


def test_a_drafter_of_another_vocabulary_drafts_for_each(home, alone):
    config = Config(pair="demo-foreign", threads=1, ctx_size=512)
    known = set(home.rglob("pace/*.json"))
    with open_many(config, n_parallel=2) as opened:
        both = [
            begin(opened, asked(topic), max_tokens=24, speculative="on", **how)
            for topic in TOPICS[:1]
            for how in ({}, {"temperature": 0.5})
        ]
        assert all(map(said, both))
        assert all(one.counted().arms["model"].n_accepted for one in both)
        ngrams = opened._drafting.learned.kinds[1]
        said(begin(opened, asked(TOPICS[0]), max_tokens=24, speculative="on"))
        assert len(ngrams._new) < sum(ngrams._new.values())  # seen again: no more to remember
    (file,) = home.rglob("ngrams/*.bin")
    entries = {pieces: hits for pieces, _, hits in read(file)[1]}
    (pace,) = set(home.rglob("pace/*.json")) - known
    n_tested = json.loads(pace.read_text())["planner"]["sources"]["model"]["tested"]
    assert ngrams._new == {} and max(entries.values()) > 1
    assert set(entries) == {pieces for pieces, _, _ in ngrams.cache.entries()}
    assert n_tested == opened._drafting.worth.n_tested > 0
    expected = "".join(p.text for p in alone.chat(asked(TOPICS[0]), max_tokens=24))
    assert len(expected) > 20 and both[0].result.output == alone.turns.output


def test_one_at_a_time_waits_in_line(home):
    with open_many(Config(threads=1, ctx_size=256), n_parallel=1, n_queue=2) as solo:
        assert isinstance(solo, Solo)
        first = begin(solo, asked("a fox"), max_tokens=200)
        next(first.pieces)
        second = begin(solo, asked("a fox"), max_tokens=8)
        first.pieces.close()
        assert said(second)
        assert len(second.result.output) == 8 and second.counted().n_tokens == 8
        assert first.result.finish == "cancelled"
        with pytest.raises(ContextError, match="the context holds 256"):
            solo.begin([1] * 300, solo.config, {})


def test_a_drafter_that_needs_a_model_is_refused_without_one(alone):
    with pytest.raises(UsageError, match="--drafter model without a draft model: give one"):
        open_many(Config(model=str(alone.pair.path), drafter="ngram,model"), n_parallel=2)


def test_a_draft_model_that_reads_one_text_leaves_all_to_ngrams(home, caplog):
    drafter = Path(edgespec.__file__).parents[1] / "models" / "demo" / "hybrid.gguf"
    config = Config(threads=1, ctx_size=256, drafter="model", draft_model=str(drafter))
    with open_many(config, n_parallel=2) as opened:
        assert "n-grams draft alone" in caplog.text
        assert opened._drafting._looks_up and opened._drafting._together is None


@pytest.mark.slow
def test_targets_that_read_one_text_are_told_apart(tmp_path: Path):
    plain = Config(speculative="off")
    hybrid = hybrid_maker.make(tmp_path / "hybrid.gguf", "mamba2")
    windowed = window_maker.make(tmp_path / "windowed.gguf", "gemma3")
    assert "keeps a recurrent state" in why_not(hybrid, plain)
    assert "keeps windows" in why_not(windowed, plain)
    assert why_not(windowed, Config(exact=True)) == "--exact"
    folder = tmp_path / "graph"
    folder.mkdir()
    assert "ONNX Runtime" in why_not(folder, plain)


def test_a_stop_string_ends_an_answer_that_nobody_reads_yet(many):
    whole = said(begin(many, asked("a fox"), max_tokens=N))
    stop = whole[len(whole) // 2 :][:6]
    options = {"max_tokens": 400, "stop": [stop], "logit_bias": endless(many)}
    begun = begin(many, asked("a fox"), **options)
    wait_until(lambda: begun.counted().n_tokens and many.load().n_running == 0)
    n_said = begun.counted().n_tokens
    assert said(begun) == whole[: whole.index(stop)]
    assert begun.result.finish == "stop" and n_said <= N


def test_drafters_caches_count_among_those_that_memory_has_to_hold(monkeypatch):
    bare = Config(ctx_size=4096, drafter="ngram")
    n_bytes = 4 * needed_bytes_of_caches(bare, 4)
    monkeypatch.setattr("edgespec.session.many.opening.free_memory", lambda: n_bytes)
    assert sizes(bare, None, 0) == (4096, 4)
    assert sizes(Config(ctx_size=4096), None, 0)[1] < 4


def test_no_more_sequences_are_had_than_fit_beside_the_weights(monkeypatch):
    monkeypatch.setattr("edgespec.session.many.opening.SHARE", 1)
    config = Config(ctx_size=256, drafter="ngram")
    kept = needed_bytes(config, n_parallel=1) - needed_bytes_of_caches(config, 1)
    for n in (3, 1):
        room = kept + needed_bytes_of_caches(config, n)
        monkeypatch.setattr("edgespec.session.many.opening.free_memory", lambda room=room: room)
        assert sizes(config, None, 0) == (256, n)
        assert needed_bytes(config) == room


def needed_bytes_of_caches(config, n) -> int:
    target, draft = foreseen(config, None)
    return caches_bytes(target, draft, config, n, config.ctx_size)


def endless(many) -> dict[str, float]:
    return dict.fromkeys(many.tokenizer.stop_tokens, -100.0)


def wait_until(true, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)
