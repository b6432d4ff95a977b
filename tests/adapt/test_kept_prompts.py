"""Prompts kept as text: only where asked for, for their owner alone, in bounded room."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgespec
from edgespec.adapt.kept_prompts import KeptPrompts


def said(text):
    return [{"role": "user", "content": text}]


def kept(tmp_path: Path, **more) -> KeptPrompts:
    return KeptPrompts(tmp_path, "a" * 64, "b" * 64, **more)


def test_prompts_come_back_in_order_and_once(tmp_path: Path) -> None:
    one = kept(tmp_path)
    for text in ("hello", "schön\nday", "hello"):
        one.add(said(text))
    assert kept(tmp_path).messages() == [said("hello"), said("schön\nday")]
    assert one.path.stat().st_mode & 0o777 == 0o600


def test_the_oldest_leave(tmp_path: Path) -> None:
    one = kept(tmp_path, budget_bytes=2000)
    for i in range(200):
        one.add(said(f"number {i}"))
        assert one.path.stat().st_size <= 2000
    texts = [messages[0]["content"] for messages in one.messages()]
    assert texts == [f"number {i}" for i in range(200 - len(texts), 200)] and len(texts) > 10


def test_half_a_line_is_no_prompt(tmp_path: Path) -> None:
    one = kept(tmp_path)
    one.add(said("whole"))
    with one.path.open("ab") as file:
        file.write(b'{"messages": [{"ro\n[]\n')
    assert one.messages() == [said("whole")]
    assert kept(tmp_path / "none").messages() == []


def test_what_cannot_be_kept_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("no folder", encoding="utf-8")
    one = kept(tmp_path)
    one.add(said("lost"))
    one.add([{"content": object()}])
    assert one.messages() == []


@pytest.mark.slow
@pytest.mark.parametrize("asked_for", [False, True])
def test_a_session_keeps_text_only_where_that_was_asked_for(
    asked_for: bool, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(pair="demo", adapt=True, adapt_keep_text=asked_for, max_tokens=4) as session:
        for _ in session.chat(said("Tell me a story about a secret goat.")):
            pass
    whole = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert (b"secret goat" in whole) == asked_for


@pytest.mark.parametrize("how", [{"speculative": "off"}, {"drafter": "ngram", "speculative": "on"}])
def test_without_a_draft_model_it_says_that_nothing_is_kept(how, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(pair="demo", adapt_keep_text=True, **how):
        (line,) = [one.getMessage() for one in caplog.records if "keep-text" in one.getMessage()]
    assert line.startswith("--adapt-keep-text keeps no prompts: no draft model is open")
