"""A draft model whose head is corrected while it drafts, and whose guesses can be looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgespec.adapt.wrapped import Wrapped
from edgespec.protocols import OpenModel
from edgespec.types import FloatArray

KEPT = 64  # guesses that can be looked up: more than a draft of 16 tokens has pieces
MANY = 32  # tokens from which on those before are read without rows


class Correction(Protocol):
    """What is added to a row of logits."""

    def correct(self, logits: FloatArray, hidden: FloatArray) -> None:
        """Change logits [K] in place, by the state [d] behind them."""
        ...


class Guess(NamedTuple):
    """hidden [d] and the uncorrected logits [K] of one forward's row; views, see `Adapted`.

    best: the likeliest column of the corrected row.
    """

    hidden: FloatArray
    logits: FloatArray
    best: int


class Adapted(Wrapped):
    """Implements protocols.OpenModel by `model`, opened with hidden states, which it closes.

    correction: what the head is corrected by; may be exchanged between forwards. guesses: by how
    many tokens had been read, the last rows that were asked for, KEPT at most; where a text was
    changed, the newest. They lie in a ring: who wants them longer copies.
    """

    def __init__(self, model: OpenModel, correction: Correction | None = None) -> None:
        super().__init__(model)
        self.correction, self.token_ids = correction, model.token_ids
        self.guesses: dict[int, Guess] = {}
        self.n_columns = model.n_vocab if self.token_ids is None else len(self.token_ids)
        self._ring = np.empty((KEPT, self.n_columns), np.float32)
        self._states = np.empty((KEPT, model.capabilities.hidden_width), np.float32)
        self._next = 0
        self._corrected = np.empty((1, self.n_columns), np.float32)

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """See protocols.LanguageModel; the rows that are wanted, corrected.

        A model that gives its states may compute rows for all it reads, so of a long text only the
        end is asked for; what was read before that, `truncate` takes back, not `keep`.
        """
        many = 0 if n_rows is None or parents is not None else len(tokens) - max(MANY, n_rows)
        if many > 0 and self.length + len(tokens) <= self.n_context:
            self.model.extend(tokens[:many])
            tokens = tokens[many:]
        logits = self.model.forward(tokens, parents, n_rows=n_rows)
        n = len(logits) if n_rows is None else min(n_rows, len(logits))
        logits, hidden = logits[len(logits) - n :], self.hidden[len(self.hidden) - n :]
        out = self._corrected_rows(logits, hidden)
        if parents is None and n <= KEPT:
            self._remember(logits, hidden, out.argmax(axis=1).tolist())
        return out

    def _corrected_rows(self, logits: FloatArray, hidden: FloatArray) -> FloatArray:
        if self.correction is None:
            return logits
        out = self._room(len(logits))
        np.copyto(out, logits)
        for row, state in zip(out, hidden, strict=True):
            self.correction.correct(row, state)
        return out

    def _room(self, n: int) -> FloatArray:
        """[n, K] to be overwritten; more than MANY rows are not held."""
        if n > MANY:
            return np.empty((n, self.n_columns), np.float32)
        if n > len(self._corrected):
            self._corrected = np.empty((n, self.n_columns), np.float32)
        return self._corrected[:n]

    def _remember(self, logits: FloatArray, hidden: FloatArray, best: Sequence[int]) -> None:
        first = self.length - len(logits) + 1
        for place, (row, state, column) in enumerate(zip(logits, hidden, best, strict=True), first):
            i, self._next = self._next, (self._next + 1) % KEPT
            self._ring[i], self._states[i] = row, state
            self.guesses.pop(place, None)
            self.guesses[place] = Guess(self._states[i], self._ring[i], column)
            if len(self.guesses) > KEPT:
                del self.guesses[next(iter(self.guesses))]
