"""A drafter that is taken to have a device of its own drafts on while the target verifies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgespec
from edgespec.drafters.ahead import Ahead
from edgespec.session.session import Session

ASK = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]
N = 48


def said(session: Session, **options: Any) -> list[int]:
    for _ in session.chat(ASK, max_tokens=N, **options):
        pass
    return session.turns.output


@pytest.fixture(params=["demo", "demo-foreign"])
def session(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr("edgespec.session.pair.apart", lambda one, other: True)
    with edgespec.load(
        pair=request.param, speculative="on", draft_tokens=3, drafter="model"
    ) as opened:
        yield opened


def drafting(session: Session) -> Ahead:
    assert session.method.ahead is not None
    return session.method.ahead


@pytest.mark.slow
def test_the_text_is_plain_decodings_and_some_drafts_are_there_early(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[int] = []
    ahead: Any = drafting(session)
    ready = ahead._ready
    ahead._ready = lambda *args: (taken.append(len(found := ready(*args))), found)[1]
    text = said(session)
    assert sum(taken) > 0  # how many is a matter of times
    assert text == said(session, speculative="off")
    assert said(session, temperature=0.7, seed=5) == said(
        session, temperature=0.7, seed=5, speculative="off"
    )
    assert not [one for one in caplog.records if one.levelno > logging.INFO]  # of what it cancelled


@pytest.mark.slow
def test_nothing_is_computed_between_answers(session: Session) -> None:
    pieces = session.chat(ASK, max_tokens=N)
    next(pieces)
    pieces.close()
    ahead: Any = drafting(session)
    assert ahead._job is None
    text = said(session)
    pieces = session.chat(ASK, max_tokens=N)
    next(pieces)
    session.cancel()
    with pytest.raises(edgespec.errors.Cancelled):
        list(pieces)
    assert ahead._job is None
    assert said(session) == text
    [thread] = ahead._pool._threads
    session.close()
    assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("pair", ["demo", "demo-foreign"])
def test_what_learns_drafts_while_nothing_else_computes(
    pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its guesses are labelled by nobody."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    monkeypatch.setattr("edgespec.session.pair.apart", lambda one, other: True)
    with edgespec.load(
        pair=pair, speculative="on", draft_tokens=3, drafter="model", adapt=True
    ) as session:
        said(session)
        assert session.method.ahead is None
        assert session.pair.learner is not None and session.pair.learner.hits.n > N // 2


def test_both_on_the_same_cores_never_draft_ahead() -> None:
    with edgespec.load(speculative="on", draft_tokens=3) as session:
        assert session.method.ahead is None
