"""A draft model with a trimmed head that grows the rows it is missing.

The logit of any token is its row of the whole head times the hidden state, so a row that comes in
needs no new model: its vector, from the table that every trimmed file has beside it, is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.missed import Missed
from edgespec.adapt.wrapped import Wrapped
from edgespec.protocols import OpenModel
from edgespec.types import FloatArray

log = logging.getLogger("edgespec")

PROBED = 64  # of the head's own rows: whether the table's vectors give their logits
NOISE = 0.1  # of the range of those logits; heads of 4 bits are this far from 16


@runtime_checkable
class WithTable(Protocol):
    """A trimmed model that can look up rows of the whole head."""

    def head_rows(self, tokens: Sequence[int]) -> FloatArray | None:
        """[n, hidden_width], a copy; None where the files hold no such table."""
        ...


class Grown(Wrapped):
    """Implements protocols.OpenModel for the whole vocabulary by a trimmed `model`.

    A token that neither has a row has the logit minus infinity. missed: which rows to hold besides
    the model's own. Nothing is held where the table turns out not to be the head's (a model whose
    head is not its embedding).
    """

    token_ids: NDArray[np.int32] | None = None

    def __init__(self, model: OpenModel, missed: Missed) -> None:
        super().__init__(model)
        assert model.token_ids is not None
        self.missed, self._own = missed, model.token_ids.astype(np.intp)
        self.has = np.zeros(model.n_vocab, np.bool_)
        self.has[self._own] = True
        self._out = np.full((1, model.n_vocab), -np.inf, np.float32)
        self._grown: list[int] = []  # tokens, in the order of `_rows`
        self._ids = np.empty(0, np.intp)
        self._rows = np.empty((0, model.capabilities.hidden_width), np.float32)  # with room
        self._is_tried = False

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """Logits [n, V]; see protocols.LanguageModel."""
        logits = self.model.forward(tokens, parents, n_rows=n_rows)
        if not self._is_tried:
            self._try(logits[-1], self.hidden[-1])
        if len(self._out) < len(logits):
            self._out = np.full((len(logits), self.n_vocab), -np.inf, np.float32)
        out, n = self._out[: len(logits)], len(self._grown)
        for line, row, state in zip(out, logits, self.hidden, strict=True):
            line[self._own] = row
            line[self._ids] = self._rows[:n] @ state
        return out

    def _try(self, logits: FloatArray, state: FloatArray) -> None:
        """Whether the table gives the head's own logits; hold what was held before if so."""
        self._is_tried = True
        some = np.linspace(0, len(self._own) - 1, min(PROBED, len(self._own))).astype(int)
        rows = self._looked_up(self._own[some].tolist())
        if rows is None:
            log.info("the drafter's trimmed head stays: there is no table of all its rows")
            return
        off = float(np.abs(rows @ state - logits[some]).max())
        if not off <= NOISE * float(np.ptp(logits[some])):  # nor what is not a number
            log.info("the drafter's trimmed head stays: its table is not the head's (%.3g)", off)
            return
        self._room()
        for token in sorted(self.missed.held):
            self._hold(token)

    def _looked_up(self, tokens: Sequence[int]) -> FloatArray | None:
        return self.model.head_rows(tokens) if isinstance(self.model, WithTable) else None

    def said(self, token: int) -> None:
        """The target said this token of the drafter's (-1: none of them)."""
        came, went = self.missed.said(token)
        if not len(self._rows):  # nothing may be held
            return
        if went is not None:
            self._drop(went)
        if came is not None:
            self._hold(came)

    def _room(self) -> None:
        """Make or double the room for rows."""
        more = np.empty((max(len(self._rows), 64), self._rows.shape[1]), np.float32)
        self._rows = np.concatenate([self._rows, more])

    def _hold(self, token: int) -> None:
        rows = self._looked_up([token])
        assert rows is not None
        if len(self._grown) == len(self._rows):
            self._room()
        self._rows[len(self._grown)] = rows[0]
        self._grown.append(token)
        self._settle(token, has=True)

    def _drop(self, token: int) -> None:
        at, last = self._grown.index(token), len(self._grown) - 1
        self._rows[at], self._grown[at] = self._rows[last], self._grown[last]
        self._grown.pop()
        self._settle(token, has=False)

    def _settle(self, token: int, *, has: bool) -> None:
        self._ids = np.array(self._grown, np.intp)
        self.has[token] = has
        self._out[:, token] = -np.inf
