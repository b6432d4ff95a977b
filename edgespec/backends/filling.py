"""What `--exact` costs: a token is read with others beside it that fill its width up."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from edgespec.backends.exact import Exact
from edgespec.pace.cost import plain_seconds
from edgespec.protocols import LanguageModel


def filling_of(target: LanguageModel, *, clock: Callable[[], float] = perf_counter) -> float | None:
    """What a token of an exact target takes over one that is read alone; None for any other."""
    if not isinstance(target, Exact):
        return None
    if target.widths[0] == 1:
        return 1.0
    return plain_seconds(target, clock=clock) / plain_seconds(target.model, clock=clock)


def price(filling: float) -> str:
    """The same in words."""
    return f"--exact: a token takes {filling:.2f} times what it takes alone"
