"""What a pair takes of the memory that is free. Knows previews, opens nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgespec.backends.preview import Preview

STEP = 256  # tokens by which a smaller context is looked for
# What a session holds beside its models: Python and libraries, of every vocabulary what a backend
# keeps of a token, and to translate between two the bytes of each. Fitted to the peaks of six pairs
# on their first start, of 95 to 2,329 MB: five are foretold within 5 %, a lone graph within 7.
# Later starts, which measure no widths, took up to 10 % less.
PROGRAM_BYTES, TOKEN_BYTES, SPELLED_BYTES = 60_000_000, 200, 350


@dataclass(frozen=True)
class Need:
    """Bytes that one model takes with a context of n_context tokens."""

    weights_bytes: int
    kv_bytes: int
    logits_bytes: int
    n_context: int

    @property
    def n_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.logits_bytes


@dataclass(frozen=True)
class Memory:
    """free_bytes: None where the system does not say, a model lies on a GPU or has no weights.

    least_bytes: of the pair with the smallest context. most_context: the largest context, in
    tokens and at most the one wanted, with which the pair fits; 0: none; None: cannot be told.
    asked: tokens of context that were asked for, more than the target was made for if more than
    target.n_context; 0: none. program_bytes: held beside the models, of which half is there by
    now: it is part of the peak, and not of what has to be free.
    """

    target: Need
    drafter: Need | None
    least_bytes: int
    free_bytes: int | None
    most_context: int | None
    asked: int = 0
    program_bytes: int = PROGRAM_BYTES

    @property
    def n_bytes(self) -> int:
        """Of the models."""
        return self.target.n_bytes + (self.drafter.n_bytes if self.drafter else 0)

    @property
    def peak_bytes(self) -> int:
        """Of the whole process."""
        return self.n_bytes + self.program_bytes

    @property
    def fits(self) -> bool | None:
        """With the context that is wanted."""
        return None if self.free_bytes is None else self.n_bytes <= self.free_bytes

    def record(self) -> dict[str, Any]:
        """For scripts."""
        return {
            **asdict(self),
            "n_bytes": self.n_bytes,
            "peak_bytes": self.peak_bytes,
            "fits": self.fits,
        }


def memory_of(target: Preview, draft: Preview | None, asked: int, free_bytes: int | None) -> Memory:
    """asked: tokens of context, 0 for what the target was made for, at most DEFAULT_CONTEXT.

    What is asked beyond that is not counted.
    """
    sides = [target] if draft is None else [target, draft]
    if not all(side.shares_memory and side.n_params and side.cache for side in sides):
        free_bytes = None
    wanted = asked or target.most_context
    if target.cache is not None:
        wanted = min(wanted, target.cache.most)
    needs = _needs(sides, wanted)
    most = None if free_bytes is None else _most(sides, wanted, free_bytes)
    least_bytes = _total(sides, min(STEP, wanted))
    other = needs[1] if draft else None
    is_foreign = draft is not None and draft.n_vocab != target.n_vocab
    token_bytes = TOKEN_BYTES + (SPELLED_BYTES if is_foreign else 0)
    program_bytes = PROGRAM_BYTES + token_bytes * sum(side.n_vocab for side in sides)
    return Memory(needs[0], other, least_bytes, free_bytes, most, asked, program_bytes)


def _most(sides: Sequence[Preview], wanted: int, free_bytes: int) -> int:
    """See Memory.most_context."""
    fewer = [wanted, *range(wanted - wanted % STEP, 0, -STEP)]
    return next((n for n in fewer if _total(sides, n) <= free_bytes), 0)


def _total(sides: Sequence[Preview], n_context: int) -> int:
    return sum(need.n_bytes for need in _needs(sides, n_context))


def _needs(sides: Sequence[Preview], n_context: int) -> list[Need]:
    """Of each model; a drafter of another vocabulary may get a larger context."""
    found = []
    for side in sides:
        more = 1.0 if side.n_vocab == sides[0].n_vocab else side.more_context
        n = int(more * n_context)
        kv_bytes = 0 if side.cache is None else side.cache.n_bytes(n)
        found.append(Need(side.weights_bytes, kv_bytes, side.logits_bytes, n))
    return found
