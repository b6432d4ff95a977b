"""What a round tells of a draft model's guesses: for each that was made, what the target thought.

Every position that the target verified is a free label, whoever drafted what it verified: as long
as a draft agrees with the text, the target's row stands for the same place in both (Online
Speculative Decoding, arXiv 2310.07177, algorithm 1, there of rejected positions alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgespec.decode.follow import common_prefix
from edgespec.types import Draft, FloatArray, Round


class Learner(Protocol):
    """What learns of a draft model. A place: how many tokens the model had read when it guessed."""

    def hold(self) -> None:
        """A draft is made: what the model computed for it is still there, and may not be later."""
        ...

    def label(self, place: int, row: FloatArray, pieces: Sequence[int]) -> None:
        """At `place` the target's logits were row [V]. pieces: how what it said is spelled by the
        model's own tokens, the first of them guessed there; empty where the draft was wrong."""
        ...

    def passed(self, seconds: float) -> None:
        """A round took so long: learning may take a share of it."""
        ...


def teach(learner: Learner, draft: Draft, place: int, done: Round) -> None:
    """Label the guesses of a draft, the first of them made at `place`, by the round after it."""
    label(learner, draft, place, done)
    learner.passed(done.times.target_s + done.times.draft_s)


def label(learner: Learner, draft: Draft, place: int, done: Round) -> None:
    """The labels alone."""
    if done.logits is None or not (len(draft) and draft.is_chain):
        return
    rows = (0, *(node + 1 for node in done.verdict.accepted))
    followed = tuple(done.context[-len(done.verdict.tokens) :])
    n_hits = common_prefix(draft.tokens, followed, len(draft))
    for i in range(min(n_hits + 1, len(draft), len(followed), len(rows))):
        pieces = draft.pieces[i] if draft.pieces else draft.tokens[i : i + 1]
        if pieces:
            learner.label(place, done.logits[rows[i]], pieces if i < n_hits else ())
        place += len(pieces)
