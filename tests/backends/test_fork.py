"""A forked child of a process with open models: an error at once, and an end without a wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx_maker import dynamic_folder

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

HEAD = """
import os, signal, sys
from pathlib import Path
import edgespec.errors
"""
OPEN_MODEL = """
from edgespec.backends import ModelOptions, open_model
model = open_model(Path(sys.argv[1]), ModelOptions(n_threads=2, n_context=64))
model.forward([1, 2, 3])
calls = [lambda: model.forward([4]), lambda: model.extend([4]), lambda: model.truncate(0)]
"""
OPEN_SESSION = """
import edgespec
model = edgespec.load(sys.argv[1], speculative="off", threads=2, ctx_size=64)
started = model.generate("Once upon a time")
next(started)
calls = [lambda: model.generate("Once"), lambda: next(started)]
"""
FORK = """
child = os.fork()
if child == 0:
    signal.alarm(10)  # what hangs is killed
    for call in calls:
        try:
            call()
        except edgespec.errors.BackendError as error:
            print(error)
    calls = call = started = None
    model.close()
    model.close()
    del model
    sys.stdout.flush()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
calls[0]()
model.close()
"""


def said_in_a_fork(opening: str, path: Path) -> list[str]:
    """What a child prints whose parent has opened `path`; the parent goes on all the while."""
    script = HEAD + opening + FORK
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(path)],
        capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["llamacpp", "onnx"])
def test_a_model_is_refused_and_closed_in_a_fork(backend: str, tiny: Path) -> None:
    said = said_in_a_fork(OPEN_MODEL, tiny if backend == "llamacpp" else dynamic_folder(tiny))
    assert len(said) == 3
    assert all("a fork has none of its threads: expected" in line for line in said)


def test_a_session_is_refused_and_closed_in_a_fork(tiny: Path) -> None:
    said = said_in_a_fork(OPEN_SESSION, tiny)
    assert len(said) == 2
    assert all("open it again in the child, or start the child with spawn" in one for one in said)
