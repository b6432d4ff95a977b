"""Recorded rounds done again: the same forwards in the same order, so to the last digit the same.

A logit depends a little on the width of the forward that gives it, and on the widths that filled
the cache before. Knows nothing of how the rounds came about: it is handed Steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.decode.constrained import law_of
from edgespec.decode.engine import PART
from edgespec.decode.round import rows_above
from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray, SamplingParams, Step


def tokens_of(steps: Sequence[Step]) -> list[int]:
    """All that the rounds emitted."""
    return [token for step in steps for token in step.verdict.tokens]


def is_whole(step: Step) -> bool:
    """Whether what a round emitted as accepted is what it drafted, along one path from the top."""
    draft, tokens, accepted = step.draft, step.verdict.tokens, step.verdict.accepted
    path = zip((-1, *accepted), accepted, tokens, strict=False)
    return len(tokens) <= len(accepted) + 1 and all(
        (draft.parents[node], draft.tokens[node]) == (above, token) for above, node, token in path
    )


def row_at(
    target: LanguageModel, prompt: Sequence[int], steps: Sequence[Step], at: int
) -> FloatArray | None:
    """Logits [V] that the at-th emitted token was taken from.

    None if no round reaches it, or one up to it is not whole. The prompt is read as the engine
    reads it, from an empty cache.
    """
    target.truncate(0)
    read, last = prompt[:-1], prompt[-1]
    for start in range(0, len(read), PART):
        target.extend(read[start : start + PART])
    for step in steps:
        if not is_whole(step):
            return None
        tokens = step.verdict.tokens
        rows = (0, *(node + 1 for node in step.verdict.accepted))
        logits = target.forward([last, *step.draft.tokens], rows_above(step.draft))
        if at < len(tokens):
            row: FloatArray = logits[rows[at]].copy()
            return row
        target.keep(rows[: len(tokens)])
        at, last = at - len(tokens), tokens[-1]
    return None


def explains(
    row: FloatArray | None,
    prompt: Sequence[int],
    emitted: Sequence[int],
    at: int,
    params: SamplingParams,
) -> bool:
    """Whether the sampling chain, greedy, takes the at-th emitted token from the logits `row`."""
    if row is None:
        return False
    p = law_of(params, len(prompt))(row, [*prompt, *emitted[:at]])
    return int(p.argmax()) == emitted[at]


def round_of(steps: Sequence[Step], at: int) -> tuple[int, int]:
    """The round that emitted the at-th token, and how many tokens were emitted before it."""
    before = 0
    for number, step in enumerate(steps):
        if at < before + len(step.verdict.tokens):
            return number, before
        before += len(step.verdict.tokens)
    raise IndexError(at)
