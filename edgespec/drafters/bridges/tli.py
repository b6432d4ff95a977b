"""Drafts within the intersection of both vocabularies: the simplest lossless bridge.

Knows which tokens spell the same and no text: what the target alone can write in one token is
never proposed, and neither is what the drafter alone can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgespec.decode.follow import Reader
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.drafters.bridges.pieces import share_of
from edgespec.protocols import Drawing
from edgespec.types import Draft, FloatArray


class TliBridge:
    """Implements bridges.Bridge: token-level intersection.

    The drafter's logits are moved to the target's ids, minus infinity outside the intersection,
    and go through the target's own sampling chain; the draft is then like one of a drafter with
    the target's vocabulary. A draft ends, before a token is drawn, where nothing is left to draw.
    Source: Timor et al. 2025, arXiv 2502.05202, algorithm 4.
    """

    lossless = True
    asks = True

    def __init__(self, mapping: Mapping, cache: NgramCache, *, name: str = "model") -> None:
        """cache: not used."""
        self.mapping, self.name = mapping, name
        self._reader: Reader | None = None
        self._same = np.arange(mapping.target.n_vocab, dtype=np.int32)
        self._lifted = np.empty(0, np.float32)  # [V_T]

    def draft(
        self,
        reader: Reader,
        spelled: Sequence[int],
        context: Sequence[int],
        k: int,
        drawing: Drawing | None,
    ) -> Draft:
        """See bridges.Bridge. Fewer than k where the drafter's context ends."""
        self._fit(reader)
        k = min(k, reader.room(spelled))
        if k < 1 or not len(self._common):
            return Draft()
        if drawing is None:
            return self._likeliest(reader, spelled, k)
        return self._drawn(reader, spelled, context, k, drawing)

    def _fit(self, reader: Reader) -> None:
        """Find the columns of this reader's logits that both vocabularies have."""
        if reader is self._reader:
            return
        self._reader, image = reader, self.mapping.image
        self._targets = image if reader.columns is None else image[reader.columns]
        self._common = np.flatnonzero(self._targets >= 0)
        self._images = self._targets[self._common]
        self._lifted = np.full(self.mapping.target.n_vocab, -np.inf, np.float32)

    def _likeliest(self, reader: Reader, spelled: Sequence[int], k: int) -> Draft:
        tokens: list[int] = []
        confidence: list[float] = []
        sure = 1.0
        while not tokens or (len(tokens) < k and reader.pays(confidence)):
            logits = self._read(reader, spelled, tokens)
            column = int(logits.argmax())
            if self._targets[column] < 0:
                column = int(self._common[logits[self._common].argmax()])
                if logits[column] == -np.inf:
                    break
            # Of all the drafter's tokens: if it would rather say another, so may the target.
            sure *= share_of(logits, column)
            tokens.append(int(self._targets[column]))
            confidence.append(sure)
        sources = (self.name,) * len(tokens)
        return Draft(tuple(tokens), sources=sources, confidence=tuple(confidence))

    def _drawn(
        self,
        reader: Reader,
        spelled: Sequence[int],
        context: Sequence[int],
        k: int,
        drawing: Drawing,
    ) -> Draft:
        law = drawing.law.translated(self._same)
        tokens: list[int] = []
        rows: list[FloatArray] = []
        confidence: list[float] = []
        sure, goes_on = 1.0, True
        while not tokens or (goes_on and len(tokens) < k and reader.pays(confidence)):
            logits = self._read(reader, spelled, tokens)
            self._lifted[self._images] = logits[self._common]
            if self._lifted.max() == -np.inf:
                break
            row = law(self._lifted, [*context, *tokens])
            sure *= share_of(logits, int(logits.argmax()))
            goes_on = reader.pays((*confidence, sure), True)
            if tokens and not goes_on:
                break
            tokens.append(drawing.chances.pick(row))
            rows.append(row)
            confidence.append(sure)
        if not tokens:
            return Draft()
        sources = (self.name,) * len(tokens)
        return Draft(
            tuple(tokens), probs=np.array(rows), sources=sources, confidence=tuple(confidence)
        )

    def _read(self, reader: Reader, spelled: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Logits [K] after what was drafted so far."""
        if not tokens:
            return reader.read(spelled)
        return reader.step(int(self.mapping.preimage[tokens[-1]]))
