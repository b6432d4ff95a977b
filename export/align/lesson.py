"""An answer in a drafter's own tokens, and what it should have said at each of them.

As in use: where drafter and target spell the same bytes so far, the target's law is a label; within
a token of the target's that the drafter spells by several, its next piece is.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.labels import KEPT, Labels, mapped
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.files import write_whole

from .written import Written

# Of a file that is no answer.
WRONG = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
Spell = Callable[[Sequence[int]], Sequence[int]]
"""The drafter's ids of a text in the target's, from its beginning."""


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


def lesson(
    written: Written,
    spell: Spell,
    of_target: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> Lesson:
    """What a drafter can learn from an answer. of_target: as in adapt.online.Columns."""
    starts = [spell(written.ids[:n]) for n in range(written.n_prompt, len(written.ids))]
    whole = spell(written.ids)
    at = {
        len(start) - 1: i
        for i, start in enumerate(starts)
        if len(start) and whole[: len(start)] == start
    }
    rows = np.arange(len(starts[0]) - 1, len(whole) - 1)
    m = len(rows)
    ids, probs = np.full((m, KEPT), -1), np.zeros((m, KEPT), np.float32)
    piece = np.array(whole[len(starts[0]) :], np.int64)
    for j, row in enumerate(rows.tolist()):
        i = at.get(row)
        if i is None:
            continue
        columns = of_target(written.ids_of[i].astype(np.int64))
        label = mapped(np.log(written.probs[i][None] + 1e-12), columns)
        ids[j, : label.ids.shape[1]], probs[j, : label.ids.shape[1]] = label.ids[0], label.probs[0]
        piece[j] = -1
    none = np.full(m, -1)
    labels = Labels(ids, probs, piece, none, np.zeros(m, np.bool_))
    return Lesson(np.array(whole, np.int32), rows.astype(np.int32), labels)


def save(path: Path, written: Written) -> None:
    """Keep an answer. Raises: UsageError."""
    data = io.BytesIO()
    np.savez_compressed(
        data, ids=np.array(written.ids, np.int32), n_prompt=written.n_prompt,
        ids_of=written.ids_of, probs=written.probs.astype(np.float16),
    )  # fmt: skip
    write_whole(path, data.getvalue())


def load(path: Path) -> Written:
    """A kept answer. Raises: WRONG for what is none."""
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        ids = tuple(file["ids"].tolist())
        n_prompt = int(file["n_prompt"])
        return Written(ids, n_prompt, file["ids_of"], file["probs"].astype(np.float32))
