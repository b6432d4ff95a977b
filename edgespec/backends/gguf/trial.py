"""Open an unknown model file in a child process first: what kills the child spares the caller.

llama.cpp ends the process on some damaged files that no cheap check foresees, and its repacked
kernels have been seen to die of an illegal instruction (AMX announced to a virtual machine that
cannot run it). A file that survived is remembered by size and time of change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgespec.backends.gguf.file import refusal
from edgespec.backends.llamacpp.library import log
from edgespec.config import cache_folder
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import write_whole

REFUSED = 3  # the child's exit code when the file was refused in good order
MOST_REMEMBERED = 500
# The child reads the whole file once, from a slow disk at worst; a busy machine starts it late.
START_S, BYTES_PER_S = 300, 20e6
CHILD = "import sys; from edgespec.backends.llamacpp.trial import trial; trial(*sys.argv[1:])"


def first_safe(files: Sequence[Path], ways: Sequence[str], version: str) -> str:
    """The first of `ways` to load a model, given by its files, that a child process survived.

    Without child processes (a phone, a frozen program) the last way is taken unproven.
    Raises: ModelFileError when none works.
    """
    key = f"{files[0].resolve()} {','.join(ways)}"
    state = [version, *([f.stat().st_size, f.stat().st_mtime_ns] for f in files)]
    known = _remembered().get(key)
    if isinstance(known, dict) and known.get("state") == state and known.get("way") in ways:
        return str(known["way"])
    way = _tried(files, ways)
    if way is None:
        log.warning("no child process can be started: %s is opened untried", files[0].name)
        return ways[-1]
    _remember(key, {"state": state, "way": way})
    return way


def _tried(files: Sequence[Path], ways: Sequence[str]) -> str | None:
    why = ""
    for way in ways:
        try:
            why = _failure(files, way)
        except OSError:
            return None
        if not why:
            return way
        log.info("%s does not open with %s: %s", files[0].name, way, why)
    raise refusal(files[0], why, "a sound model that llama.cpp knows")


def _failure(files: Sequence[Path], way: str) -> str:
    """How the child died, "" if it did not.

    Raises: ModelFileError if it refused the file in good order, OSError if there is no child.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("no interpreter to start")
    limit = START_S + sum(f.stat().st_size for f in files) / BYTES_PER_S
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GGML_NO_BACKTRACE": "1"}
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(files[0]), way],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not open within {limit:.0f} s"
    if child.returncode == REFUSED:
        said = child.stdout.decode("utf-8", "replace").strip().splitlines()
        raise ModelFileError(said[-1] if said else f"{files[0].name} was refused")
    return f"ended llama.cpp with status {child.returncode}" if child.returncode else ""


def _file() -> Path:
    return cache_folder() / "models-tried.json"


def _remembered() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(key: str, value: dict[str, Any]) -> None:
    known = {**_remembered(), key: value}
    known = dict(list(known.items())[-MOST_REMEMBERED:])
    try:
        write_whole(_file(), json.dumps(known).encode(), ours=True)
    except UsageError as error:
        log.info("%s; the model is tried again next time", error)
