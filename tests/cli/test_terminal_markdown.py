"""Streaming Markdown: what is shown, that nothing is lost, and that it comes in any pieces."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from edgespec.cli.terminal.inline import LONGEST
from edgespec.cli.terminal.markdown import Markdown
from edgespec.cli.terminal.wrap import Glyph

WORDS = ["fox", "der", "x", "_a", "snake_case", "5*3", "中文", "字", "é", "e\u0301",
         "👩\u200d🔬", "ok."]  # fmt: skip
MARKS = ["**", "*", "***", "_", "`", "``", "```", "~~", "~", "\\", "#", "## ", "> ", "- ", "* ",
         "1. ", "12) ",
         "| x | *y* |\n|---|---|\n", "| é | fox |\n",
         "---", "***", "|", " | ", "  ", "    ", "\t", " ", "\n", "\n\n", "```py\n",
         "\n```\n", "~~~\n", "+ ", "[x](http://y)", "-" * 250, "`" * 250, "\n> - "]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS + MARKS), max_size=30).map("".join)
WIDTHS = st.sampled_from([8, 13, 40, 100])
INVISIBLE = re.compile(r"[\s*_`~\\#>|•│─┼+-]")  # markup, what is drawn in its place, and spaces


def drawn(text: str, width: int = 80, cuts: tuple[int, ...] = ()) -> list[Glyph]:
    """All that is shown of `text`, fed in the pieces that `cuts` make."""
    page, out, at = Markdown(width), list[Glyph](), 0
    for cut in [*sorted(set(cuts)), len(text)]:
        out += page.feed(text[at:cut])
        page.tail()  # asking must change nothing
        at = cut
    return out + page.close()


def plain(glyphs: list[Glyph]) -> str:
    return "".join(char for char, _ in glyphs)


def is_said(text: str, glyphs: list[Glyph]) -> bool:
    """Whether all of the text is shown and nothing else; cells of a table stand side by side."""
    shown, said = (INVISIBLE.sub("", one) for one in (plain(glyphs), text))
    return sorted(shown) == sorted(said) if "|" in text else shown == said


def looks(glyphs: list[Glyph]) -> str:
    """Every run in the form {look look:text}, unstyled text as it is."""
    out, last = "", frozenset[str]()
    for char, look in [*glyphs, ("", frozenset())]:
        if look != last:
            out += ("}" if last else "") + ("{" + " ".join(sorted(look)) + ":" if look else "")
            last = look
        out += char
    return out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("some **bold** word", "some {bold:bold} word"),
        ("some *slanted* _words_", "some {italic:slanted} {italic:words}"),
        ("***both*** ~~gone~~", "{bold italic:both} {strike:gone}"),
        ("**bold *and both* again**", "{bold:bold }{bold italic:and both}{bold: again}"),
        ("a `x**y**` b", "a {mark:`}{code:x**y**}{mark:`} b"),
        ("``a ` b``", "{mark:``}{code:a ` b}{mark:``}"),
        ("**use `a**b` now**", "{bold:use }{bold mark:`}{bold code:a**b}{bold mark:`}{bold: now}"),
        (r"\*no\* \d \\", r"*no* \d " + "\\"),
        ("**a ** b**", "{bold:a ** b}"),
        ("word\n*new*", "word\n{italic:new}"),
        ("an **open one", "an **open one"),
        ("an `open one", "an `open one"),
        ("**a** **b", "{bold:a} **b"),
        ("2 * 3 * 4, 5*3*2, a_b_c, __init__", "2 * 3 * 4, 5*3*2, a_b_c, __init__"),
        ("**not over\nlines**", "**not over\nlines**"),
        ("中**重点**文", "中{bold:重点}文"),
        ("# Head **x**\ntext", "{heading:Head }{bold heading:x}\ntext"),
        ("#hash and #5", "#hash and #5"),
        ("- one\n* two\n  + three", "{mark:• }one\n{mark:• }two\n{mark:  • }three"),
        ("1. one\n12) two", "{mark:1. }one\n{mark:12) }two"),
        ("2024 was a year", "2024 was a year"),
        ("> said\n> - so", "{mark:│ }said\n{mark:│ • }so"),
        ("> > twice", "{mark:│ │ }twice"),
        ("a\n---\nb", "a\n{mark:" + "─" * 80 + "}\nb"),
        ("```py\nx = **y\n\n``\n```\nz",
         "{mark:```py}\n{code:x = **y}\n\n{code:``}\n{mark:```}\nz"),
        ("~~~\n```\n~~~", "{mark:~~~}\n{code:```}\n{mark:~~~}"),
        ("````\n```\n````", "{mark:````}\n{code:```}\n{mark:````}"),
        ("- item:\n  ```\n  code\n  ```",
         "{mark:• }item:\n{mark:  ```}\n{code:  code}\n{mark:  ```}"),
        ("```\nleft open **x**", "{mark:```}\n{code:left open **x**}"),
        ("| a | **b** |\n|---|--:|\n| c d | 12 |\nend",
         "{bold:a}  {mark: │ } {bold:b}\n{mark:────┼───}\nc d{mark: │ }12\nend"),
        ("| a |\n| no dashes |", "| a |\n| no dashes |"),
        ("bell \x07 escape \x1b[31m end \x9b\r\n", "bell \u2407 escape \u241b[31m end \ufffd\n"),
        ("", ""),
        ("   ", "{mark:   }"),
        ("-", "-"),
        ("- ", "-"),
    ],
)  # fmt: skip
def test_markup_becomes_looks(text: str, shown: str) -> None:
    assert looks(drawn(text)) == shown


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(TEXTS, WIDTHS, st.lists(st.integers(0, 400), max_size=12))
@example("-" * 300 + "x", 40, [10, 245])
@example("a **b" + "`" * 300 + " c** " + "*" * 300 + "x* y" + "`" * 200 + "z", 40, [3, 9, 250, 400])
@example("a long " + "x" * 100 + "字" + "y" * 30 + " end", 13, [8, 30, 111])
@example("say ***both*** `co``de` ~~no~~ _so_ \\* 5*3\n- **a**: `b`\n> *c* **d*e*f**", 40, [])
@example("**a" + " b" * LONGEST + "** c", 40, list(range(0, 400, 7)))
def test_any_pieces_of_a_text_look_the_same(text: str, width: int, cuts: list[int]) -> None:
    whole = drawn(text, width)
    assert drawn(text, width, tuple(cut % (len(text) + 1) for cut in cuts)) == whole
    assert drawn(text, width, tuple(range(len(text)))) == whole


@settings(max_examples=60, deadline=None)
@given(TEXTS, WIDTHS)
@example("a\\", 8)
def test_no_text_is_lost(text: str, width: int) -> None:
    assert is_said(text, drawn(text, width))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(TEXTS, WIDTHS)
def test_final_and_held_back_together_are_what_was_said(text: str, width: int) -> None:
    """What is on the screen at any time is the text so far: nothing is kept from the reader."""
    page, shown = Markdown(width), list[Glyph]()
    for n in range(len(text)):
        shown += page.feed(text[n])
        assert is_said(text[: n + 1], shown + page.tail())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS + ["**", "*", " ", " ", "- ", "> ", "\n"]), max_size=40),
       WIDTHS)  # fmt: skip
def test_text_stays_within_the_width(parts: list[str], width: int) -> None:
    rows = plain(drawn("".join(parts), width)).split("\n")
    assert max(sum(max(wcwidth(char), 0) for char in row) for row in rows) <= width


def test_rows_break_between_words_and_hang_below_the_text() -> None:
    text = "- a list item that goes on\n10. another item that wraps\nlong: " + "x" * 25
    assert plain(drawn(text, 20)).split("\n") == [
        "• a list item that", "  goes on", "10. another item", "    that wraps",
        "long:", "x" * 20, "x" * 5,
    ]  # fmt: skip


def test_wide_characters_break_anywhere_but_never_in_two() -> None:
    assert plain(drawn("中文字符很多", 9)).split("\n") == ["中文字符", "很多"]


def test_code_and_what_is_no_table_are_never_wrapped() -> None:
    long = "word " * 30
    shown = plain(drawn(f"```\n{long}\n```\n| {long}|", 20)).split("\n")
    assert shown == ["```", long, "```", f"| {long}|"]


TABLE = """| Name | What it does | Calls |
|:-----|:------------:|------:|
| `foo` | makes a *bar* of what it is given | 12 |
| x\\|y | nothing | 3 | more |
| z |"""


def test_a_table_is_set_in_columns() -> None:
    assert plain(drawn(TABLE, 80)).split("\n") == [
        "Name  │          What it does           │ Calls",
        "──────┼─────────────────────────────────┼──────",
        "`foo` │ makes a bar of what it is given │    12",
        "x|y   │             nothing             │     3",
        "z     │                                 │ ",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [99, 59, 30, 20])
def test_a_table_fits_the_width(width: int) -> None:
    rows = plain(drawn(TABLE, width)).split("\n")
    assert max(map(len, rows)) <= width
    assert {row.count("│") + row.count("┼") for row in rows} == {2}


def test_a_table_that_cannot_fit_stays_as_it_was_written() -> None:
    assert plain(drawn(TABLE, 12)) == TABLE


@pytest.mark.parametrize(
    "text", ["| a | b |\n|---|", "| a |\n| b |", "| a |\n\n|---|", "| a\n", "|\n|"]
)
def test_rows_without_dashes_below_the_first_are_no_table(text: str) -> None:
    assert plain(drawn(text)) == text


def test_a_very_long_table_is_shown_before_it_ends() -> None:
    page = Markdown(40)
    shown = plain(page.feed("| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 200))
    assert shown.count("1 │ 2") == 98
    assert plain(page.feed("| 1 | 2 |" + "x" * 3000)).endswith("x" * 3000)


def test_code_has_colours_when_its_line_ends() -> None:
    page = Markdown(80)
    code = '```python\ndef f(x):  # why\n    """Doc\n    more"""\n    return len("s") + 12'
    shown = looks(page.feed(code))
    assert "{code keyword:def}{code: }{code name:f}{code:(x):  }{code comment:# why}" in shown
    assert '{code string:    more"""}' in shown
    assert "return" not in shown
    assert "{code:    return len" in looks(page.tail())
    assert "{code keyword:return}" in looks(page.close())


@pytest.mark.parametrize("language", ["", "no-such-language"])
def test_code_of_no_known_language_is_shown_at_once(language: str) -> None:
    page = Markdown(80)
    page.feed(f"```{language}\n")
    assert looks(page.feed("def f")) == "{code:def f}"


def test_long_code_stays_readable() -> None:
    page = Markdown(80)
    text = "```python\n" + f"x = 1  # {'why ' * 20}\n" * 60 + "y" * 1000
    assert plain(page.feed(text) + page.tail()) == text


def test_no_colours_are_loaded_before_code_is_shown() -> None:
    check = (
        "import sys; from edgespec.cli.terminal.screen import Screen; "
        "assert not any(name.startswith('pygments') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_drafted_tokens_are_known_through_markup() -> None:
    page = Markdown(12)
    pieces = [("# He", True), ("ad\n- **on", False), ("e tw", True), ("o** `thr", False),
              ("ee` four\n```\nfi", True), ("ve", False)]  # fmt: skip
    out = [g for text, drafted in pieces for g in page.feed(text, drafted=drafted)] + page.close()
    text = "".join(text for text, _ in pieces)
    flags = [drafted for text, drafted in pieces for _ in text]
    said = [(c, d) for c, d in zip(text, flags, strict=True) if c.isalpha()]
    assert [(c, "drafted" in look) for c, look in out if c.isalpha()] == said
    assert ("n", frozenset({"bold"})) in out
    assert ("e", frozenset({"bold", "drafted"})) in out
    assert ("e", frozenset({"code", "drafted"})) in out


@pytest.mark.parametrize(
    ("begun", "more"),
    [("**", "word "), ("`", "word "), ("**`", "word "), ("", "-"), ("", " "), ("> ", "*"),
     ("", "`"), ("```\n", "`"), ("```\n", " "), ("~~~", " word")],
)  # fmt: skip
def test_nothing_is_held_back_for_ever(begun: str, more: str) -> None:
    page = Markdown(80)
    shown = plain(page.feed(begun + more * 1000))
    assert shown.strip("\n").startswith(begun.replace("> ", "│ ").strip("\n"))
    assert more in " " or len(shown) > 1000 - 2 * LONGEST
    assert len(page._text) <= 2 * LONGEST + 2  # what is read again with every piece


def test_joined_characters_stay_together() -> None:
    assert plain(drawn("aaaaa 👩\u200d🔬", 9)).split("\n") == ["aaaaa", "👩\u200d🔬"]


def test_a_deep_item_does_not_hang_where_there_is_no_room() -> None:
    assert plain(drawn(" " * 8 + "- one two three", 16)).split("\n") == [
        " " * 8 + "• one", "two three",
    ]  # fmt: skip


def test_a_new_width_holds_from_the_next_word_on() -> None:
    page = Markdown(40)
    shown = page.feed("one two three four five six ")
    page.resize(20)
    shown += page.feed("seven eight nine ten") + page.close()
    assert plain(shown).split("\n") == ["one two three four five six", "seven eight nine ten"]
