"""`edgespec serve` as a process: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import ASK, call

from edgespec.cli import main


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    known = {**os.environ, "EDGESPEC_HOME": str(folder), **environment}
    command = [sys.executable, "-m", "edgespec", "serve", "-t", "1", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=known, cwd=folder)


def serving(process: subprocess.Popen[str]) -> str:
    """The line that says where it serves; a slow start is told in lines before."""
    assert process.stderr is not None
    return next(line for line in iter(process.stderr.readline, "") if line.startswith("serving"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves the demo pair, and where."""
    process = start(tmp_path, "--port", "0", "--alias", "fox", "-n", "900")
    assert process.stderr is not None
    try:
        line = serving(process)
        assert line.startswith("serving fox at http://127.0.0.1:"), line
        yield process, line.split()[3]
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


@pytest.mark.slow
def test_sigterm_ends_what_is_answered_within_five_seconds(served: Any) -> None:
    process, url = served
    assert call(url, "/v1/models").body["data"][0]["id"] == "fox"
    assert call(url, "/").status == 200
    form = {"type": "json_object", "schema": {"type": "array", "minItems": 900,
                                              "items": {"type": "integer"}}}  # fmt: skip
    given = {"messages": ASK, "stream": True, "response_format": form, "n": 8}
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call(url, "/v1/chat/completions", given)))
    thread.start()
    until = time.monotonic() + 10
    while not call(url, "/health").body["running"]:
        assert time.monotonic() < until
    then = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - then < 5
    thread.join(5)
    last = found[0].events()[-1]
    assert last == "[DONE]" or json.loads(last)["error"]["code"] == "closing"


@pytest.mark.slow
def test_models_are_loaded_by_name_and_closed_when_idle(tmp_path: Path) -> None:
    process = start(tmp_path, "--port", "0", "--idle-unload", "4", "-n", "4")
    assert process.stderr is not None
    try:
        url = serving(process).split()[3]

        def open_names() -> set[str]:
            rows = call(url, "/v1/models").body["data"]
            return {row["id"] for row in rows if row["status"] == "loaded"}

        asked = {"messages": ASK, "model": "demo-foreign"}
        assert call(url, "/v1/chat/completions", asked).body["model"] == "demo-foreign"
        assert "demo-foreign" in open_names()
        until = time.monotonic() + 30
        while open_names():
            assert time.monotonic() < until
            time.sleep(0.2)
        assert call(url, "/v1/chat/completions", {"messages": ASK}).body["model"] == "demo"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines in: expected a key"),
        (["--port", "70000"], "argument --port: '70000': expected 0 to 65535"),
        (["--api-key-file", "none"], "--api-key-file none: No such file"),
        (["--cors", "x"], "--cors x: expected an origin"),
        (["--models-dir", "none"], "--models-dir none: expected a folder of GGUF files"),
        (["--temp", "-1"], "--temp is -1.0: expected 0 or more"),
        (["--stop", ""], "stop"),
        (["--most-models", "0"], "argument --most-models: '0': expected 1 to 64"),
    ],
)
def test_a_mistake_is_one_line_and_two(
    words: list[str], expected: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESPEC_API_KEY", raising=False)
    assert main(["serve", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1
