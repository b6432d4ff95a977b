"""text.py: characters over several tokens, stop strings over several pieces, chat templates."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.errors import TokenizerError, UsageError
from edgespec.text import ChatTemplate, Detokenizer, StopText, encode_rendered

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}


class Letters:
    """A tokenizer of characters whose control tokens are "<s>" (1) and "</s>" (2)."""

    bos: int | None = 1
    eos: int | None = 2
    stop_tokens = frozenset({2})
    chat_template: str | None

    def __init__(self, chat_template: str | None = None) -> None:
        self.chat_template = chat_template

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        out = [1] if bos else []
        while text:
            known = {"<s>": 1, "</s>": 2} if special else {}
            word = next((one for one in known if text.startswith(one)), text[0])
            out.append(known.get(word, ord(word[0])))
            text = text[len(word) :]
        return out

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token in (1, 2):
            return (b"<s>", b"</s>")[token - 1] if special else b""
        return chr(token).encode()


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


def test_template_trims_blocks_as_model_makers_expect() -> None:
    source = (
        "{% for m in messages %}\n  {% if true %}\n{{ m.role }}:{{ m.content }}\n"
        "  {% endif %}\n{% endfor %}"
    )
    assert ChatTemplate(Letters(source)).text([USER, ANSWER]) == "user:Hi\nassistant:Hello.\n"


def test_template_sees_control_tokens_and_whether_to_answer() -> None:
    source = "{{ bos_token }}{{ eos_token }}{% if add_generation_prompt %}A{% endif %}"
    template = ChatTemplate(Letters(source))
    assert template.text([USER]) == "<s></s>A"
    assert template.text([USER], answer=False) == "<s></s>"


def test_template_functions_of_model_makers_exist() -> None:
    source = (
        "{{ strftime_now('%Y')|length }}{{ {'a': 'é<'}|tojson }}"
        "{% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}"
    )
    assert ChatTemplate(Letters(source)).text([USER]) == '4{"a": "é<"}1'


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses this.*roles must alternate"),
        ("{{ messages[7].content.x }}", "template failed: UndefinedError"),
        ("{% for %}", "does not parse"),
        ("{{ ''.__class__.__mro__ }}", "template failed: SecurityError"),
        ("{{ messages.append(1) }}", "template failed: SecurityError"),
    ],
)
def test_a_template_that_fails_gives_one_clear_error(source: str, expected: str) -> None:
    with pytest.raises(TokenizerError, match=expected):
        ChatTemplate(Letters(source)).text([USER])


def test_without_a_template_chatml_is_used_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        template = ChatTemplate(Letters(None))
    assert "no chat template: using chatml" in caplog.text
    assert template.text([USER]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert template.stop == ("<|im_end|>",)


def test_a_spelled_out_bos_is_not_doubled() -> None:
    assert encode_rendered(Letters(), "<s>a") == [1, ord("a")]
    assert encode_rendered(Letters(), "a</s>") == [1, ord("a"), 2]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "messages is empty"),
        ([{"role": "user"}], "message 0 is .*expected an object with role, content"),
        ([USER, {"role": "boss", "content": "x"}], "message 1 has role 'boss': expected system"),
        ([{"role": "user", "content": 7}], "content 7: expected a text"),
    ],
)
def test_a_bad_message_is_named(messages: list[Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        ChatTemplate(Letters("")).text(messages)
