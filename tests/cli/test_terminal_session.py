"""A real conversation with the demo pair in a pseudo-terminal, wide and narrow: what it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from terminal_driver import Terminal

LONG = ["-n", "20000", "-c", "20000", "-t", "1"]  # minutes of text, if nobody stops it


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for what is measured once and what was typed."""
    return tmp_path_factory.mktemp("home")


def rows_between(rows: list[str], first: str, last: str) -> list[str]:
    """The rows after the last one that begins with `first`, up to the next `last`."""
    start = max(at for at, row in enumerate(rows) if row.startswith(first)) + 1
    end = next(at for at in range(start, len(rows)) if re.match(last, rows[at]))
    return rows[start:end]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [100, 60])
def test_a_conversation(columns: int, home: Path, tmp_path: Path) -> None:
    kept = tmp_path / "talk.json"
    words = [*LONG, "--seed", "7", "--speculative", "on"]  # auto may find that it does not pay
    with Terminal("chat", *words, home=home, columns=columns) as terminal:
        terminal.prompt(1)
        terminal.type("/set max_tokens 40")
        terminal.prompt(2)
        terminal.type("Tell me a story about a fox.")
        terminal.prompt(3)
        first = rows_between(terminal.rows, "> Tell me", r"[\d.]+ tokens/s")
        assert len(" ".join(first)) > 80
        assert max(map(len, first)) < columns
        assert len(first) >= 80 // columns

        terminal.type("/set max_tokens 20000")
        terminal.prompt(4)
        terminal.type("/set temperature 8")  # gibberish, which does not end by itself
        terminal.prompt(5)
        terminal.type("And then?")
        n = len(terminal.rows)
        terminal.wait(lambda: len(terminal.rows) > n + 6, "an answer of six rows")
        terminal.press("\x03")
        terminal.wait_for(r"\[stopped: Ctrl-C again leaves\]")
        terminal.prompt(6)
        stopped = rows_between(terminal.rows, "> And then?", r"\[stopped")
        assert "^C" not in terminal.text

        terminal.type("/set temperature 0")
        terminal.prompt(7)
        terminal.type("/set max_tokens 40")
        terminal.prompt(8)
        terminal.type("/regen")
        terminal.prompt(9)
        again = rows_between(terminal.rows, "> /regen", r"[\d.]+ tokens/s")
        assert again != stopped

        terminal.type("/spec off")
        terminal.prompt(10)
        terminal.type("Go on.")
        terminal.prompt(11)
        plain = rows_between(terminal.rows, "> Go on.", ">$")
        assert "accepted" not in " ".join(plain)
        assert "no drafter" in " ".join(plain)

        terminal.type("/stats")
        terminal.prompt(12)
        stats = rows_between(terminal.rows, "> /stats", ">$")
        assert stats[0].startswith("4 answers, ")
        assert any(re.match(r"  1 [█░]{8,} +\d+% of \d+$", row) for row in stats)
        assert any(re.match(r"tokens/s  [▁▂▃▄▅▆▇█]{4}  [\d.]+ to [\d.]+$", row) for row in stats)
        assert max(map(len, stats)) < columns

        terminal.type(f"/save {kept}")
        terminal.prompt(13)
        terminal.type("/exit")
        assert terminal.end() == 0

    messages = json.loads(kept.read_text())["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant"] * 3
    said = [" ".join(one["content"].split()) for one in messages[1::2]]
    answers = (first, again, [row for row in plain if " · " not in row])
    for text, shown in zip(said, answers, strict=True):
        assert " ".join(" ".join(shown).split()).startswith(text)
    assert (home / "history").read_text().count("+And then?") >= 1
    assert (home / "history").stat().st_mode & 0o077 == 0


TABLE = """| Name of it | What it is said to do in a few words | Calls |
|---|---|--:|
| fox | it looks for a **red scarf** in the forest, and then at home | 12 |

```python
def find(scarf):  # at last
    return 12
```"""


@pytest.mark.slow
@pytest.mark.parametrize("columns", [100, 60])
def test_tables_and_code_in_an_answer(columns: int, home: Path, tmp_path: Path) -> None:
    lines = " ".join(f'{json.dumps(line)} "\\n"' for line in TABLE.split("\n"))
    (tmp_path / "table.gbnf").write_text(f"root ::= {lines}\n")
    words = ["--grammar", str(tmp_path / "table.gbnf"), "-t", "1", "-n", "400"]
    with Terminal("chat", *words, home=home, columns=columns) as terminal:
        terminal.prompt(1)
        terminal.type("Show it.")
        terminal.prompt(2)
        shown = rows_between(terminal.rows, "> Show it.", r"[\d.]+ tokens/s")
        assert max(map(len, shown)) < columns
        assert not any(row.startswith("|") for row in shown)
        assert re.fullmatch(r"Name of it │ What it is said to do .*│ Calls", shown[0])
        assert {"```python", "def find(scarf):  # at last", "    return 12"} <= set(shown)
        assert any(re.fullmatch(r"fox        │ it looks .* │    12", row) for row in shown)
        assert terminal.colour_of("return") <= {"magenta", "green"}
        terminal.type("/exit")
        assert terminal.end() == 0


@pytest.mark.slow
def test_what_stands_below_answers_is_calm(home: Path) -> None:
    with Terminal("chat", "-n", "30", "-t", "1", home=home) as terminal:
        terminal.prompt(1)
        for number in (2, 3):
            terminal.type("Tell me a story.")
            terminal.prompt(number)
        below = [row for row in terminal.rows if re.match(r"[\d.]+ tokens/s", row)]
        assert len(below) == 2
        assert not any("plain" in row or "target on" in row for row in below)
        assert terminal.text.count("target on CPU") == 1
        terminal.type("/exit")
        assert terminal.end() == 0


@pytest.mark.slow
def test_ctrl_c_twice_leaves_with_code_130(home: Path) -> None:
    with Terminal("chat", *LONG, "--temp", "8", "--seed", "7", home=home) as terminal:
        terminal.prompt(1)
        terminal.press("forget this\x03")
        terminal.wait_for(r"\[Ctrl-C again leaves\]")
        terminal.prompt(2)
        terminal.type("Hi")  # after which one Ctrl-C is not the second any more
        n = len(terminal.rows)
        terminal.wait(lambda: len(terminal.rows) > n + 2, "two rows")
        terminal.press("\x03")
        terminal.wait_for(r"\[stopped: Ctrl-C again leaves\]")
        terminal.prompt(3)
        terminal.press("\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.raw


@pytest.mark.slow
def test_escape_sequences_that_are_typed_are_harmless(home: Path) -> None:
    with Terminal("chat", "-n", "3", "-t", "1", home=home) as terminal:
        terminal.prompt(1)
        terminal.press("\x1b[31m\x1b[0m\x1b[<0;1;1M")
        terminal.type("/spec off")
        terminal.wait_for(r"\[speculation off")
        assert "exception" not in terminal.text
        terminal.press("\x04")
        assert terminal.end() == 0
