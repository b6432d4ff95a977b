"""What is written to a terminal and elsewhere: streams, redraws, colours, widths, progress bars."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from edgespec.cli.progress import Bar, bar_line, duration, left_s
from edgespec.cli.terminal import screen as screen_module
from edgespec.cli.terminal.markdown import Markdown
from edgespec.cli.terminal.plain import Plain, printer_of
from edgespec.cli.terminal.screen import Screen, column_after
from edgespec.cli.tty import can_write, cells, is_screen

TEXT = """# The *little* fox

Once upon a time there was a **little fox** who `lost` her scarf, which was *very* red.
- one thing she did was to look for it all over the forest
- 另外一件事情是她问了所有的朋友

```python
print("a line of code that is never wrapped by us, however long it may be")
```
> "It is **here**", said the owl."""


class Tty(io.StringIO):
    """A file that says it is a terminal, feeding an emulated one."""

    def __init__(self, columns: int = 80, encoding: str = "utf-8", n_rows: int = 60) -> None:
        super().__init__()
        self.columns, self._encoding = columns, encoding
        self.emulated = pyte.Screen(columns, n_rows)
        self._stream = pyte.Stream(self.emulated)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))  # as a terminal's driver does
        return super().write(text)

    @property
    def rows(self) -> list[str]:
        return "\n".join(row.rstrip() for row in self.emulated.display).rstrip().split("\n")


@pytest.fixture(autouse=True)
def _widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulated terminal says its own width."""
    monkeypatch.setattr(screen_module, "width_of", lambda file: file.columns)


def drawn(pieces: list[tuple[str, bool]], columns: int = 80, *, colour: bool = True) -> Tty:
    tty = Tty(columns)
    screen = Screen(tty, colour=colour)
    screen.begin()
    for text, drafted in pieces:
        screen.piece(text, drafted=drafted)
    screen.end()
    return tty


def pieces_of(text: str, size: int) -> list[tuple[str, bool]]:
    return [(text[at : at + size], at % 2 == 0) for at in range(0, len(text), size)]


@pytest.mark.parametrize("columns", [100, 60])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_screen_holds_the_page_at_any_width_and_in_any_pieces(columns: int, size: int) -> None:
    tty = drawn(pieces_of(TEXT, size), columns)
    page = Markdown(columns - 1)
    expected = "".join(char for char, _ in page.feed(TEXT) + page.close())
    # A wide character is two cells in the emulator, the second one empty.
    shown = [row.rstrip() for row in expected.split("\n")]
    held = tty.rows
    code = next(at for at, row in enumerate(shown) if row.startswith("print"))
    if columns == 60:  # the terminal's own wrapping of code
        held[code : code + 2] = [held[code] + held[code + 1]]
    assert held == shown
    assert held[0] == "The little fox"


def test_a_growing_text_is_written_once_and_never_taken_back() -> None:
    text = "plain words that come a few letters at a time"
    tty = drawn(pieces_of(text, 3), colour=False)
    assert tty.getvalue() == text + "\n"


def test_a_word_that_does_not_fit_its_row_moves_to_the_next() -> None:
    tty = drawn(pieces_of("seven eight nineteen", 1), columns=15)
    assert tty.rows == ["seven eight", "nineteen"]
    assert "\x1b[J" in tty.getvalue()


def test_what_is_not_final_is_on_the_screen_all_the_same() -> None:
    tty = Tty(30)
    screen = Screen(tty, colour=True)
    screen.piece("It is **very bold and goes on over", drafted=False)
    assert tty.rows == ["It is **very bold and goes on", "over"]
    screen.piece(" the row** end", drafted=True)
    assert tty.rows == ["It is very bold and goes on", "over the row end"]
    bold = [tty.emulated.buffer[0][at].bold for at in range(27)]
    assert bold == [False] * 6 + [True] * 21
    screen.end()
    assert (tty.emulated.cursor.x, tty.emulated.cursor.y) == (0, 2)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["ab ", "**", "`", "word", "\n", "- ", "字", "```\n", "# ", "*x* "]),
             max_size=25),
    st.sampled_from([9, 20, 60]),
)  # fmt: skip
def test_redrawing_leaves_nothing_behind(parts: list[str], columns: int) -> None:
    text = "".join(parts)
    assert (
        drawn([(part, False) for part in parts], columns).rows
        == drawn([(text, False)], columns).rows
    )


def test_drafted_tokens_are_green_and_code_is_cyan() -> None:
    tty = drawn([("own ", False), ("**dra", True), ("fted** `c", True), ("ode`", False)])
    row = tty.emulated.buffer[0]
    colours = {tty.rows[0][at]: row[at].fg for at in range(len(tty.rows[0]))}
    assert (colours["w"], colours["r"], colours["e"], colours["o"]) == (
        "default", "green", "cyan", "cyan",
    )  # fmt: skip
    assert row[tty.rows[0].index("d")].bold
    plain = drawn([("own ", False), ("**drafted**", True)], colour=False)
    assert {plain.emulated.buffer[0][at].fg for at in range(12)} == {"default"}
    assert plain.emulated.buffer[0][5].bold


TABLE = "So:\n| one | two |\n|---|---|\n" + "".join(f"| {n} | row |\n" for n in range(30)) + "end"


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [12, 60])
def test_a_table_under_way_never_scrolls_out_of_reach(
    n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen_module, "rows_of", lambda file: n_rows)
    tty = Tty(40, n_rows=n_rows)
    tty.emulated = pyte.HistoryScreen(40, n_rows, history=500)
    tty._stream = pyte.Stream(tty.emulated)
    screen = Screen(tty, colour=True)
    for text, drafted in pieces_of(TABLE, 5):
        screen.piece(text, drafted=drafted)
        assert len(tty.rows) <= n_rows
    screen.end()
    gone = ["".join(row[at].data for at in range(40)).rstrip() for row in tty.emulated.history.top]
    expected = ["So:", "one │ two", "────┼────", *(f"{n:<3} │ row" for n in range(30)), "end"]
    assert [*gone, *tty.rows][: len(expected)] == expected


def test_code_is_coloured_and_drafted_code_keeps_its_green() -> None:
    pieces = [("```python\nif", False), (" x: # why\n", True), ("y = 'a'\n```", False)]
    tty = drawn(pieces)
    colours = [[tty.emulated.buffer[at][i].fg for i in range(7)] for at in (1, 2)]
    assert colours == [["magenta"] * 2 + ["green"] * 5, ["cyan"] * 4 + ["brown"] * 3]
    assert tty.emulated.buffer[1][0].bold
    plain = drawn(pieces, colour=False)
    assert {plain.emulated.buffer[2][i].fg for i in range(7)} == {"default"}


@pytest.mark.parametrize("columns", [20, 35, 100])
def test_a_terminal_that_is_resized_loses_no_words(columns: int) -> None:
    tty = Tty(50)
    screen = Screen(tty, colour=True)
    words = [f"word{n}" for n in range(40)]
    for number, word in enumerate(words):
        if number == 12:
            tty.columns = columns
            tty.emulated.resize(60, columns)
        screen.piece(word[:3], drafted=False)
        screen.piece(word[3:] + " ", drafted=True)
    screen.end()
    assert all(word in tty.getvalue() or word[3:] in tty.getvalue() for word in words)
    after = tty.rows[-3:]
    assert max(map(len, after)) < columns
    assert after[-1].split()[-1] == "word39"


def test_what_was_written_survives_a_narrowed_terminal() -> None:
    tty = Tty(50)
    screen = Screen(tty, colour=True)
    screen.piece("first\nsecond\n" + "word " * 7 + "**bold", drafted=False)
    tty.columns = 20
    tty.emulated.resize(60, 20)
    screen.piece("** end\n", drafted=False)
    screen.end()
    assert tty.rows[:2] == ["first", "second"]
    assert tty.rows[2].startswith("word word")
    assert tty.rows[3:] == ["bold end"]


def test_a_terminal_without_unicode_gets_ascii_marks() -> None:
    tty = Tty(40, encoding="ascii")
    screen = Screen(tty, colour=False)
    screen.piece("- one\n> two\n", drafted=False)
    screen.end()
    assert tty.rows == ["* one", "| two"]


def test_a_pipe_gets_the_text_as_it_is() -> None:
    file = io.StringIO()
    printer = printer_of(file, "auto", {"TERM": "xterm"})
    assert isinstance(printer, Plain)
    printer.begin()
    for text, drafted in pieces_of(TEXT, 5):
        printer.piece(text, drafted=drafted)
    printer.end()
    assert file.getvalue() == TEXT + "\n"
    printer.begin()
    printer.end()  # an answer without a word
    assert file.getvalue() == TEXT + "\n"


@pytest.mark.parametrize(
    ("color", "environ", "draws", "colour"),
    [
        ("auto", {"TERM": "xterm"}, True, True),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ("off", {"TERM": "xterm"}, True, False),
        ("on", {"TERM": "xterm", "NO_COLOR": "1"}, True, True),
        ("auto", {"TERM": "dumb"}, False, False),
        ("on", {"TERM": "dumb"}, False, True),
        ("auto", {}, False, False),
    ],
)
def test_who_gets_colours(color: str, environ: dict[str, str], draws: bool, colour: bool) -> None:
    tty = Tty()
    printer = printer_of(tty, color, environ)
    printer.begin()
    printer.piece("**x**", drafted=True)
    printer.end()
    assert ("**" not in tty.rows[0]) is draws
    assert ("\x1b[32m" in tty.getvalue() or ";32m" in tty.getvalue()) is colour


def test_the_cursor_is_followed() -> None:
    glyphs = [(char, frozenset[str]()) for char in "ab\n字c"]
    assert column_after(5, glyphs) == 3
    assert column_after(5, glyphs[:2]) == 7
    assert column_after(5, glyphs[:3]) == 0


def bar_on(file: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> tuple[Bar, list[float]]:
    """A bar whose clock stands at now[0]."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("edgespec.cli.progress.EVERY_S", 1e9)  # drawn by hand
    now = [100.0]
    return Bar(file, lambda: now[0]), now


def test_a_bar_shows_after_a_second_with_the_time_left_and_goes_when_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = Tty(60)
    bar, now = bar_on(tty, monkeypatch)
    bar("loading", 0.0)
    now[0] += 0.9
    bar("loading", 0.3)
    bar.draw()
    assert tty.getvalue() == ""
    now[0] += 1.1
    bar("loading", 0.5)
    bar.draw()
    (row,) = tty.rows
    assert row == "loading " + "█" * 15 + "░" * 15 + "  50%  2 s left"
    bar("loading", 1.0)
    assert tty.rows == [""]
    bar.draw()
    assert tty.rows == [""]


def test_a_bar_that_starts_again_waits_a_second_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Tty(60)
    bar, now = bar_on(tty, monkeypatch)
    bar("first", 0.5)
    now[0] += 2
    bar.draw()
    bar("second", 0.1)  # the first never said that it was done
    bar.draw()
    assert tty.rows == [""]
    now[0] += 2
    bar("second", 0.2)
    bar.draw()
    assert tty.rows[0].endswith("20%  16 s left")
    bar.clear()
    assert tty.rows == [""]


def test_a_log_gets_a_line_of_what_took_long_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    bar, now = bar_on(log, monkeypatch)
    bar("quick", 0.0)
    bar("quick", 1.0)
    bar("measuring", 0.0)
    now[0] += 5
    bar("measuring", 0.5)
    bar("measured", 1.0)
    assert log.getvalue() == "measured\n"


def test_a_bar_is_drawn_while_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Tty(60)
    bar, now = bar_on(tty, monkeypatch)
    monkeypatch.setattr("edgespec.cli.progress.EVERY_S", 0.001)
    now[0] = 0.0
    bar("one long call", 0.0)
    now[0] = 3.0
    end = time.monotonic() + 60
    while not tty.getvalue() and time.monotonic() < end:
        time.sleep(0.001)
    bar.clear()
    assert "one long call" in tty.getvalue()


@pytest.mark.parametrize("width", [0, 5, 12, 20, 40, 200])
@pytest.mark.parametrize("share", [0.0, 0.123, 1.0])
def test_a_bar_fits_any_width(width: int, share: float) -> None:
    line = bar_line("reading a prompt of 12,000 tokens", share, 12.0, 3.0, width)
    assert len(line) <= width


@pytest.mark.parametrize("width", [5, 12, 21, 40])
def test_wide_characters_take_two_columns_of_a_bar(width: int) -> None:
    for share in (0.0, 0.5):
        line = bar_line("読み込み中のモデル" * 3, share, 12.0, 3.0, width)
        assert cell_len(line) <= width
    assert cells("a読e\u0301") == 4


def test_a_bar_is_as_wide_as_its_own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = Tty(60)
    bar, now = bar_on(tty, monkeypatch)
    monkeypatch.setattr("edgespec.cli.progress.width_of", lambda file: 33 if file is tty else 80)
    bar("reading a prompt of 12,000 tokens", 0.5)
    now[0] += 2
    bar.draw()
    assert len(tty.rows[0]) == 32


def test_what_cannot_tell_its_share_shows_the_time_so_far() -> None:
    assert bar_line("loading it", 0.0, 12.0, None, 40) == "loading it  12 s"


def test_times_are_said_as_people_do() -> None:
    assert [duration(s) for s in (0.2, 89, 90, 600, 5400)] == ["0 s", "89 s", "2 min", "10 min",
                                                               "1.5 h"]  # fmt: skip
    assert left_s(10.0, 0.5, 0.75) == 10.0
    assert left_s(10.0, 0.5, 0.5) is None


def test_encodings_and_terminals_are_told(tmp_path: Path) -> None:
    assert can_write(Tty(), "•")
    assert not can_write(Tty(encoding="ascii"), "•")
    with (tmp_path / "file").open("w") as file:
        assert not is_screen(file, {"TERM": "xterm"})
