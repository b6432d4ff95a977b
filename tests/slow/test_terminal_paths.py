"""Every way a conversation can be entered, interrupted, resized and left, in pseudo-terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from terminal_driver import Terminal

pytestmark = pytest.mark.slow

LONG = ["-n", "20000", "-c", "20000", "-t", "1", "--temp", "8", "--seed", "7"]  # never ends
SHORT = ["-n", "30", "-t", "1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for what is measured once and what was typed."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("words", [["chat"], ["chat", "-p", "Hi"]])
@pytest.mark.parametrize("library", ["numpy", "libllama", "libggml-cpu"])
def test_ctrl_c_while_loading_leaves_without_a_trace(
    words: list[str], library: str, tmp_path: Path
) -> None:
    with Terminal(*words, *SHORT, home=tmp_path) as terminal:  # measures, too: a new home
        process = psutil.Process(terminal.pid)
        # Asked often: what is loaded last is there for a fraction of a second before the prompt.
        terminal.wait(lambda: loaded(process, library), f"{library} in memory", every_s=0.01)
        terminal.press("\x03")
        code = terminal.end()
        assert "Traceback" not in terminal.raw
        assert "ignored in" not in terminal.raw
        assert code == 130


def loaded(process: psutil.Process, library: str) -> bool:
    return any(library in one.path for one in process.memory_maps())


def test_ctrl_c_while_a_long_text_is_read_keeps_the_conversation(
    home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "long.txt"
    file.write_text("Once upon a time there was a little fox in the wood. " * 4000)
    with Terminal("chat", "-n", "20", "-c", "80000", "-t", "1", home=home, columns=60) as terminal:
        terminal.prompt(1)
        terminal.type("Hi")
        terminal.prompt(2)
        terminal.type(f"/read {file}")
        terminal.wait_for(r"^reading the prompt [█░]+ +\d+%  \d+ (s|min) left$")
        terminal.press("\x03")
        terminal.wait_for(r"\[stopped: Ctrl-C again leaves\]")
        terminal.prompt(3)
        assert "reading" not in terminal.text  # the bar is gone
        terminal.type("/show")
        terminal.wait_for(r"context .* tokens, 2 messages")
        terminal.type("And then?")
        terminal.prompt(5)
        terminal.type("/exit")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.raw


def test_a_terminal_resized_while_streaming_stays_readable(home: Path) -> None:
    with Terminal("chat", *LONG, home=home) as terminal:
        terminal.prompt(1)
        terminal.type("Tell me a story.")
        for columns, n in ((60, 3), (110, 3), (40, 4)):
            seen = len(terminal.rows)
            terminal.wait(lambda seen=seen, n=n: len(terminal.rows) > seen + n, "more rows")
            terminal.resize(columns)
        seen = len(terminal.rows)
        terminal.wait(lambda: len(terminal.rows) > seen + 8, "rows after resizing")
        terminal.press("\x03")
        terminal.wait_for(r"\[stopped")
        at = next(n for n, row in enumerate(terminal.rows) if row.startswith("[stopped"))
        late = terminal.rows[at - 6 : at - 1]
        assert 25 < max(map(len, late)) < 40
        assert terminal.rows[-1] == ">" or terminal.prompt(2) is None
        terminal.press("\x04")
        assert terminal.end() == 0


def test_a_pipe_into_a_terminal_is_drawn(home: Path) -> None:
    shell = f"echo Tell me a story. | {{edgespec}} chat {' '.join(SHORT)} --speculative on"
    with Terminal(home=home, shell=shell, columns=60) as terminal:
        assert terminal.end() == 0
        answer = terminal.rows[0]
        assert answer.startswith("Once upon a time")
        assert max(map(len, terminal.rows[:2])) < 60
        assert "\x1b[32m" in terminal.raw


def test_a_keyboard_into_a_pipe_writes_answers_alone(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    shell = f"{{edgespec}} chat {' '.join(SHORT)} > {out}"
    with Terminal(home=home, shell=shell) as terminal:
        terminal.prompt(1)
        terminal.type("Tell me a story.")
        terminal.prompt(2)
        terminal.type("/exit")
        assert terminal.end() == 0
        assert "tokens/s" in terminal.text
        assert "Once upon" not in terminal.text
    assert out.read_text().startswith("Once upon a time")
    assert "\x1b" not in out.read_text()


def test_a_keyboard_alone_is_enough(home: Path, tmp_path: Path) -> None:
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"
    shell = f"{{edgespec}} chat {' '.join(SHORT)} > {out} 2> {err}; echo code $?"
    with Terminal(home=home, shell=shell) as terminal:
        terminal.type("Tell me a story.")
        terminal.type("/bye")
        terminal.wait_for("code 0")
        assert terminal.end() == 0
    assert out.read_text().startswith("Once upon a time")
    assert "\x1b" not in err.read_text()


def test_a_reader_who_leaves_ends_it_quietly(home: Path) -> None:
    shell = f"{{edgespec}} chat -p Hi {' '.join(LONG)} | head -c 20; echo; echo done"
    with Terminal(home=home, shell=shell) as terminal:
        terminal.wait_for("^done")
        assert terminal.end() == 0
        assert "Error" not in terminal.text


@pytest.mark.parametrize(
    ("environ", "words", "drawn", "green"),
    [
        ({}, [], True, True),
        ({"NO_COLOR": "1"}, [], True, False),
        ({}, ["--color", "off"], True, False),
        ({"NO_COLOR": "1"}, ["--color", "on"], True, True),
        ({"TERM": "dumb"}, [], False, False),
    ],
)
def test_colours_as_they_are_wanted(
    home: Path, environ: dict[str, str], words: list[str], drawn: bool, green: bool
) -> None:
    options = [*SHORT, *words, "--speculative", "on"]
    with Terminal("chat", *options, home=home, **environ) as terminal:
        terminal.prompt(1)
        terminal.type("Tell me a story about a fox.")
        terminal.wait_for("tokens/s")
        terminal.type("/bye")
        assert terminal.end() == 0
        assert ("\x1b[32m" in terminal.raw) is green
        assert ("\x1b[J" in terminal.raw) is drawn
        assert ("\x1b" in terminal.raw) is drawn
        assert "Once upon a time" in terminal.text


def test_one_answer_stopped_ends_with_130_and_keeps_its_text(home: Path) -> None:
    with Terminal("chat", "-p", "Tell me a story.", *LONG, home=home) as terminal:
        terminal.wait(lambda: len(terminal.rows) > 4, "four rows")
        os.kill(terminal.pid, signal.SIGINT)
        code = terminal.end()
        assert terminal.rows[-1].startswith("edgespec: stopped")
        assert code == 130


def test_typing_ahead_waits_for_the_next_prompt(home: Path) -> None:
    with Terminal("chat", *LONG, home=home) as terminal:
        terminal.prompt(1)
        terminal.type("Hi")
        terminal.wait(lambda: len(terminal.rows) > 6, "rows")
        terminal.type("/show")
        seen = len(terminal.rows)
        terminal.wait(lambda: len(terminal.rows) > seen + 3, "more rows")
        assert "/show" not in terminal.text
        terminal.press("\x03")
        terminal.wait_for(r"\[stopped")
        terminal.prompt(2)
        terminal.type("/exit")
        assert terminal.end() == 0


def test_several_lines_history_and_completion(home: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    with Terminal("chat", *SHORT, home=home) as terminal:
        terminal.prompt(1)
        terminal.type('"""one')
        terminal.wait_for(r"^\.\.\.$")
        terminal.type('two"""')
        terminal.wait_for("tokens/s")
        terminal.prompt(2)
        terminal.press("/sa\t")
        terminal.wait_for("^> /save")
        terminal.type(f" {kept}")
        terminal.wait_for(r"\[saved 2 messages")
        terminal.prompt(3)
        terminal.press("\x1b[A")
        terminal.wait_for("^> /save .*$", after=len(terminal.rows) - 1)
        terminal.press("\x03")
        terminal.wait_for("Ctrl-C again")
        terminal.type("/exit")
        assert terminal.end() == 0
    assert json.loads(kept.read_text())["messages"][0]["content"] == "one\ntwo"
    with Terminal("chat", *SHORT, home=home) as terminal:  # remembered the next time
        terminal.prompt(1)
        terminal.press("\x1b[A")
        terminal.wait_for("^> /exit")
        terminal.press("\x03")
        terminal.wait_for("Ctrl-C again")
        terminal.press("\x04")
        assert terminal.end() == 0


def test_history_can_be_off(tmp_path: Path) -> None:
    with Terminal("chat", *SHORT, "--history", "false", home=tmp_path) as terminal:
        terminal.prompt(1)
        terminal.type("/exit")
        assert terminal.end() == 0
    assert not (tmp_path / "history").exists()


def test_another_pair_in_the_middle_of_a_conversation(home: Path) -> None:
    with Terminal("chat", *SHORT, home=home, columns=60) as terminal:
        terminal.prompt(1)
        terminal.type("Tell me a story.")
        terminal.prompt(2)
        terminal.type("/model demo-foreign")
        terminal.wait_for("bridge")
        terminal.prompt(3)
        terminal.type("/model nothing.gguf")
        terminal.wait_for("^edgespec: nothing.gguf: no such file")
        terminal.prompt(4)
        terminal.type("And then?")
        terminal.prompt(5)
        assert re.search(r"^\[?.*tokens/s", terminal.text, re.MULTILINE)
        terminal.type("/exit")
        assert terminal.end() == 0


def test_thoughts_are_folded_and_shown_when_asked_for(home: Path, tmp_path: Path) -> None:
    template, says = tmp_path / "thinks.jinja", tmp_path / "says.gbnf"
    template.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
        "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    says.write_text('root ::= "<think>red fox.</think>\\n\\nThe red fox ran."')
    words = ["chat", "-t", "1", "--chat-template", str(template), "--grammar", str(says)]
    with Terminal(*words, home=home, columns=60) as terminal:
        terminal.prompt(1)
        terminal.type("Say it.")
        terminal.prompt(2)
        assert "[2 words of thought: /think shows them]" in terminal.rows
        assert "The red fox ran." in terminal.rows
        assert "red fox." not in terminal.rows  # the line that moved with it is gone
        assert ".. red" in terminal.raw
        terminal.type("/think")
        terminal.prompt(3)
        assert "red fox." in terminal.rows
        terminal.type("/think off")
        terminal.wait_for(r"^\[think is off\]")
        terminal.type("/exit")
        assert terminal.end() == 0
        assert "Traceback" not in terminal.raw
