"""Models whose memory is recurrent, as targets and as drafters: the text is plain decoding's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import window_maker
from hybrid_maker import KINDS, case, make

import edgespec
from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.shared import SharedModel
from edgespec.errors import UsageError
from edgespec.session.conversation import Conversation
from edgespec.store.pairs import bundled, find

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))


def said(session: edgespec.Session, **how: object) -> str:
    return "".join(piece.text for piece in session.chat(ASK, max_tokens=48, **how))


@pytest.mark.parametrize("drafter", ["ngram", pytest.param("model", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [*map(case, KINDS)])
def test_a_recurrent_target_says_what_it_says_plainly(
    kind: str, drafter: str, tmp_path: Path
) -> None:
    target = make(tmp_path / f"{kind}.gguf", kind)
    draft = bundled(find("demo-foreign").drafter)  # of another vocabulary
    options = {"model": str(target), "draft_model": str(draft), "loading": "map", "threads": 1}
    with edgespec.load(**options, drafter=drafter, speculative="on", draft_tokens=5) as session:
        for how in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 7}):
            plain = said(session, speculative="off", **how)
            for _ in range(2):  # what was said before is found by the n-grams
                assert said(session, **how) == plain
            assert session.stats.n_drafted > 0
        if drafter == "ngram":
            assert session.stats.n_accepted > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*map(case, KINDS)])
def test_a_recurrent_drafter_changes_nothing(kind: str, tmp_path: Path) -> None:
    drafter = make(tmp_path / f"{kind}.gguf", kind)
    options = {"draft_model": str(drafter), "loading": "map", "speculative": "on"}
    with edgespec.load(**options, drafter="model", draft_tokens=5, temperature=0.0) as session:
        plain = said(session, speculative="off")
        assert said(session) == plain
        assert session.stats.n_drafted > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lfm2", "mamba2"])
def test_a_target_that_drafts_for_itself_is_always_right(kind: str, tmp_path: Path) -> None:
    file = str(make(tmp_path / f"{kind}.gguf", kind))
    options = {"model": file, "draft_model": file, "loading": "map", "threads": 1}
    with edgespec.load(**options, drafter="model", draft_tokens=4, temperature=0.0) as session:
        plain = said(session, speculative="off")
        assert said(session, speculative="on") == plain
        assert session.stats.n_accepted == session.stats.n_tested > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", [case("lfm2"), case("mamba2"), "gemma3"])
def test_a_conversation_goes_on_after_it_was_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    make_one = window_maker.make if kind in window_maker.LAYERS else make
    file, kept = make_one(tmp_path / f"{kind}.gguf", kind), tmp_path / "talk.json"
    options = {"model": str(file), "drafter": "ngram", "speculative": "on", "draft_tokens": 4}
    options |= {"loading": "map", "threads": 1, "temperature": 0.0, "max_tokens": 24}
    with edgespec.load(**options) as session:
        talk = Conversation(session)
        said_first = "".join(piece.text for piece in talk.ask("Tell me of a fox."))
        talk.save(kept)
        then = "".join(piece.text for piece in talk.ask("And then?"))
        talk.load(kept)  # the memory is beyond it now
        assert "".join(piece.text for piece in talk.ask("And then?")) == then
    with edgespec.load(**options) as session:
        talk = Conversation(session)
        talk.load(kept)
        assert [turn["content"] for turn in talk.messages if turn["role"] == "assistant"] == [
            said_first
        ]
        assert "".join(piece.text for piece in talk.ask("And then?")) == then


def test_several_texts_at_once_are_refused(tmp_path: Path) -> None:
    file = make(tmp_path / "lfm2.gguf", "lfm2")
    model = LlamaCppModel(file, ModelOptions(n_context=64), loading="map")
    with closing(model), pytest.raises(UsageError, match="reads one text at a time"):
        SharedModel(model, 1)


@pytest.mark.slow
def test_a_file_is_tried_and_chatted_with(tmp_path: Path) -> None:
    """As a user has it: loading is tried in a child, costs are measured, auto decides."""
    file = make(tmp_path / "qwen35.gguf", "qwen35")
    with edgespec.load(model=str(file), drafter="ngram", temperature=0.0, threads=1) as session:
        plain = said(session, speculative="off")
        for _ in range(3):
            assert said(session) == plain
