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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, running
from model_maker import make
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


SLOW_CHILD = """
import os, pathlib, sys, time
if "trial" in " ".join(sys.orig_argv):
    pathlib.Path(os.environ["BEGUN"]).write_text(str(os.getpid()))
    time.sleep(60)
"""


@contextmanager
def downloading(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose model comes no further than its first bytes."""
    hub = Hub({"user/tiny": {"tiny-Q4_K_M.gguf": bytes(3 << 20)}}, stall_at=(2 << 20) + 99)
    with running(hub) as server:
        own = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder), "NO_PROXY": "*"}
        yield start(folder, "--port", "0", "-hf", "user/tiny", **own)
        hub.go_on.set()


@contextmanager
def trying(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for the child that opens its model first."""
    model = make(folder / "model.gguf")
    (folder / "sitecustomize.py").write_text(SLOW_CHILD)
    own = {"PYTHONPATH": str(folder), "BEGUN": str(folder / "begun")}
    yield start(folder, "--port", "0", "-m", str(model), **own)


DEAF = """
import ctypes, os, pathlib
from edgespec.session import opening
def paths_of(*_, **__):
    pathlib.Path(os.environ["BEGUN"]).write_text("1")
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
opening.paths_of = paths_of
"""


@contextmanager
def deaf(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that hears of no signal, as C code does not return."""
    (folder / "sitecustomize.py").write_text(DEAF)
    yield start(folder, "--port", "0", PYTHONPATH=str(folder), BEGUN=str(folder / "begun"))


def is_there(pid: int) -> bool:
    """Whether a process is, or nobody has noticed yet that it is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="ends a process by a signal")
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("opening", "begun"),
    [(downloading, "hub/*/blobs/*.incomplete"), (trying, "begun"), (deaf, "begun")],
)
def test_a_signal_ends_what_is_opened(
    tmp_path: Path, opening: Any, begun: str, signal_: signal.Signals
) -> None:
    with opening(tmp_path) as process:
        try:
            until = time.monotonic() + 20
            while not any(path.stat().st_size for path in tmp_path.glob(begun)):
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal_)
            then = time.monotonic()
            _, said = process.communicate(timeout=20)
            assert time.monotonic() - then < 5
        finally:
            process.kill()
            process.wait(10)
    assert process.returncode == 0 and said.startswith("closing") and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.tmp*"))
    if opening is trying:
        until = time.monotonic() + 20
        while is_there(int((tmp_path / "begun").read_text())):
            assert time.monotonic() < until, "the child goes on"
            time.sleep(0.05)


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


def living() -> list[threading.Thread]:
    """Threads, once those that end had time to."""
    time.sleep(0.02)
    return threading.enumerate()


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
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert main(["serve", *words]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert not any(one.name == "edgespec-end" for one in living())
