"""Thoughts are told from answers, however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.text.thoughts import CLOSE, OPEN, NoThoughts, Thoughts

CASES = [
    ("Hello.", False, "", "Hello."),
    (f"{OPEN}a b{CLOSE}Hello.", False, "a b", "Hello."),
    (f"\n{OPEN}\na b\n{CLOSE}\n\nHello.\n", False, "\na b\n", "Hello.\n"),
    (f"a b{CLOSE} Hello.", True, "a b", "Hello."),
    (f"a < b </thin {CLOSE}x", True, "a < b </thin ", "x"),
    (f"{OPEN}{CLOSE}\n\nHello.", False, "", "Hello."),
    (f"Hello {OPEN}a{CLOSE}.", False, "", f"Hello {OPEN}a{CLOSE}."),  # not at the beginning
    (f"{OPEN}a{CLOSE}b{CLOSE}{OPEN}c", False, "a", f"b{CLOSE}{OPEN}c"),
    (f"{OPEN}never ended </thi", False, "never ended </thi", ""),
    ("<thin", False, "", "<thin"),
    ("  x", False, "", "  x"),
    (" \n", False, "", " \n"),
    ("", False, "", ""),
    ("", True, "", ""),
    (f"{OPEN}a{CLOSE} \n", False, "a", ""),
]


def split(pieces: list[str], is_open: bool) -> tuple[str, str]:
    apart = Thoughts(is_open=is_open)
    parts = [part for piece in pieces for part in apart.feed(piece)] + apart.flush()
    assert all(text for text, _ in parts)
    kinds = [is_thought for _, is_thought in parts]
    assert kinds == sorted(kinds, reverse=True)  # thoughts come first
    return tuple("".join(t for t, kind in parts if kind == one) for one in (True, False))  # type: ignore[return-value]


@pytest.mark.parametrize(("text", "is_open", "thought", "answer"), CASES)
def test_a_whole_text(text: str, is_open: bool, thought: str, answer: str) -> None:
    assert split([text], is_open) == (thought, answer)
    assert split(list(text), is_open) == (thought, answer)


@given(st.data())
def test_any_pieces(data: st.DataObject) -> None:
    text, is_open, thought, answer = data.draw(st.sampled_from(CASES))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces, is_open) == (thought, answer)


def test_what_can_be_told_is_not_held_back() -> None:
    apart = Thoughts()
    assert apart.feed("<th") == []
    assert apart.feed("ink>I wo") == [("I wo", True)]
    assert apart.feed("nder</") == [("nder", True)]
    assert apart.feed("b>") == [("</b>", True)]
    assert apart.feed(f"{CLOSE}\n\nSo") == [("So", False)]
    assert apart.feed(" it is") == [(" it is", False)]
    assert NoThoughts().feed(OPEN) == [(OPEN, False)]
