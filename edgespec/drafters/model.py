"""Drafts with a language model of the target's own vocabulary, one token at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgespec.decode.follow import Pays, Reader, always
from edgespec.drafters.teaching import Learner, teach
from edgespec.drafters.window import MOST, Window
from edgespec.protocols import Drawing, LanguageModel
from edgespec.types import NO_DRAFT, Draft, FloatArray, Round

logger = logging.getLogger(__name__)


class ModelDrafter:
    """The likeliest continuation by `model`, or with a law one drawn from it.

    Of a long text the model is shown the end (window.py). Its cache follows the context by the
    longest common prefix, so a round reads only what the last one got wrong. The draft ends early
    where the cumulative probability of the likeliest tokens falls below p_min; that is decided
    before a token is drawn, because a drawn token that is dropped for what it is would no longer
    have the law in `probs`. What a trimmed head has no row for is never drafted: its logit is
    minus infinity.
    """

    n_leaves = 1

    def __init__(
        self,
        model: LanguageModel,
        *,
        name: str = "model",
        p_min: float = 0.0,
        learner: Learner | None = None,
        most_shown: int = MOST,
    ) -> None:
        """learner: told what the target thought where this drafter guessed. most_shown: tokens of a
        long text, see window.Window.
        """
        self.model, self.name, self.p_min = model, name, p_min
        self._learner, self._made = learner, (NO_DRAFT, 0)  # the last draft, and where it began
        self._reader, self._window = Reader(model), Window(model.n_context, most=most_shown)
        ids = model.token_ids
        self._work = np.empty(model.n_vocab if ids is None else len(ids), np.float32)
        self._warned = False
        self.pays: Pays = always

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        """Fewer than k tokens where the model's context ends; none if the context does not fit."""
        shown = self._window.of(context)
        k = min(k, self._reader.room(shown))
        if k < 1:
            self._warn(len(shown))
            return Draft()
        logits = self._reader.read(shown)
        if drawing is None:
            draft = self._likeliest(logits, k)
        else:
            draft = self._drawn(logits, context, k, drawing)
        self._made = draft, len(shown)
        if self._learner is not None:
            self._learner.hold()
        return replace(draft, spent=self._reader.lap())

    def n_unread(self, context: Sequence[int]) -> int:
        """See window.Reads."""
        return self._reader.n_unread(self._window.of(context))

    def read_on(self, context: Sequence[int], n: int) -> None:
        """See window.Reads."""
        self._reader.read_on(self._window.of(context), n)

    def _likeliest(self, logits: FloatArray, k: int) -> Draft:
        tokens: list[int] = []
        confidence: list[float] = []
        sure, ids = 1.0, self._reader.columns
        while True:
            column = int(logits.argmax())
            token = column if ids is None else int(ids[column])
            sure *= self._probability(logits, column)
            if sure < self.p_min:
                break
            tokens.append(token)
            confidence.append(sure)
            if len(tokens) == k or not self.pays(confidence):
                break
            logits = self._reader.step(token)
        sources = (self.name,) * len(tokens)
        return Draft(tuple(tokens), sources=sources, confidence=tuple(confidence))

    def _drawn(self, logits: FloatArray, context: Sequence[int], k: int, drawing: Drawing) -> Draft:
        before = list(context)
        rows: list[FloatArray] = []
        tokens: list[int] = []
        confidence: list[float] = []
        sure = 1.0
        while True:
            sure *= self._probability(logits, int(logits.argmax()))
            row = drawing.law(self._reader.whole(logits), before)
            if sure < self.p_min:
                break
            goes_on = self.pays((*confidence, sure), True)
            if not goes_on and tokens:
                break
            token = drawing.chances.pick(row)
            rows.append(row)
            tokens.append(token)
            confidence.append(sure)
            before.append(token)
            if not goes_on or len(tokens) == k or not self.pays(confidence):
                break
            logits = self._reader.step(token)
        if not tokens:
            return Draft()
        sources = (self.name,) * len(tokens)
        return Draft(
            tuple(tokens), probs=np.array(rows), sources=sources, confidence=tuple(confidence)
        )

    def _probability(self, logits: FloatArray, column: int) -> float:
        """Softmax of logits [V or K] at their maximum, `column`."""
        work = self._work
        np.subtract(logits, logits[column], out=work)
        np.exp(work, out=work)
        return 1.0 / float(work.sum())

    def _warn(self, n_tokens: int) -> None:
        if n_tokens > self.model.n_context and not self._warned:
            self._warned = True
            logger.warning(
                "drafter %s holds %d tokens, the context has %d: no drafts until it is shorter",
                self.name, self.model.n_context, n_tokens,
            )  # fmt: skip

    def observe(self, done: Round) -> None:
        """The next draft reads what was emitted."""
        made, self._made = self._made, (NO_DRAFT, 0)
        if self._learner is not None:
            teach(self._learner, *made, done)

    def close(self) -> None:
        """Nothing: the model is its opener's."""
