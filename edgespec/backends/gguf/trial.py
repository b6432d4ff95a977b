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
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.file import refusal
from edgespec.backends.gguf.tried import Times, Tried, remember, remembered
from edgespec.device import CHILDLESS, is_busy, n_cores
from edgespec.errors import ModelFileError
from edgespec.pace.doubt import Doubt

log = logging.getLogger("edgespec.llamacpp")

REFUSED = 3  # the child's exit code when the file was refused in good order
# The child reads the whole file once, from a slow disk at worst; a busy machine starts it late.
START_S, BYTES_PER_S = 300, 20e6
# What a child takes on two cores of 2.6 GHz, for the bar: 4.5 s of 1.1 GB, half of it timing.
USUAL_S, USUAL_BYTES_PER_S, EVERY_S = 1.0, 300e6, 0.25
ENOUGH_S = 60.0  # once a way works, no other is begun after this
AGAIN_S = 3600.0  # what is in doubt is tried again after this, then after 4 times as long, ..
SHORT_S = 10.0  # a trial made again begins no other way after this
MUCH = 0.1  # noise, in logarithms, that lets a choice be doubted
BUSY, NOISY = "others computed meanwhile", "two measurements differ by more than the ways"
# Qwen 1.5B in Q4_K_M reordered without AMX: 4 tokens 1.3 to 1.6 times as fast as mapped, one the
# same, 256 of a prompt 1.45 times as slow. So a token is charged for what of a prompt it answers,
# and it is assumed that so many tokens are read for so many said.
PROMPT, READ, SAID = 64, 256, 128
ACCEPTED = 0.6  # of drafted tokens, each after those before it: SmolLM2's for Qwen 1.5B
PLAINEST = 0.97  # how much faster a way must be to be worth its loading and its memory
CHILD = "import sys; from edgespec.backends.llamacpp.trial import trial; trial(*sys.argv[1:])"


def can_try() -> bool:
    """Whether an interpreter can be started here that opens a file first."""
    is_whole = bool(sys.executable) and not getattr(sys, "frozen", False)
    return is_whole and sys.platform not in CHILDLESS


def best_way(
    files: Sequence[Path], ways: Sequence[str], version: str, options: ModelOptions
) -> str:
    """The fastest of `ways` to load a model, given by its files, that a child process survived.

    The last way is the plainest and is preferred where another gains little. Exact options have the
    first one that lives. Without child processes (a phone, a frozen program) the last is taken
    unproven; mark.py has what a phone does instead.
    Raises: ModelFileError when none works.
    """
    known = remembered(files, version)
    tried = _current(files, ways, known, options)
    if tried is None:
        log.warning("no child process can be started: %s is opened untried", files[0].name)
        return ways[-1]
    if tried is not known:
        remember(files, version, tried)
    living = {way: times for way in ways if (times := tried.ways.get(way)) is not None}
    if not living:
        raise refusal(
            files[0], f"ended llama.cpp before, opened by {', '.join(ways)}", "a way that works",
            "use --loading auto",
        )  # fmt: skip
    # What a text depends on must not hang on what a busy device measured.
    way = next(iter(living)) if options.exact else fastest(living, options.widths)
    if len(ways) > 1:
        log.info("%s: %s; taken: %s", files[0].name, in_words(tried.ways), way)
    return way


def _current(
    files: Sequence[Path], ways: Sequence[str], known: Tried | None, options: ModelOptions
) -> Tried | None:
    """What is known, if that will do, else what a trial finds now; None if there is no child."""
    alone = options.alone or (lambda: None)
    if known is None or not _suffices(known, ways):
        if len(ways) > 1:
            alone()
        return _first(files, ways, options, known)
    # On a device that is busy now it would take long and find nothing.
    if len(ways) == 1 or not known.doubt.is_due(AGAIN_S) or is_busy():
        return known
    alone()
    return _anew(files, ways, options, known)


def _first(
    files: Sequence[Path], ways: Sequence[str], options: ModelOptions, known: Tried | None
) -> Tried | None:
    """The trial of ways that are not known to be dead; None if there is no child.

    Ways that live are timed twice, in turns: a device that others slow for some seconds would else
    decide by that for good. Raises: ModelFileError when no way works.
    """
    before = {} if known is None else known.ways
    dead = {way: None for way, times in before.items() if times is None}
    left, timed = [way for way in ways if way not in dead], len(ways) > 1
    end = time.monotonic() + ENOUGH_S
    found = _tried(files, (left, left) if timed else (left,), options, timed=timed, end=end)
    if found is None:
        return None
    tried, is_busy = found
    tried = replace(tried, ways={**tried.ways, **dead})
    why = BUSY if is_busy else _unsure(tried, options.widths) if timed else ""
    return replace(tried, doubt=Doubt().raised(why) if why else Doubt())


def _anew(files: Sequence[Path], ways: Sequence[str], options: ModelOptions, known: Tried) -> Tried:
    """The trial made again, in short: each way once, none begun after SHORT_S.

    On a device that is busy again, and where no child can be started, what was known stays.
    """
    living, end = [way for way in ways if known.ways[way] is not None], time.monotonic() + SHORT_S
    log.info("%s is tried again: %s", files[0].name, known.doubt.why)
    found = _tried(files, (living,), options, timed=True, end=end)
    tried, is_busy = found or (known, True)
    if is_busy or not all(tried.ways.get(way) for way in living):
        return replace(known, doubt=known.doubt.again(known.doubt.why))
    if known.doubt.why == NOISY:
        tried = known.with_another(tried.ways)
    ways_now, noise = {**known.ways, **tried.ways}, {**known.noise, **tried.noise}
    return replace(tried, ways=ways_now, noise=noise, doubt=known.doubt.again())


def _unsure(tried: Tried, widths: Sequence[int]) -> str:
    """Why the choice may be another's, by how far two measurements lay apart; "" if it is not."""
    living = {way: times for way, times in tried.ways.items() if times}
    if len(living) < 2:
        return ""
    best = fastest(living, widths)
    least = price(living[best], widths)
    for way, times in living.items():
        noisy = tried.noise.get(way, 0.0) > MUCH
        if way != best and noisy and tried.might_take(way, price(times, widths)) < least:
            return NOISY
    return ""


def in_words(ways: Mapping[str, Times | None]) -> str:
    """Each way with the milliseconds of its widths."""
    return "; ".join(
        f"{way} " + ("fails" if times is None else _milliseconds(times))
        for way, times in ways.items()
    )


def _milliseconds(times: Times) -> str:
    ordered = sorted((int(n), seconds) for n, seconds in times.items())
    return ", ".join(f"{n}: {1e3 * s:.1f} ms" for n, s in ordered) or "was not timed"


def _suffices(known: Tried, ways: Sequence[str]) -> bool:
    """Whether what is known tells which of `ways` to take."""
    return (known.timed or len(ways) == 1) and set(ways) <= set(known.ways)


def fastest(ways: Mapping[str, Times], widths: Sequence[int]) -> str:
    """The way that takes least by `price`; the first if one was not timed."""
    last = list(ways)[-1]
    if not all(ways.values()):
        return next(iter(ways))
    return min(ways, key=lambda way: price(ways[way], widths) * (PLAINEST if way == last else 1.0))


def price(times: Times, widths: Sequence[int]) -> float:
    """Seconds of a token that is said: its part of forwards of `widths`, and of the prompt."""
    n_said = sum((1 - ACCEPTED**n) / (1 - ACCEPTED) for n in widths)  # arXiv 2211.17192, eq. 1
    seconds = sum(times.get(str(n), 0.0) for n in widths) / n_said
    return seconds + times.get(str(PROMPT), 0.0) / PROMPT * READ / SAID


def _tried(
    files: Sequence[Path],
    turns: Sequence[Sequence[str]],
    options: ModelOptions,
    *,
    timed: bool,
    end: float,
) -> tuple[Tried, bool] | None:
    """What each way takes, tried in turns, and whether others computed meanwhile.

    end: of `time.monotonic`; once a way works, no other is begun after it. None if there is no
    child. Raises: ModelFileError when no way works.
    """
    n_threads, tell = options.n_threads or n_cores(), options.trying or (lambda _: None)
    found, why, busy = Tried({}, timed, n_threads), "", False
    every = [way for turn in turns for way in turn]
    for i, way in enumerate(every):
        if found.ways.get(way, {}) is None:
            continue
        if time.monotonic() > end and any(times is not None for times in found.ways.values()):
            found = replace(found, ways={way: {}, **found.ways})  # not worth the waiting
            continue
        arguments = [str(files[0]), way, str(n_threads), "timed" * timed]
        try:
            said = _child(files, arguments, partial(_tell_part, tell, i, len(every)))
            found = found.with_another({way: said.get("seconds", {})})
            busy = busy or bool(said.get("busy"))
        except OSError:
            return None
        except _DiedError as died:
            found, why = found.with_another({way: None}), str(died)
            log.info("%s does not open with %s: %s", files[0].name, way, why)
    tell(1.0)
    if all(times is None for times in found.ways.values()):
        raise refusal(files[0], why, "a sound model that llama.cpp knows")
    return found, busy


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
    if not can_try():
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
