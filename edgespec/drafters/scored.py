"""What a finished round tells of a draft that was made before it: verified, cut, or not used.

Where the target's law p is known a chance is told, not what happened: it varies less.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.decode.follow import common_prefix
from edgespec.decode.verify import Dense, overlap
from edgespec.pace.planner import source_of
from edgespec.pace.source import outcomes
from edgespec.types import Draft, Round


def scored(made: Draft, done: Round) -> list[float]:
    """Of its first tokens, as many as the round tells of, whether each was accepted: 1 or 0, or
    the chance that it would have been.
    """
    if made.is_chain and not made.is_drawn:
        return followed(made.tokens, done)
    if len(done.draft) + done.draft.n_cut and source_of(done.draft) == source_of(made):
        found = outcomes(done.verdict.n_tested, len(done.verdict.accepted))
        if made.probs is None or done.law is None:
            return found
        return [overlap(made.probs[i], done.law(i)) for i in range(len(found))]
    if done.law is None:
        return []
    law = made.law if made.probs is None else Dense(made.probs[:1])
    chance = law.shared(done.law(0)) if law else None
    return [] if chance is None else [chance]


def followed(tokens: Sequence[int], done: Round) -> list[float]:
    """The same of tokens that are compared with the target's own."""
    n_tested, n_hits = tested(tokens, done.context[-len(done.verdict.tokens) :])
    if done.law is None or not done.draft.is_chain:
        return outcomes(n_tested, n_hits)
    return [float(done.law(i)[tokens[i]]) for i in range(n_tested)]


def tested(tokens: Sequence[int], emitted: Sequence[int]) -> tuple[int, int]:
    """Of drafted tokens, how many what was emitted tells of, and how many of those were right."""
    n_hits = common_prefix(tokens, tuple(emitted), len(tokens))
    return min(n_hits + 1, len(tokens), len(emitted)), n_hits
