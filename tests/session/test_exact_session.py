"""`--exact` on the demo pair: a text is a function of its prompt and the seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgespec
from edgespec.cli import main
from edgespec.errors import UsageError
from edgespec.session.session import Session

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]
FOLLOW = {"role": "user", "content": "What happened next?"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with edgespec.load(exact=True, speculative="on", max_tokens=40) as opened:
            yield opened


def said(session: Session, messages: list[dict[str, str]], **how: object) -> str:
    return "".join(piece.text for piece in session.chat(messages, **how))


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"temperature": 0.9, "seed": 7}])
def test_a_text_does_not_depend_on_what_is_drafted(session: Session, how: dict[str, float]):
    plain = said(session, ASK, speculative="off", **how)
    for speculative in ("auto", "on"):
        assert said(session, ASK, speculative=speculative, **how) == plain
    assert session.stats.n_accepted
    with edgespec.load(exact=True, pair="demo-foreign", draft_tokens=9) as other:
        assert said(other, ASK, speculative="on", max_tokens=40, **how) == plain


def test_a_second_question_is_answered_as_in_a_fresh_session(session: Session):
    turns = [*ASK, {"role": "assistant", "content": said(session, ASK)}, FOLLOW]
    answer = said(session, turns)
    with edgespec.load(exact=True, speculative="off", max_tokens=40) as fresh:
        assert said(fresh, turns) == answer


def test_the_class_is_named(session: Session):
    assert "exact in widths " in session.where()
    assert session.target.info().device == session.target.device


def test_widths_are_found_once(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgespec.backends.widths.find_widths", None)
    with edgespec.load(exact=True) as again:
        assert again.target.device == session.target.device


@pytest.mark.slow
def test_verify_finds_no_difference_and_no_noise(session: Session, tmp_path: Path):
    report = tmp_path / "report.json"
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "Tell me a story."}\n' * 5)
    command = ["verify", "--exact", "--prompts", str(asked), "-n", "8", "--draws", "0"]
    assert main([*command, "--json", str(report)]) == 0
    greedy = json.loads(report.read_text())["greedy"]
    assert greedy["n_identical"] == 5 and greedy["noise"] == 0


def test_a_branching_drafter_is_refused(session: Session):
    class Tree:
        name, n_leaves = "tree", 4

        def draft(self, context: object, k: int, drawing: object = None) -> None:
            """Never asked."""

        def observe(self, done: object) -> None:
            """Nothing to learn."""

        def close(self) -> None:
            """Holds nothing."""

    with pytest.raises(UsageError, match="branches into 4 leaves: expected at most 1"):
        edgespec.load(exact=True, drafter=Tree(), speculative="on")
