"""`adapt`: a session whose draft model learns, the text being what it would be without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgespec
from edgespec.session.adapting import First, columns, fingerprint

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]


def said(session: edgespec.Session, **how: object) -> str:
    return "".join(piece.text for piece in session.chat(ASK, max_tokens=40, **how))


@pytest.mark.parametrize("pair", ["demo", "demo-foreign"])
def test_a_text_is_the_same_while_the_drafter_learns(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(pair=pair, adapt=True, speculative="on", temperature=0.0) as session:
        plain = said(session, speculative="off")
        learner = session.pair.learner
        assert learner is not None
        learner._share = 1e9
        for _ in range(3):
            assert said(session) == plain
            learner.model.correction = learner.trainer.adapter  # unproven, so that it tells
        assert learner.n_steps > 0 and len(learner.examples) > 40
        assert session.stats.n_accepted > 0
        assert len(learner.trainer.adapter.rows) > 0


def test_nothing_learns_unless_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(speculative="on") as session:
        assert session.pair.learner is None


def test_tokens_of_the_target_stand_in_the_column_of_their_first_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(pair="demo-foreign", speculative="on") as session:
        assert session.pair.translation is not None and session.pair.draft_model is not None
        mapping = session.pair.translation.mapping
        ids = np.arange(300, 400)
        found = First(mapping)(ids)
        for token, column in zip(ids.tolist(), found.tolist(), strict=True):
            pieces = mapping.draft.encode(mapping.target.pieces[token])
            direct = int(mapping.preimage[token])
            assert column == (direct if direct >= 0 else pieces[0] if pieces else -1)
        both = columns(session.pair.draft_model, mapping)
        np.testing.assert_array_equal(both.of_target(ids), found)


def test_a_fingerprint_changes_with_size_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"a" * 10)
    first = fingerprint(file)
    assert fingerprint(tmp_path) == first  # the largest file of a folder
    file.write_bytes(b"a" * 9 + b"b")
    assert fingerprint(file) != first
    file.write_bytes(b"a" * 11)
    assert fingerprint(file) != first
