"""The bundled demo pair: its files, what it says, and how its edge cases end."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgespec
from edgespec.errors import ContextError, UsageError
from edgespec.files import sha256_of
from edgespec.session.session import Session
from edgespec.store import pairs

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]


@pytest.fixture(scope="module")
def session():
    with edgespec.load(speculative="on", draft_tokens=4) as opened:
        yield opened


def said(pieces) -> str:
    return "".join(piece.text for piece in pieces)


def test_the_files_are_those_the_manifests_name():
    n_bytes = 0
    for name in ("demo", "demo-foreign"):
        pair = pairs.find(name)
        for entry in (pair.target, pair.drafter):
            path = pairs.bundled(entry)
            assert sha256_of(path) == entry.sha256, path
            n_bytes += path.stat().st_size
    assert n_bytes < 40e6


def test_the_drafter_is_an_eighth_of_the_target_at_most(session: Session):
    assert session.pair.draft_model.n_params <= session.target.n_params / 8


def test_it_tells_a_story_and_goes_on_with_it(session: Session):
    first = said(session.chat(ASK, max_tokens=60))
    assert "fox" in first
    turns = [*ASK, {"role": "assistant", "content": first}]
    turns.append({"role": "user", "content": "What happened next?"})
    more = said(session.chat(turns, max_tokens=60))
    assert len(more.split()) > 20 and more != first
    assert session.stats.acceptance_rate > 0.5


@pytest.mark.parametrize("prompt", ["I want to book a table.", "When does the next bus leave?"])
def test_it_holds_task_dialogues(session: Session, prompt: str):
    answer = said(session.chat([{"role": "user", "content": prompt}], max_tokens=60))
    assert answer.strip()
    assert session.turns.finish == "stop"  # a short turn of its own, not a story


def test_pieces_tell_who_proposed_them(session: Session):
    pieces = list(session.chat(ASK, max_tokens=60))
    assert 0 < sum(piece.from_draft for piece in pieces) < len(pieces)


def test_a_stop_string_cuts_the_text(session: Session):
    whole = said(session.chat(ASK, max_tokens=80))
    cut = said(session.chat(ASK, max_tokens=80, stop="fox"))
    assert whole.startswith(cut) and "fox" not in cut
    assert session.turns.finish == "stop"


def test_a_bias_and_penalties_change_the_text_as_they_should(session: Session):
    whole = said(session.chat(ASK, max_tokens=40))
    first = session.turns.output[0]
    said(session.chat(ASK, max_tokens=40, logit_bias={first: -100.0}))
    assert first not in session.turns.output
    assert said(session.chat(ASK, max_tokens=40, presence_penalty=100.0)) != whole
    assert len(set(session.turns.output)) == len(session.turns.output)
    with pytest.raises(UsageError, match="token 4096: expected 0 to 4095"):
        session.chat(ASK, logit_bias={4096: 1.0})


def test_an_end_of_turn_token_inside_a_draft_ends_the_answer(session: Session):
    bye = [{"role": "user", "content": "No, that's all. Thank you, goodbye."}]
    answer = said(session.chat(bye, max_tokens=200))
    assert session.turns.finish == "stop"
    assert session.turns.output[-1] in session.tokenizer.stop_tokens
    assert not set(session.turns.output[:-1]) & session.tokenizer.stop_tokens
    assert "<|" not in answer


def test_an_empty_prompt_and_one_token_are_answered(session: Session):
    assert session.encode("") == [session.tokenizer.bos]
    assert session.encode("<|begin|>Once") == session.encode("Once")
    assert said(session.generate("", max_tokens=5)) is not None
    assert len(session.turns.output) >= 1
    list(session.generate([300], max_tokens=5))
    assert len(session.turns.output) == 5


def test_no_tokens_at_all_is_one_line(session: Session):
    with pytest.raises(UsageError, match="no tokens"):
        list(session.generate([], max_tokens=5))


def test_a_prompt_of_the_contexts_length_gets_one_token(session: Session):
    n = session.target.n_context
    list(session.generate([300] * n, max_tokens=5))
    assert len(session.turns.output) == 1
    assert session.turns.finish == "context"
    with pytest.raises(ContextError, match=f"{n + 1} tokens"):
        list(session.generate([300] * (n + 1), max_tokens=5))


def test_an_emoji_split_over_tokens_comes_whole(session: Session):
    ids = session.encode("🦊")
    assert len(ids) > 3
    assert session.decode(ids) == "🦊"
    biased = [piece.text for piece in session.generate("🦊🦊🦊🦊🦊", max_tokens=24)]
    assert all("\ufffd" not in text for text in biased[:-1])


def test_greedy_text_is_that_of_plain_decoding(session: Session):
    with edgespec.load(speculative="off") as plain:
        for seed in (None, 5):
            temperature = 0.0 if seed is None else 0.9
            options = {"max_tokens": 80, "seed": seed, "temperature": temperature}
            assert said(session.chat(ASK, **options)) == said(plain.chat(ASK, **options))


def test_manifests_name_texts_and_licences():
    text = (Path(pairs.folder()) / "README.md").read_text(encoding="utf-8")
    for word in ("TinyStories", "CDLA-Sharing-1.0", "CC-BY-SA-4.0", "FairytaleQA"):
        assert word in text
