"""`edgespec chat` where one question comes with -p, -f or a pipe, and what comes out of a pipe."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgespec.cli import main
from edgespec.cli.chat import question_of
from edgespec.cli.output import show_progress

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture
def model(stories260k: Path) -> list[str]:
    return ["-m", str(stories260k), "-c", "256", "-t", "1", "-n", "8"]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.TextIOWrapper]:
    """What is written here is on standard input; closing it ends that."""
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as stdin, os.fdopen(write, "wb") as end:
        monkeypatch.setattr("sys.stdin", stdin)
        yield end  # type: ignore[misc]


def asked(**given: str | None) -> str | None:
    """What is asked with these flags."""
    import argparse

    return question_of(argparse.Namespace(**{"prompt": None, "file": None, **given}))


def test_a_question_has_the_prompt_first_then_the_file_then_the_pipe(
    pipe: io.BufferedWriter, tmp_path: Path
) -> None:
    file = tmp_path / "text"
    file.write_text("\ufeffthe file\n", encoding="utf-8")
    pipe.write("the pipe, ü\n".encode())
    pipe.close()
    assert asked(prompt="Say:", file=str(file)) == "Say:\n\nthe file\n\nthe pipe, ü"


def test_a_file_alone_is_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("not a pipe"))
    (tmp_path / "text").write_text("the file")
    assert asked(file=str(tmp_path / "text")) == "the file"
    assert asked(prompt="only this") == "only this"


def test_a_pipe_alone_is_a_question(pipe: io.BufferedWriter) -> None:
    pipe.write(b"piped\n")
    pipe.close()
    assert asked() == "piped"


def test_a_terminal_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO()
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", stdin)
    assert asked() is None
    assert asked(prompt="x") == "x"


@pytest.mark.parametrize(
    ("words", "typed", "expected"),
    [
        ([], b"", "the question is empty: expected a text with -p, in -f's file or on standard"),
        ([], b" \n", "the question is empty"),
        (["-p", ""], b"", "the question is empty"),
        ([], b"\xff\xfe", "standard input is not UTF-8 at byte 0"),
        (["-f", "/no/such"], b"", "-f /no/such: No such file"),
        (["-f", "/bin/sh"], b"", "-f /bin/sh: not UTF-8 at byte"),
    ],
)
def test_a_question_that_cannot_be_read_is_one_line_and_code_2(
    words: list[str], typed: bytes, expected: str, pipe: io.BufferedWriter,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pipe.write(typed)
    pipe.close()
    assert main(["chat", *words]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith(f"edgespec: {expected}")
    assert seen.err.count("\n") == 1


def test_bytes_that_are_no_text_are_one_line_whatever_the_locale(model: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgespec", "chat", *model], cwd=ROOT, input=b"caf\xe9 ok",
        capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (b"edgespec: standard input is not UTF-8 at byte 3: expected a text\n")


def test_no_standard_input_at_all_is_an_empty_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["chat"]) == 2
    assert "the question is empty" in capsys.readouterr().err


def test_a_pipe_that_does_not_end_is_explained(
    pipe: io.BufferedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(type(show_progress), "__call__", lambda *args: seen.append(args[1]))
    writer = threading.Thread(target=lambda: (pipe.write(b"late"), pipe.close()))
    writer.start()
    assert asked(prompt="Say:") == "Say:\n\nlate"
    writer.join()
    assert seen == ["reading standard input to its end"]


def test_json_in_a_conversation_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.StringIO()
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin", stdin)
    assert main(["chat", "--json", "-"]) == 2
    assert "--json in a conversation: expected one question" in capsys.readouterr().err


def test_json_to_stdout_is_all_that_is_printed_there(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "-p", "Hi", *model, "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["runs"][0]["n_tokens"]) == ("edgespec.run/1", 8)


def test_colour_is_kept_in_a_pipe_if_it_is_asked_for(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chat", "-p", "Hi", *model, "-md", model[1], "--speculative", "on", "--color"]
    assert main([*words, "off"]) == 0
    plain = capsys.readouterr().out
    assert main([*words, "on"]) == 0
    coloured = capsys.readouterr().out
    assert "\x1b[32m" in coloured
    assert coloured.replace("\x1b[32m", "").replace("\x1b[0m", "") == plain


@pytest.mark.slow
def test_a_reader_who_leaves_is_no_error(model: list[str]) -> None:
    words = [sys.executable, "-m", "edgespec", "chat", "-p", "Hi", *model]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(words, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=False)  # fmt: skip
    os.close(write)
    assert done.returncode == 0
    assert "Error" not in done.stderr
