"""The drafter speaking in its own vocabulary, as long as a bridge listens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.follow import Reader
from edgespec.protocols import Drawing
from edgespec.types import FloatArray


class Pieces:
    """Ids of the drafter's after `spelled`, one per call: the likeliest, or drawn by its own law.

    ids: those said so far. shares: the probability of each, given those before it. rows: the laws
    [V_D] they were drawn from, if they were.
    """

    def __init__(
        self,
        reader: Reader,
        spelled: Sequence[int],
        drawing: Drawing | None,
        preimage: NDArray[np.int32],
    ) -> None:
        self.ids: list[int] = []
        self.shares: list[float] = []
        self.rows: list[FloatArray] = []
        self._reader, self._spelled, self._drawing = reader, list(spelled), drawing
        self._law = None if drawing is None else drawing.law.translated(preimage)

    def say(self) -> int:
        """One more; the drafter's cache must have room for it."""
        reader = self._reader
        logits = reader.step(self.ids[-1]) if self.ids else reader.read(self._spelled)
        if self._drawing is None or self._law is None:
            column = int(logits.argmax())
            piece = column if reader.columns is None else int(reader.columns[column])
            share = share_of(logits, column)
        else:
            row = self._law(reader.whole(logits), self._spelled + self.ids)
            piece = self._drawing.chances.pick(row)
            share = float(row[piece])
            self.rows.append(row)
        self.ids.append(piece)
        self.shares.append(share)
        return piece


def share_of(logits: FloatArray, column: int) -> float:
    """Softmax of logits [K] at a column."""
    weights = logits - logits.max()
    np.exp(weights, out=weights)
    return float(weights[column]) / float(weights.sum())
