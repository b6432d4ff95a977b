"""Open an unknown model file in a child process first: what kills the child spares the caller.

llama.cpp ends the process on some damaged files that no cheap check foresees, and its repacked
kernels have been seen to die of an illegal instruction (AMX announced to a virtual machine that
cannot run it). Of several ways to keep the weights each child that lives times a few widths, and
the fastest way is remembered with what was measured, by the files' size and time of change.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.file import refusal
from edgespec.config import cache_folder
from edgespec.device import n_cores
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec.llamacpp")

REFUSED = 3  # the child's exit code when the file was refused in good order
MOST_REMEMBERED = 500
# The child reads the whole file once, from a slow disk at worst; a busy machine starts it late.
START_S, BYTES_PER_S = 300, 20e6
# What a child takes on two cores of 2.6 GHz, for the bar: 4.5 s of 1.1 GB, half of it timing.
USUAL_S, USUAL_BYTES_PER_S, EVERY_S = 1.0, 300e6, 0.25
ENOUGH_S = 60.0  # once a way works, no other is begun after this
AGAIN_S = 3600.0  # what was measured on a busy device is measured again after this
# Qwen 1.5B in Q4_K_M reordered without AMX: 4 tokens 1.3 to 1.6 times as fast as mapped, one the
# same, 256 of a prompt 1.45 times as slow. So a round is charged for what of a prompt it answers.
PROMPT, READ_A_ROUND = 64, 4
PLAINEST = 0.97  # how much faster a way must be to be worth its loading and its memory
CHILD = "import sys; from edgespec.backends.llamacpp.trial import trial; trial(*sys.argv[1:])"

Times = dict[str, float]
"""Seconds of a forward by its width, a number as text; empty if none were timed."""


def best_way(
    files: Sequence[Path], ways: Sequence[str], version: str, options: ModelOptions
) -> str:
    """The fastest of `ways` to load a model, given by its files, that a child process survived.

    The last way is the plainest and is preferred where another gains little. Exact options have the
    first one that lives. Without child processes (a phone, a frozen program) it is taken unproven.
    Raises: ModelFileError when none works.
    """
    known = _remembered(files, version)
    if known is None or not _suffices(known, ways):
        dead = [w for w, times in known["ways"].items() if times is None] if known else []
        if options.alone is not None and len(ways) > 1:
            options.alone()
        known = _tried(files, [way for way in ways if way not in dead], options)
        if known is None:
            log.warning("no child process can be started: %s is opened untried", files[0].name)
            return ways[-1]
        known["ways"].update(dict.fromkeys(dead))
        _remember(files, version, known)
    living = {way: known["ways"][way] for way in ways if known["ways"].get(way) is not None}
    if not living:
        raise refusal(
            files[0], f"ended llama.cpp before, opened by {', '.join(ways)}", "a way that works",
            "use --loading auto",
        )  # fmt: skip
    # What a text depends on must not hang on what a busy device measured.
    way = next(iter(living)) if options.exact else fastest(living, options.widths)
    if len(ways) > 1:
        log.info("%s: %s; taken: %s", files[0].name, in_words(known["ways"]), way)
    return way


def is_known(files: Sequence[Path], version: str) -> bool:
    """Whether a child process has survived these files as they are."""
    return _remembered(files, version) is not None


def timed_ways() -> dict[str, dict[str, Times | None]]:
    """What was measured of each file with several ways, by its path; None for what failed."""
    return {path: value["ways"] for path, value in _all().items() if value["timed"]}


def in_words(ways: Mapping[str, Times | None]) -> str:
    """Each way with the milliseconds of its widths."""
    return "; ".join(
        f"{way} " + ("fails" if times is None else _milliseconds(times))
        for way, times in ways.items()
    )


def _milliseconds(times: Times) -> str:
    ordered = sorted((int(n), seconds) for n, seconds in times.items())
    return ", ".join(f"{n}: {1e3 * s:.1f} ms" for n, s in ordered) or "was not timed"


def _suffices(known: Mapping[str, Any], ways: Sequence[str]) -> bool:
    """Whether what is known tells which of `ways` to take."""
    if known["busy_at"] and time.time() > known["busy_at"] + AGAIN_S:
        return False
    return (known["timed"] or len(ways) == 1) and set(ways) <= set(known["ways"])


def fastest(ways: Mapping[str, Times], widths: Sequence[int]) -> str:
    """The way that takes least for forwards of `widths` and the prompt's part of each.

    The first if one was not timed.
    """
    last = list(ways)[-1]

    def price(way: str) -> float:
        seconds = sum(ways[way].get(str(n), 0.0) for n in widths) / len(widths)
        seconds += ways[way].get(str(PROMPT), 0.0) * READ_A_ROUND / PROMPT
        return seconds * (PLAINEST if way == last else 1.0)

    return min(ways, key=price) if all(ways.values()) else next(iter(ways))


def _tried(
    files: Sequence[Path], ways: Sequence[str], options: ModelOptions
) -> dict[str, Any] | None:
    """What each way takes, None for one that died, and when, if others computed meanwhile.

    Ways that live are timed twice, in turns: a device that others slow for some seconds would
    else decide by that for good. None if there is no child. Raises: ModelFileError when no way
    works.
    """
    found: dict[str, Times | None] = {}
    timed, tell = len(ways) > 1, options.trying or (lambda _: None)
    why, busy, end = "", False, time.monotonic() + ENOUGH_S
    turns = (*ways, *ways) if timed else tuple(ways)
    for i, way in enumerate(turns):
        if found.get(way, {}) is None:
            continue
        if time.monotonic() > end and any(times is not None for times in found.values()):
            found.setdefault(way, {})  # not worth the waiting
            continue
        arguments = [str(files[0]), way, str(options.n_threads or n_cores()), "timed" * timed]
        try:
            said = _child(files, arguments, partial(_tell_part, tell, i, len(turns)))
            found[way] = _least(found.get(way) or {}, said.get("seconds", {}))
            busy = busy or bool(said.get("busy"))
        except OSError:
            return None
        except _DiedError as died:
            found[way], why = None, str(died)
            log.info("%s does not open with %s: %s", files[0].name, way, why)
    tell(1.0)
    if all(times is None for times in found.values()):
        raise refusal(files[0], why, "a sound model that llama.cpp knows")
    return {"ways": found, "timed": timed, "busy_at": time.time() if busy else 0}


def _least(one: Times, other: Times) -> Times:
    """Of two measurements the shorter times."""
    return {**one, **{n: min(seconds, one.get(n, seconds)) for n, seconds in other.items()}}


def _tell_part(tell: Callable[[float], None], i: int, n: int, share: float) -> None:
    tell((i + share) / n)


class _DiedError(Exception):
    """How a child died."""


def _child(
    files: Sequence[Path], arguments: Sequence[str], tell: Callable[[float], None]
) -> dict[str, Any]:
    """What the child says of a way it survived: {"seconds": Times, "busy": bool}, or nothing.

    Raises: _DiedError; ModelFileError if it refused the file in good order, OSError if there is
    no child.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("no interpreter to start")
    n_bytes = sum(f.stat().st_size for f in files)
    limit, usual = START_S + n_bytes / BYTES_PER_S, USUAL_S + n_bytes / USUAL_BYTES_PER_S
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GGML_NO_BACKTRACE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment,
    ) as child:  # fmt: skip
        try:
            output = _output(child, limit, lambda took_s: tell(min(took_s / usual, 0.95)))
        except BaseException:
            child.kill()
            raise
    lines = output.decode("utf-8", "replace").strip().splitlines()
    if child.returncode == REFUSED:
        raise ModelFileError(lines[-1] if lines else f"{files[0].name} was refused")
    if child.returncode:
        raise _DiedError(f"ended llama.cpp with status {child.returncode}")
    said = json.loads(lines[-1]) if lines else {}
    return said if isinstance(said, dict) else {}


def _output(child: subprocess.Popen[bytes], limit_s: float, tell: Callable[[float], None]) -> bytes:
    """All that the child prints; tell: hears how long it has taken. Raises: _DiedError."""
    start = time.monotonic()
    while True:
        try:
            return child.communicate(timeout=min(EVERY_S, limit_s))[0]
        except subprocess.TimeoutExpired:
            took_s = time.monotonic() - start
            if took_s > limit_s:
                raise _DiedError(f"did not open within {limit_s:.0f} s") from None
            tell(took_s)


def _state(files: Sequence[Path], version: str) -> list[Any]:
    """What a trial depends on: library, processor, and the files' sizes and times."""
    device = [version, platform.processor() or platform.machine(), os.cpu_count()]
    return [*device, *([f.stat().st_size, f.stat().st_mtime_ns] for f in files)]


def _file() -> Path:
    return cache_folder() / "models-tried.json"


def _all() -> dict[str, dict[str, Any]]:
    """Every trial that is remembered, by its key; what cannot be read is left out."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        return {key: value for key, value in found.items() if _is_whole(value)}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_whole(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("state"), list)
        and isinstance(value.get("ways"), dict)
        and all(times is None or isinstance(times, dict) for times in value["ways"].values())
        and isinstance(value.get("busy_at"), (int, float))
        and "timed" in value
    )


def _remembered(files: Sequence[Path], version: str) -> dict[str, Any] | None:
    known = _all().get(str(files[0].resolve()))
    return known if known is not None and known["state"] == _state(files, version) else None


def _remember(files: Sequence[Path], version: str, value: dict[str, Any]) -> None:
    known = {**_all(), str(files[0].resolve()): {"state": _state(files, version), **value}}
    known = dict(list(known.items())[-MOST_REMEMBERED:])
    try:
        write_whole(_file(), json.dumps(known).encode(), ours=True)
    except UsageError as error:
        log.info("%s; the model is tried again next time", error)
