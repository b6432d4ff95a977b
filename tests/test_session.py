"""session.py with a trained model of 260K parameters: text in, text out, and what can go wrong."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import edgespec
from edgespec import cost_cache
from edgespec.cost import CostTable
from edgespec.errors import (
    Cancelled,
    ContextError,
    EdgeSpecError,
    TokenizerError,
    UsageError,
)
from edgespec.session import Session, load
from edgespec.types import Draft, FloatArray, Verdict

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
    assert text_of(session) == session.decode(session.output)
    assert (session.finish, len(session.output)) == ("length", 60)


def test_a_stop_string_ends_the_text_before_it(session: Session, plain_text: str) -> None:
    stop = plain_text[30:37]
    assert text_of(session, stop=stop) == plain_text[: plain_text.index(stop)]
    assert session.finish == "stop"
    assert text_of(session) == plain_text


def test_a_change_of_method_starts_with_empty_caches(stories260k: Path, plain_text: str) -> None:
    with load(stories260k, stories260k, speculative="on", ctx_size=256, threads=1) as one:
        assert text_of(one) == plain_text
        assert one.draft_model is not None
        assert one.draft_model.length > 60
        one.use(one.methods.named("fixed-2"))
        assert one.draft_model.length == 0
        assert text_of(one) == plain_text
        assert one.stats.n_prompt == len(one.encode(PROMPT))


def test_what_waited_for_a_stop_string_that_never_came_is_shown(
    session: Session, plain_text: str
) -> None:
    assert text_of(session, stop=plain_text[-3:] + "no") == plain_text


def test_a_full_context_ends_the_text_and_says_so(session: Session) -> None:
    n_prompt = len(session.encode(PROMPT))
    text_of(session, n=1000)
    assert session.finish == "context"
    assert n_prompt + len(session.output) == pytest.approx(256, abs=1)


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
    assert list(first) == []


def test_cancel_from_another_thread_ends_the_text_there(session: Session, plain_text: str) -> None:
    said = ""
    with pytest.raises(Cancelled):
        for piece in session.generate(PROMPT, max_tokens=200):
            said += piece.text
            if len(said) > 20 and session.running:
                thread = threading.Thread(target=session.cancel)
                thread.start()
                thread.join()
    assert plain_text.startswith(said)
    assert (session.finish, session.running) == ("cancelled", False)
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

    name = "parrot"
    n_asked = n_closed = 0

    def draft(self, context, k, *, law=None, u=None):  # type: ignore[no-untyped-def]
        self.n_asked += 1
        return Draft((context[-1],) * k, sources=(self.name,) * k)

    def observe(self, context: Sequence[int], draft: Draft, verdict: Verdict) -> None:
        """Learns nothing."""

    def close(self) -> None:
        self.n_closed += 1


def test_an_app_can_bring_its_own_drafter(stories260k: Path, plain_text: str) -> None:
    parrot = Parrot()
    with load(stories260k, drafter=parrot, speculative="on", threads=1, ctx_size=256) as one:
        assert text_of(one) == plain_text
    assert parrot.n_asked > 10
    assert parrot.n_closed == 0  # it is the app's


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
    assert "using chatml" in caplog.text
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
        assert one.draft_model is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pair": "demi"}, "no pair is called 'demi': did you mean demo"),
        ({"model": "/no/such.gguf"}, "no/such.gguf"),
        ({"model": "x.bin"}, "ending '.bin': expected"),
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
        table = one.costs
    (file,) = (home / "costs").iterdir()
    other = CostTable((9.0, 9.0))
    monkeypatch.setattr(cost_cache, "measure_costs", lambda *_, **__: other)
    with load(stories260k, threads=1) as one:
        assert one.costs == table
    file.write_text('{"seconds": [1, -2')
    with load(stories260k, threads=1) as one:
        assert one.costs == other
    file.unlink()
    with load(stories260k, threads=2) as one:
        assert one.costs == other
    assert not file.exists()  # other threads, another table
    shutil.rmtree(home / "costs")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": "ab"}', '{"seconds": [0]}', "\xff"])
def test_a_damaged_cost_file_counts_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(text.encode("latin-1"))
    assert cost_cache.load(file) is None


def test_costs_that_cannot_be_kept_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cost_cache.save(CostTable((1.0,)), tmp_path / "file" / "t.json")
    assert cost_cache.load(tmp_path / "file" / "t.json") is None


def test_public_names_are_there_and_sorted() -> None:
    assert edgespec.__all__ == sorted(edgespec.__all__)
    assert all(getattr(edgespec, name).__name__ == name for name in edgespec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        edgespec.lod  # noqa: B018
