"""A second model beside the one that is measured: what a user would run instead.

Its plain decoding takes turns with the methods, and both models' costs by width are timed in turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from edgespec.cli.run import opened
from edgespec.config import Config
from edgespec.session.session import Session
from edgespec.store import pairs
from edgespec.store.offers import unnamed

MAX_WIDTH, REPEATS = 16, 7
PROMPT = 64  # tokens in the cache while widths are timed


@contextmanager
def opened_baseline(name: str | None, config: Config) -> Iterator[Session | None]:
    """A session that decodes plainly with the target of pair `name`, or of the file; None without.

    Raises: UsageError, ModelFileError.
    """
    if not name:
        yield None
        return
    known = pairs.ALIASES.get(name, name) in pairs.names()
    bare = replace(unnamed(config), speculative="off")
    other = replace(bare, pair=name) if known else replace(bare, model=name)
    with opened(other) as session:
        yield session


def costs_in_turns(sessions: Mapping[str, Session]) -> dict[str, list[float]]:
    """Seconds of 1 to 16 tokens for each target, medians of repeats that take turns."""
    samples = {name: [list[float]() for _ in range(MAX_WIDTH)] for name in sessions}
    for session in sessions.values():
        session.target.truncate(0)
        session.target.extend([1] * PROMPT)
    for _ in range(REPEATS):
        for width in range(1, MAX_WIDTH + 1):
            for name, session in sessions.items():
                session.target.forward([1] * width)  # the first of a width pays for its graph
                session.target.truncate(PROMPT)
                start = perf_counter()
                session.target.forward([1] * width)
                samples[name][width - 1].append(perf_counter() - start)
                session.target.truncate(PROMPT)
    return {name: [statistics.median(times) for times in of] for name, of in samples.items()}


def cost_line(name: str, seconds: list[float]) -> str:
    """One model's costs: of one token, then of more over it."""
    ratios = " ".join(f"{n}:{s / seconds[0]:.2f}" for n, s in enumerate(seconds[1:], 2))
    return f"{name + ':':<22}{seconds[0] * 1e3:.1f} ms, then {ratios}"
