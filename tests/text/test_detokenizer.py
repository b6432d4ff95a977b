"""detokenizer.py: characters over several tokens, stop strings over several pieces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import TokenizerError, UsageError
from edgespec.text.detokenizer import Detokenizer, StopText, utf8


def cuts(data: Any, whole: Any) -> list[Any]:
    """`whole` in pieces at places of hypothesis's choice."""
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]


def test_an_emoji_over_four_tokens_appears_whole() -> None:
    detokenizer = Detokenizer()
    assert [detokenizer.feed(bytes([b])) for b in "🦊".encode()] == ["", "", "", "🦊"]
    assert detokenizer.flush() == ""


def test_an_unfinished_character_becomes_a_replacement_at_the_end_only() -> None:
    detokenizer = Detokenizer()
    assert detokenizer.feed("a🦊".encode()[:-1]) == "a"
    assert detokenizer.flush() == "�"


@given(st.binary(), st.data())
def test_pieces_join_to_the_decoding_of_all_bytes(whole: bytes, data: Any) -> None:
    detokenizer = Detokenizer()
    out = "".join(detokenizer.feed(piece) for piece in cuts(data, whole)) + detokenizer.flush()
    assert out == whole.decode("utf-8", "replace")


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3)), st.data())
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    whole: str, stops: list[str], data: Any
) -> None:
    """Compared with what is known when each piece arrives: a stop counts once it is complete."""
    stop = StopText(stops)
    pieces = cuts(data, whole)
    out = "".join(stop.feed(piece) for piece in pieces) + stop.flush()
    seen, expected = "", whole
    for piece in pieces:
        seen += piece
        found = [at for at in map(seen.find, stops) if at >= 0]
        if found:
            expected = seen[: min(found)]
            break
    assert out == expected
    assert stop.stopped == any(one in whole for one in stops)


def test_only_what_may_begin_a_stop_string_waits() -> None:
    stop = StopText(["END"])
    assert stop.feed("the E") == "the "
    assert stop.feed("N") == ""
    assert stop.feed("d") == "ENd"
    assert not stop.stopped


def test_nothing_comes_after_a_stop_string() -> None:
    stop = StopText(["x"])
    assert [stop.feed("axb"), stop.feed("c"), stop.flush()] == ["a", "", ""]


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one character"):
        StopText([""])


def test_text_that_is_no_unicode_is_named() -> None:
    assert utf8("🦊") == b"\xf0\x9f\xa6\x8a"
    with pytest.raises(TokenizerError, match=r"lone surrogate '\\udcff' at 1: expected Unicode"):
        utf8("a\udcff")


def test_a_space_that_belongs_to_the_format_is_left_out_once() -> None:
    for pieces, expected in [
        ((b" Hi", b" a"), "Hi a"),
        ((b"", b" ", b" a"), " a"),
        ((b"Hi", b" a"), "Hi a"),
        ((b"\xc3", b"\xa9 "), "é "),
        ((b" ",), ""),
    ]:
        told = Detokenizer(lead=" ")
        assert "".join(map(told.feed, pieces)) + told.flush() == expected
    assert Detokenizer().feed(b" Hi") == " Hi"
