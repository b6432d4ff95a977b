"""An answer in a drafter's own tokens, and what it should have said at each of them.

As in use: where drafter and target spell the same bytes so far, the target's law is a label; within
a token of the target's that the drafter spells by several, its next piece is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.labels import KEPT, Labels, in_columns
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.errors import TokenizerError
from edgespec.files import write_whole

from .written import Written

Spell = Callable[[Sequence[int]], Sequence[int]]
"""The drafter's ids of a text in the target's, from its beginning. Raises: TokenizerError."""
OfTarget = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""As in adapt.online.Columns."""


@dataclass(frozen=True)
class Lesson:
    """ids: [n] the drafter's tokens. rows: [m] after which of them a label stands. labels: of m.

    reference: [m] what a drafter loses there that was trained before; empty without one.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.int32]
    labels: Labels
    reference: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def said(self) -> NDArray[np.int64]:
        """[m] the tokens of the answer, each of which a label is for."""
        return self.ids[self.rows + 1].astype(np.int64)

    @property
    def is_mapped(self) -> NDArray[np.bool_]:
        """[m] whether the target's law is known there, and not a piece alone."""
        return np.asarray(self.labels.ids.max(axis=1) >= 0)


def same(ids: Sequence[int]) -> Sequence[int]:
    """Spells for a drafter of the target's vocabulary."""
    return ids


def over(ledger: Ledger) -> Spell:
    """Spells for a drafter of another vocabulary, as its ledger does."""
    return lambda ids: tuple(ledger.sync(list(ids)))


def lesson(written: Written, spell: Spell, of_target: OfTarget) -> Lesson:
    """What a drafter can learn from an answer, as far as it can spell it; maybe nothing."""
    starts = spellings(written, spell)
    known = [start for start in starts if start]
    first, whole = (known[0], known[-1]) if known else ((), ())
    rows = np.arange(len(first) - 1, len(whole) - 1)
    law_after = np.full(len(whole), -1)  # [n] which of the answer's laws follows a token, -1 none
    for i, start in enumerate(starts[:-1]):
        if start and whole[: len(start)] == start:
            law_after[len(start) - 1] = i
    pieces = np.array(whole[len(first) :], np.int64)
    labels = labelled(written, law_after[rows], pieces, of_target)
    return Lesson(np.array(whole, np.int32), rows.astype(np.int32), labels)


def spellings(written: Written, spell: Spell) -> list[tuple[int, ...]]:
    """The drafter's ids of the prompt, and of the text up to each of the answer's tokens.

    Empty where that ends in a part of a character: the next token may complete it.
    """
    found = list[tuple[int, ...]]()
    for n in range(written.n_prompt, len(written.ids) + 1):
        try:
            found.append(tuple(spell(written.ids[:n])))
        except TokenizerError:
            found.append(())
    return found


def labelled(
    written: Written, law: NDArray[np.int64], pieces: NDArray[np.int64], of_target: OfTarget
) -> Labels:
    """Labels of m rows. law: [m] which of the answer's laws is one's label, -1: its piece is."""
    m, some = len(law), np.flatnonzero(law >= 0)
    tokens, place = np.unique(written.ids_of[law[some]], return_inverse=True)
    columns = of_target(tokens.astype(np.int64))[place].reshape(len(some), written.ids_of.shape[1])
    found = in_columns(columns, written.probs[law[some]])
    ids, probs = np.full((m, KEPT), -1), np.zeros((m, KEPT), np.float32)
    ids[some, : columns.shape[1]], probs[some, : columns.shape[1]] = found.ids, found.probs
    return Labels(ids, probs, np.where(law < 0, pieces, -1), np.full(m, -1), np.zeros(m, np.bool_))


def save(path: Path, written: Written) -> None:
    """Keep an answer. Raises: UsageError."""
    data = io.BytesIO()
    np.savez_compressed(
        data, ids=np.array(written.ids, np.int32), n_prompt=written.n_prompt,
        ids_of=written.ids_of, probs=written.probs.astype(np.float16),
    )  # fmt: skip
    write_whole(path, data.getvalue())


def load(path: Path) -> Written:
    """A kept answer. Raises: Exception of any kind for what is none."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        ids, n_prompt = tuple(file["ids"].tolist()), int(file["n_prompt"])
        one = Written(ids, n_prompt, file["ids_of"], file["probs"].astype(np.float32))
    shape = one.probs.shape
    if not 0 < n_prompt < len(ids) or one.ids_of.shape != shape or len(one.said) != shape[0]:
        raise ValueError(f"{len(one.said)} tokens with laws {shape}")
    return one
