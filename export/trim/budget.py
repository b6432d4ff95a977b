"""How many rows pay: the size with the most expected tokens per second.

A smaller head drafts faster and is right less often. Pure functions of what was measured: a draft
step and a coverage for each size, the acceptance of the whole drafter, the target's cost table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.errors import UsageError
from edgespec.pace.cost import CostTable
from edgespec.pace.expected import rates

SMALLEST = 256


@dataclass(frozen=True)
class Candidate:
    """One size. step_s: a drafted token. coverage: of held-out text. tokens_per_s: expected."""

    n_kept: int
    step_s: float
    coverage: float
    tokens_per_s: float
    draft_length: int


def tokens_per_s(acceptance: float, step_s: float, costs: CostTable) -> tuple[float, int]:
    """Expected speed at the best draft length, and that length, 0 if drafting does not pay.

    acceptance: of each drafted token, given that those before it were accepted.
    """
    survival = [acceptance**k for k in range(1, len(costs.seconds))]
    speeds = [1 / costs.seconds[0], *rates(survival, costs.seconds, step_s)]
    return max(speeds), speeds.index(max(speeds))


def candidate(
    n_kept: int, step_s: float, coverage: float, acceptance: float, costs: CostTable
) -> Candidate:
    """A size with its expected speed: a token is accepted as before if it has a row."""
    speed, length = tokens_per_s(acceptance * coverage, step_s, costs)
    return Candidate(n_kept, step_s, coverage, speed, length)


def sizes_to_try(n_forced: int, n_vocab: int) -> list[int]:
    """Halvings of the vocabulary down to what is always kept."""
    sizes = [n_vocab]
    while sizes[-1] // 2 >= max(n_forced, SMALLEST):
        sizes.append(sizes[-1] // 2)
    return sizes


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The fastest; of equals, as where drafting never pays, the one with most rows.

    Raises: UsageError without candidates.
    """
    if not candidates:
        raise UsageError("no size to choose from: expected at least one; use --keep")
    return max(candidates, key=lambda one: (one.tokens_per_s, one.n_kept))
