"""session.py with a trained model of 260K parameters: text in, text out, and what can go wrong."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edgespec
from edgespec.config import Config
from edgespec.drafters.paced import Plain
from edgespec.errors import (
    BackendError,
    BusyError,
    Cancelled,
    ContextError,
    EdgeSpecError,
    TokenizerError,
    UsageError,
)
from edgespec.pace import cost_store
from edgespec.pace.cost import CostTable, LiveCosts, plain_token_s
from edgespec.session.load import load
from edgespec.session.methods import Method
from edgespec.session.opening import SMALL_BYTES, options_of
from edgespec.session.session import Session
from edgespec.types import Draft, FloatArray, Round, SamplingParams, Stats

PROMPT = "Once upon a time, there was a little"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for all tests of a run: a model file is tried out in it only once."""
    folder = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("EDGESPEC_HOME", str(folder))
    return folder


@pytest.fixture
def session(stories260k: Path) -> Iterator[Session]:
    """Two drafted tokens a round by looking the text up."""
    with load(stories260k, speculative="on", draft_tokens=2, ctx_size=256, threads=1) as one:
        yield one


@pytest.fixture(scope="module")
def plain_text(stories260k: Path) -> str:
    """What the model says without speculation."""
    with load(stories260k, speculative="off", ctx_size=256, threads=1) as one:
        return "".join(piece.text for piece in one.generate(PROMPT, max_tokens=60))


def text_of(session: Session, prompt: str = PROMPT, n: int = 60, **given: object) -> str:
    return "".join(
        piece.text
        for piece in session.generate(prompt, max_tokens=n, **given)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("drafter", ["ngram", "model", "model,ngram"])
@pytest.mark.parametrize("speculative", ["auto", "on"])
def test_every_drafter_gives_the_plain_text(
    stories260k: Path, plain_text: str, drafter: str, speculative: str
) -> None:
    options = {"drafter": drafter, "speculative": speculative, "ctx_size": 256, "threads": 1}
    with load(stories260k, stories260k, **options) as one:  # type: ignore[arg-type]
        assert text_of(one) == plain_text
        assert one.stats.n_tokens == 60


def test_a_target_that_drafts_for_itself_accepts_everything(stories260k: Path) -> None:
    with load(stories260k, stories260k, speculative="on", draft_tokens=3, threads=1) as one:
        flags = [piece.from_draft for piece in one.generate(PROMPT, max_tokens=40)]
        assert one.stats.acceptance_rate == 1.0
        assert one.stats.block_efficiency == 4.0
        assert flags.count(True) == pytest.approx(30, abs=2)


def test_pieces_join_to_the_text_of_all_tokens(session: Session) -> None:
    assert text_of(session) == session.decode(session.turns.output)
    assert (session.turns.finish, len(session.turns.output)) == ("length", 60)


def test_a_stop_string_ends_the_text_before_it(session: Session, plain_text: str) -> None:
    stop = plain_text[30:37]
    assert text_of(session, stop=stop) == plain_text[: plain_text.index(stop)]
    assert session.turns.finish == "stop"
    assert text_of(session) == plain_text


def test_a_change_of_method_starts_with_empty_caches(stories260k: Path, plain_text: str) -> None:
    with load(stories260k, stories260k, speculative="on", ctx_size=256, threads=1) as one:
        assert text_of(one) == plain_text
        assert one.pair.draft_model is not None
        assert one.pair.draft_model.length > 60
        one.use(one.pair.methods.named("fixed-2"))
        assert one.pair.draft_model.length == 0
        assert text_of(one) == plain_text
        assert one.stats.n_prompt == len(one.encode(PROMPT))


def test_what_waited_for_a_stop_string_that_never_came_is_shown(
    session: Session, plain_text: str
) -> None:
    assert text_of(session, stop=plain_text[-3:] + "no") == plain_text


@pytest.mark.slow
def test_a_full_context_ends_the_text_and_says_so(session: Session) -> None:
    n_prompt = len(session.encode(PROMPT))
    text_of(session, n=1000)
    assert session.turns.finish == "context"
    assert n_prompt + len(session.turns.output) == pytest.approx(256, abs=1)


def test_a_prompt_longer_than_the_context_is_refused(session: Session, plain_text: str) -> None:
    with pytest.raises(ContextError, match="the context holds 256"):
        text_of(session, prompt=PROMPT * 40)
    assert text_of(session) == plain_text


def test_a_generator_closed_early_leaves_the_session_usable(
    session: Session, plain_text: str
) -> None:
    pieces = session.generate(PROMPT)
    for _ in range(5):
        next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert text_of(session) == plain_text


def test_a_second_generation_ends_the_first(session: Session, plain_text: str) -> None:
    first = session.generate("Tom had a ball.")
    next(first)
    assert text_of(session) == plain_text
    with pytest.raises(Cancelled, match="another generation began"):
        list(first)
    assert session.turns.finish == "length"  # of the second, which the first cannot touch any more


def test_another_thread_is_told_that_the_session_is_busy(session: Session, plain_text: str) -> None:
    seen: list[object] = []

    def ask() -> None:
        try:
            seen.append(text_of(session))
        except EdgeSpecError as error:
            seen.append(error)

    def from_another_thread() -> object:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return seen.pop()

    first = session.generate(PROMPT, max_tokens=60)
    said = next(first).text
    refused = from_another_thread()
    assert isinstance(refused, BusyError)
    assert "another thread's generation is in progress" in str(refused)
    assert said + "".join(piece.text for piece in first) == plain_text
    assert from_another_thread() == plain_text
    first = session.generate(PROMPT)
    next(first)
    del first  # dropped, hence closed
    assert from_another_thread() == plain_text
    first = session.generate(PROMPT)
    next(first)
    session.cancel()
    assert from_another_thread() == plain_text
    with pytest.raises(Cancelled):
        list(first)


def from_a_thread(work: Callable[[], object]) -> object:
    """What `work` gives, or raises, in a thread of its own."""
    seen: list[object] = []

    def run() -> None:
        try:
            seen.append(work())
        except EdgeSpecError as error:
            seen.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen.pop()


def test_another_thread_cannot_change_the_way_of_decoding(
    session: Session, plain_text: str
) -> None:
    pieces = session.generate(PROMPT, max_tokens=60)
    said = next(pieces).text
    plain = session.pair.methods.named("plain")
    for work in (lambda: session.speculate("off"), lambda: session.use(plain)):
        assert isinstance(from_a_thread(work), BusyError)
    assert isinstance(from_a_thread(lambda: session.pair.costs), CostTable)  # between two rounds
    assert said + "".join(piece.text for piece in pieces) == plain_text


def test_nobody_begins_while_a_round_is_computed(
    session: Session, plain_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    forward, began = session.target.forward, threading.get_ident()

    def watched(tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        logits = forward(tokens, parents)
        if not seen and threading.get_ident() != began:
            turn.set()
            answered.wait(30)
        return logits

    turn, answered = threading.Event(), threading.Event()
    monkeypatch.setattr(session.target, "forward", watched)
    pieces = session.generate(PROMPT, max_tokens=60)
    thread = threading.Thread(target=lambda: seen.extend(pieces))
    thread.start()
    turn.wait(30)
    with pytest.raises(BusyError):
        session.generate(PROMPT)
    seen.append(None)
    answered.set()
    thread.join()
    assert "".join(piece.text for piece in seen[1:]) == plain_text  # type: ignore[attr-defined]
    assert len(session.turns.output) == 60


def test_a_generation_that_was_ended_does_not_run(session: Session) -> None:
    first = session.generate(PROMPT, max_tokens=9)
    text_of(session)
    with pytest.raises(Cancelled, match="another generation began"):
        next(first)
    assert not session.turns.running
    session.generate(PROMPT, max_tokens=9)
    assert session.stats == Stats()  # it has not begun


def test_closing_within_a_round_frees_the_models_after_it(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = load(stories260k, speculative="off", threads=1)
    forward = session.target.forward

    def closing(tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        session.close()  # as a signal handler might
        return forward(tokens, parents)

    monkeypatch.setattr(session.target, "forward", closing)
    with pytest.raises(Cancelled):
        list(session.generate(PROMPT, max_tokens=9))
    with pytest.raises(UsageError, match="closed"):
        session.generate(PROMPT)
    with pytest.raises(BackendError, match="closed"):
        session.target.extend([1])


@pytest.mark.slow
def test_costs_measured_late_are_those_of_an_empty_context(stories260k: Path, home: Path) -> None:
    for file in (home / "costs").glob("*"):
        file.unlink()
    with load(stories260k, speculative="off", ctx_size=256, threads=1) as one:
        text_of(one, n=1000)
        assert one.turns.finish == "context"
        one.speculate("auto")
        assert len(one.pair.costs.seconds) == 17
        assert text_of(one) == text_of(one, speculative="off")


def test_threads_that_take_turns_get_whole_answers(session: Session, plain_text: str) -> None:
    turn, seen = threading.Lock(), list[str]()

    def ask() -> None:
        with turn:
            seen.append(text_of(session))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [plain_text] * 4


def test_an_iterator_may_move_between_threads(session: Session, plain_text: str) -> None:
    async def said() -> str:
        pieces, text = session.generate(PROMPT, max_tokens=60), ""
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            text += piece.text
        return text

    assert asyncio.run(said()) == plain_text


def test_closing_from_another_thread_waits_for_the_round_in_progress(stories260k: Path) -> None:
    session = load(stories260k, speculative="off", threads=1)
    pieces = session.generate(PROMPT, max_tokens=400)
    next(pieces)
    thread = threading.Thread(target=session.close)
    with pytest.raises(Cancelled):
        for n, _ in enumerate(pieces):
            if n == 5:
                thread.start()
    thread.join()
    with pytest.raises(UsageError, match="closed"):
        session.generate(PROMPT)


def test_drafting_is_switched_without_reading_the_target_again(
    stories260k: Path, plain_text: str
) -> None:
    with load(stories260k, stories260k, speculative="off", ctx_size=256, threads=1) as one:
        assert (one.pair.draft_model, one.stats.n_drafted) == (None, 0)
        assert text_of(one) == plain_text
        one.speculate("on")
        assert text_of(one) == plain_text
        assert one.stats.n_drafted > 0
        assert one.stats.n_prompt == 1
        assert one.config.speculative == "on"
        assert text_of(one, speculative="off") == plain_text
        assert one.stats.n_drafted == 0
        assert text_of(one) == plain_text
        assert one.stats.n_drafted > 0
        with pytest.raises(UsageError, match="speculative is 'maybe': expected one of auto, on"):
            one.speculate("maybe")
        with pytest.raises(UsageError, match="did you mean 'temperature'"):
            text_of(one, temprature=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("speculative", ["on", "auto"])
def test_a_call_may_draft_less_and_the_next_one_as_much_as_ever(
    stories260k: Path, plain_text: str, speculative: str
) -> None:
    with load(stories260k, stories260k, speculative=speculative, ctx_size=256, threads=1) as one:
        most = one.method.speculator.most
        for n in (1, 0, 2, "auto", 99):
            assert text_of(one, draft_tokens=n) == plain_text
            allowed = most if n == "auto" else min(int(n), most)
            assert len(one.stats.rounds_by_length) - 1 <= allowed
            assert one.method.speculator.most == allowed
        messages = [{"role": "user", "content": PROMPT}]
        one.create_chat_completion(messages, draft_tokens=1, speculative="on", max_tokens=8)
        assert one.method.speculator.most == 1 and len(one.stats.rounds_by_length) == 2
        assert text_of(one) == plain_text
        assert one.method.speculator.most == most
        with pytest.raises(UsageError, match="draft_tokens is 'few': expected a number of tokens"):
            text_of(one, draft_tokens="few")


def test_what_is_limited_holds_for_all_answers_until_it_is_lifted(session: Session) -> None:
    def widest(**options: Any) -> int:
        assert len(list(session.generate(PROMPT, max_tokens=60, **options))) > 30
        return len(session.stats.rounds_by_length) - 1

    assert widest() == 2
    session.limit(threads=1, draft_tokens=1)
    assert widest() == widest(draft_tokens=2) == 1
    assert widest(draft_tokens=0) == 0
    session.limit()
    assert widest() == 2


def test_what_was_drafted_and_why_not_is_logged(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "edgespec"):
        text_of(session)
        text_of(session, speculative="off")
    told = [one.getMessage() for one in caplog.records]
    assert told[-2].startswith("fixed-2: rounds by tokens verified  0: ")
    assert "; ngram drafted in " in told[-2]
    assert told[-1] == "plain: no drafts"


def test_a_way_of_decoding_that_was_refused_is_refused_again(
    stories260k: Path, plain_text: str
) -> None:
    tree = Parrot()
    tree.n_leaves = 1 << 20  # more than any target reads
    with load(stories260k, drafter=tree, speculative="off", ctx_size=256, threads=1) as one:
        for _ in range(2):
            with pytest.raises(UsageError, match="parrot branches into 1048576 leaves"):
                text_of(one, speculative="on")
        assert text_of(one) == plain_text


def test_a_bridge_that_is_not_lossless_is_named() -> None:
    rough: Any = SimpleNamespace(lossless=False)
    method = Method("auto", Plain(), "rough", rough)
    with pytest.raises(UsageError, match="the bridge rough is not lossless when sampling"):
        method.check_lossless(SamplingParams(temperature=1.0), Config())


def test_the_gain_over_plain_decoding_is_measured_not_assumed(stories260k: Path) -> None:
    with load(stories260k, stories260k, speculative="on", threads=1) as one:
        text_of(one)
        assert one.stats.speedup == 0  # nothing was measured
        one.speculate("auto")
        text_of(one)
        assert one.stats.speedup > 0
        text_of(one, speculative="off")
        assert one.stats.speedup == pytest.approx(1, abs=0.1)


def test_a_busy_device_is_no_gain_and_no_loss() -> None:
    table = CostTable((1.0, 1.5, 2.0))
    counts = {"n_tokens": 10, "n_rounds": 5, "rounds_by_length": (1, 2, 2)}
    for slower in (1, 7):
        stats = Stats(**counts, target_s=8.0 * slower, draft_s=1.0, single_s=0.1)
        assert plain_token_s(stats, LiveCosts(table)) == pytest.approx(1.0 * slower + 0.1)
    long = Stats(n_tokens=5, n_rounds=1, rounds_by_length=(0, 0, 0, 0, 1), target_s=4, decode_s=4)
    assert plain_token_s(long, LiveCosts(table)) == pytest.approx(2.0)  # wider than the table


def test_it_says_what_runs_where(stories260k: Path) -> None:
    with load(stories260k, stories260k, speculative="on", threads=2, device="cpu") as one:
        assert one.where() == "target on CPU, 2 threads; drafter on CPU, 1 thread"
        one.speculate("off")
        assert one.where() == "target on CPU, 2 threads; no drafter"


def test_each_model_has_its_own_kind_of_cache() -> None:
    with load(kv_type="q8_0", speculative="on", drafter="model", threads=1) as one:
        assert one.where() == "target on CPU, 1 thread, q8_0 cache; drafter on CPU, 1 thread"
    with load(kv_type_draft="q4_0", speculative="on", drafter="model", threads=1) as one:
        assert one.where() == "target on CPU, 1 thread; drafter on CPU, 1 thread, q4_0 cache"
    with pytest.raises(UsageError, match="kv_type is 'q2': expected one of f16, q8_0, q4_0"):
        load(kv_type="q2")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (0, 0)),
        ({"threads": 3}, (3, 3)),
        ({"threads": 3, "threads_draft": 1}, (3, 1)),
        ({"threads_draft": 1}, (0, 1)),
    ],
)
def test_a_drafter_that_takes_turns_has_the_targets_threads(
    asked: dict[str, Any], expected: tuple[int, int]
) -> None:
    target, drafter = options_of(Config(**asked))
    assert (target.n_threads, drafter.n_threads) == expected


def test_a_small_drafter_has_one_thread_unless_told(tmp_path: Path) -> None:
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    small.write_bytes(b"GGUF")
    with large.open("wb") as file:
        file.truncate(SMALL_BYTES)
    threads = {path: options_of(Config(threads=4), path)[1].n_threads for path in (small, large)}
    assert threads == {small: 1, large: 4}
    assert options_of(Config(threads_draft=2), small)[1].n_threads == 2


def test_layers_on_the_gpu_are_the_targets() -> None:
    for asked, expected in ((None, -1), (0, 0), (7, 7)):
        target, drafter = options_of(Config(n_gpu_layers=asked))
        assert (target.n_gpu_layers, drafter.n_gpu_layers) == (expected, -1)


@pytest.mark.parametrize(
    "changed", [{"threads": 3}, {"device": "cpu"}, {"kv_type": "q8_0"}, {"n_gpu_layers": 2}]
)
def test_a_cost_table_belongs_to_how_the_target_is_opened(
    stories260k: Path, changed: dict[str, Any]
) -> None:
    names = {cost_store.key_of(stories260k, one) for one in (Config(), Config(**changed))}
    assert len(names) == 2
    assert cost_store.key_of(stories260k, Config(ctx_size=99, kv_type_draft="q8_0")) in names


def test_cancel_from_another_thread_ends_the_text_there(session: Session, plain_text: str) -> None:
    said = ""
    with pytest.raises(Cancelled):
        for piece in session.generate(PROMPT, max_tokens=200):
            said += piece.text
            if len(said) > 20 and session.turns.running:
                thread = threading.Thread(target=session.cancel)
                thread.start()
                thread.join()
    assert plain_text.startswith(said)
    assert (session.turns.finish, session.turns.running) == ("cancelled", False)
    assert text_of(session) == plain_text


def test_ctrl_c_inside_a_forward_leaves_the_session_usable(
    session: Session, plain_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, n_calls = session.target.forward, 0

    def interrupted(tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        nonlocal n_calls
        n_calls += 1
        logits = forward(tokens, parents)
        if n_calls == 4:
            raise KeyboardInterrupt
        return logits

    monkeypatch.setattr(session.target, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        text_of(session)
    assert n_calls == 4
    assert text_of(session) == plain_text


class Parrot:
    """Always drafts the context's last token."""

    name, n_leaves = "parrot", 1
    n_asked = n_closed = 0

    def draft(self, context, k, drawing=None):  # type: ignore[no-untyped-def]
        self.n_asked += 1
        return Draft((context[-1],) * k, sources=(self.name,) * k)

    def observe(self, done: Round) -> None:
        """Learns nothing."""

    def close(self) -> None:
        self.n_closed += 1


def test_an_app_can_bring_its_own_drafter(stories260k: Path, plain_text: str) -> None:
    parrot = Parrot()
    with load(stories260k, drafter=parrot, speculative="on", threads=1, ctx_size=256) as one:
        assert text_of(one) == plain_text
    assert parrot.n_asked > 10
    assert parrot.n_closed == 0  # it is the app's


class Half:
    """A drafter that lacks a method, and whose `close` is none."""

    name, close = "half", True

    def draft(self, context: Sequence[int], k: int, **_: object) -> Draft:
        return Draft()


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (
            object(),
            "lacks name, n_leaves, close, draft, observe: expected an object with name",
        ),
        (Half(), "lacks n_leaves, observe, close: expected an object with"),
        (Parrot, "is a class, not an object of it: expected an object"),
    ],
)
def test_what_is_no_drafter_is_refused_before_a_model_is_opened(
    tmp_path: Path, own: object, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        load(tmp_path / "none.gguf", drafter=own)  # type: ignore[arg-type]


def test_same_seed_same_text_whatever_the_drafter(stories260k: Path) -> None:
    texts = set()
    for options in ({"speculative": "off"}, {"speculative": "on"}):
        with load(stories260k, temperature=0.9, seed=7, threads=1, **options) as one:  # type: ignore[arg-type]
            texts.add(text_of(one))
            texts.add(text_of(one))
            assert text_of(one, seed=8) not in texts
    assert len(texts) == 1


def test_chat_without_a_template_says_so_and_answers(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pieces = list(session.chat([{"role": "user", "content": "Hi"}], max_tokens=8))
    assert "using a plain transcript" in caplog.text
    assert pieces


def test_a_growing_conversation_reads_only_what_is_new(session: Session) -> None:
    messages = [{"role": "user", "content": "Tell me a story."}]
    said = "".join(piece.text for piece in session.chat(messages, max_tokens=20))
    before = session.stats.n_prompt
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "More."}]
    list(session.chat(messages, max_tokens=4))
    assert session.stats.n_prompt < len(session.template.tokens(messages)) - before + 5


def test_another_vocabulary_is_refused_where_the_same_is_asked_for(
    stories260k: Path, tmp_path: Path
) -> None:
    data = stories260k.read_bytes()
    word = "▁there".encode()
    assert data.count(word) >= 1
    other = tmp_path / "other.gguf"
    other.write_bytes(data.replace(word, "▁theme".encode()))
    with pytest.raises(UsageError, match="vocabulary differs.*'.?theme', not.*auto") as caught:
        load(stories260k, other, bridge="same", threads=1)
    assert "\n" not in str(caught.value)
    with load(stories260k, other, drafter="ngram", threads=1) as one:
        assert one.pair.draft_model is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pair": "demi"}, "no pair is called 'demi': did you mean demo"),
        ({"model": "/no/such.gguf"}, "no/such.gguf"),
        ({"model": "x.bin"}, "x.bin does not exist: expected a model file"),
        ({"top_p": 0.0}, "--top-p is 0.0: expected over 0"),
        ({"stop": [""]}, "at least one character"),
        ({"speculative": "sometimes"}, "expected one of auto, on, off"),
    ],
)
def test_bad_options_end_in_one_line(options: dict[str, object], expected: str) -> None:
    with pytest.raises(EdgeSpecError, match=expected):
        load(**options)  # type: ignore[arg-type]


def test_too_long_a_fixed_draft_is_refused(stories260k: Path) -> None:
    with pytest.raises(UsageError, match="draft length 99: expected 0 to 16"):
        load(stories260k, speculative="on", draft_tokens=99)


def test_a_model_drafter_without_a_model_is_refused(stories260k: Path) -> None:
    with pytest.raises(UsageError, match="--drafter model without a draft model: give one"):
        load(stories260k, drafter="model", speculative="on")


def test_bad_values_of_a_call_are_refused_when_called(session: Session) -> None:
    with pytest.raises(UsageError, match="generate: top_k is '-1'"):
        session.generate(PROMPT, top_k=-1)
    with pytest.raises(UsageError, match="n_top is '3': expected a whole number"):
        session.generate(PROMPT, n_top="3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"logit_bias is \[1, 2\]: expected biases by id"):
        session.generate(PROMPT, logit_bias=[1, 2])  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match="lone surrogate .* at 1"):
        session.generate("a\udcff")
    with pytest.raises(UsageError, match="role 'king'"):
        session.chat([{"role": "king", "content": "x"}])


def test_a_closed_session_says_so(stories260k: Path) -> None:
    one = load(stories260k, speculative="off")
    one.close()
    one.close()
    with pytest.raises(UsageError, match="the session is closed"):
        one.generate(PROMPT)


def test_costs_are_measured_once_and_kept(
    stories260k: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(home / "costs", ignore_errors=True)
    with load(stories260k, threads=1) as one:
        table = one.pair.costs
    (file,) = (home / "costs").iterdir()
    other = CostTable((9.0, 9.0))
    monkeypatch.setattr(cost_store, "measure_costs", lambda *_, **__: other)
    with load(stories260k, threads=1) as one:
        assert one.pair.costs == table
    file.write_text('{"seconds": [1, -2')
    with load(stories260k, threads=1) as one:
        assert one.pair.costs == other
    file.unlink()
    with load(stories260k, threads=2) as one:
        assert one.pair.costs == other
    assert not file.exists()  # other threads, another table
    shutil.rmtree(home / "costs")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "ab"}', '{"seconds": [0]}', "\xff"])
def test_a_damaged_cost_file_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(text.encode("latin-1"))
    assert cost_store.load(file) is None


def test_costs_that_cannot_be_kept_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cost_store.save(CostTable((1.0,)), tmp_path / "file" / "t.json")
    assert cost_store.load(tmp_path / "file" / "t.json") is None


def test_public_names_are_there_and_sorted() -> None:
    assert edgespec.__all__ == sorted(edgespec.__all__)
    assert all(getattr(edgespec, name).__name__ == name for name in edgespec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        edgespec.lod  # noqa: B018


@pytest.mark.slow
def test_a_long_prompt_tells_how_far_it_is(stories260k: Path) -> None:
    told: list[tuple[str, float]] = []
    options = {"speculative": "off", "ctx_size": 2048, "threads": 1}
    with load(stories260k, progress=lambda *what: told.append(what), **options) as one:  # type: ignore[arg-type]
        one_id = one.encode(PROMPT)[-1]
        list(one.generate([one_id] * 1300, max_tokens=2))
        shares = [share for what, share in told if what == "reading the prompt"]
        assert shares == pytest.approx([512 / 1299, 1024 / 1299, 1.0])
        told.clear()
        list(one.generate([one_id] * 1300 + [1] * 500, max_tokens=2))
        assert not told  # few new tokens
        assert one.stats.n_prompt == 500


def test_a_stopped_prompt_keeps_what_was_read(stories260k: Path) -> None:
    options = {"speculative": "off", "ctx_size": 2048, "threads": 1}

    def stop(what: str, share: float) -> None:
        if what == "reading the prompt" and share < 0.5:
            one.cancel()

    with load(stories260k, progress=stop, **options) as one:  # type: ignore[arg-type]
        one_id = one.encode(PROMPT)[-1]
        with pytest.raises(Cancelled):
            list(one.generate([one_id] * 1300, max_tokens=2))
        assert one.target.length == 512
        list(one.generate([one_id] * 700, max_tokens=2))
        assert one.stats.n_prompt == 188


def test_a_transcript_gives_answers_without_the_space_before_them(session: Session) -> None:
    ask = [{"role": "user", "content": "Hi"}]
    assert session.template.name == "plain"
    raw = "".join(piece.text for piece in session.generate(session.prompt(ask).ids, max_tokens=9))
    said = "".join(piece.text for piece in session.chat(ask, max_tokens=9))
    assert (raw[0], said) == (" ", raw[1:])
    whole = session.create_chat_completion(ask, max_tokens=9)
    assert whole["choices"][0]["message"]["content"] == said
