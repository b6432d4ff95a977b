"""What trials of model files have found, kept from start to start in one file.

A trial belongs to the files as they are, the library and the processor. Times that are in doubt say
so, and why; who reads them decides what to do about it (trial.py).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from math import exp, log
from pathlib import Path
from typing import Any

from edgespec.config import cache_folder
from edgespec.device import processor
from edgespec.errors import UsageError
from edgespec.files import write_whole
from edgespec.pace.doubt import Doubt

logger = logging.getLogger("edgespec.llamacpp")

MOST_REMEMBERED = 500
NO_DOUBT = Doubt()
# In logarithms. A trial's least times are those of a short text on a cool device: a token in use
# takes up to 15 % more without anything being wrong.
USUAL = 0.2
LEAST_NOISE = 0.03

Times = dict[str, float]
"""Seconds of a forward by its width, a number as text; empty if none were timed."""


@dataclass(frozen=True)
class Tried:
    """Of one file. ways: what each way to load it takes, None for one that ends the process.

    timed: whether ways were compared. n_threads: by which. noise: of each way, how far two
    measurements of a width lay apart, in logarithms. doubt: in the times.
    """

    ways: dict[str, Times | None]
    timed: bool = False
    n_threads: int = 0
    noise: dict[str, float] = field(default_factory=dict)
    doubt: Doubt = NO_DOUBT

    def contradicts(self, way: str, token_s: float) -> str:
        """What a single token that takes so long in use says against the times; "" for nothing."""
        said = (self.ways.get(way) or {}).get("1")
        if not said or token_s <= 0:
            return ""
        far = max(self.noise.get(way, 0.0), LEAST_NOISE) + USUAL
        if abs(log(token_s / said)) <= far:
            return ""
        return f"a token takes {1e3 * token_s:.1f} ms in use, the trial said {1e3 * said:.1f}"

    def with_another(self, ways: dict[str, Times | None]) -> Tried:
        """Times measured once more: the least of both, and how far they lie apart."""
        noise = dict(self.noise)
        merged = {**self.ways}
        for way, times in ways.items():
            known = self.ways.get(way)
            if known and times:
                far = max(abs(log(times[n] / known[n])) for n in times if n in known)
                noise[way] = max(noise.get(way, 0.0), far)
                times = {n: min(s, known.get(n, s)) for n, s in times.items()}
            merged[way] = times
        return replace(self, ways=merged, noise=noise)

    def might_take(self, way: str, seconds: float) -> float:
        """The least that `seconds` measured of a way may be in truth."""
        return seconds * exp(-self.noise.get(way, 0.0))


def remembered(files: Sequence[Path], version: str) -> Tried | None:
    """What is known of these files as they are."""
    known = _all().get(_key(files))
    if known is None or known["state"] != _state(files, version):
        return None
    return _read(known)


def remember(files: Sequence[Path], version: str, tried: Tried) -> None:
    """Keep it; where that is not possible, the file is tried again next time."""
    value = {"state": _state(files, version), **asdict(tried)}
    known = {**_all(), _key(files): value}
    known = dict(list(known.items())[-MOST_REMEMBERED:])
    try:
        write_whole(_file(), json.dumps(known).encode(), ours=True)
    except UsageError as error:
        logger.info("%s; the model is tried again next time", error)


def is_known(files: Sequence[Path], version: str) -> bool:
    """Whether a child process has survived these files as they are."""
    return remembered(files, version) is not None


def timed_ways() -> dict[str, dict[str, Times | None]]:
    """What was measured of each file with several ways, by its path; None for what failed."""
    return {path: value["ways"] for path, value in _all().items() if value["timed"]}


def _key(files: Sequence[Path]) -> str:
    return str(files[0].resolve())


def _state(files: Sequence[Path], version: str) -> list[Any]:
    """What a trial depends on: library, processor, and the files' sizes and times."""
    device = [version, processor(), os.cpu_count()]
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
    try:
        return isinstance(value["state"], list) and isinstance(_read(value), Tried)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def _read(value: dict[str, Any]) -> Tried:
    """Raises: KeyError, TypeError, ValueError, AttributeError for what was not remembered."""
    doubt = value["doubt"]
    ways = {
        str(way): None if times is None else {str(n): float(s) for n, s in times.items()}
        for way, times in value["ways"].items()
    }
    return Tried(
        ways,
        bool(value["timed"]),
        int(value["n_threads"]),
        {str(way): float(far) for way, far in value["noise"].items()},
        Doubt(float(doubt["since"]), int(doubt["n_again"]), str(doubt["why"])),
    )
