"""Drafts with a language model of the target's own vocabulary, one token at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.protocols import LanguageModel, Law
from edgespec.types import Draft, FloatArray, Verdict
from edgespec.verify import pick

logger = logging.getLogger(__name__)
FEW = 8  # new tokens up to which one forward, with logits nobody reads, beats extend + forward


class ModelDrafter:
    """The likeliest continuation by `model`, or with a law one drawn from it.

    The model's cache follows the context by the longest common prefix, so a round reads only what
    the last one got wrong. The draft ends early where the cumulative probability of the
    likeliest tokens falls below p_min; that is decided before a token is drawn, because a drawn
    token that is dropped for what it is would no longer have the law in `probs`. What a trimmed
    head has no row for is never drafted: its logit is minus infinity.
    """

    def __init__(self, model: LanguageModel, *, name: str = "model", p_min: float = 0.0) -> None:
        self.model, self.name, self.p_min = model, name, p_min
        self._cached: list[int] = []  # the ids in the model's cache
        ids = model.token_ids
        self._ids = None if ids is None else ids.astype(np.intp)  # int32 would be cast each time
        self._work = np.empty(model.n_vocab if ids is None else len(ids), np.float32)
        self._whole = np.empty(0, np.float32)  # [V], -inf where a trimmed head has no row
        if ids is not None:
            self._whole = np.full(model.n_vocab, -np.inf, np.float32)
        self._warned = False

    def draft(
        self,
        context: Sequence[int],
        k: int,
        *,
        law: Law | None = None,
        u: NDArray[np.float64] | None = None,
    ) -> Draft:
        """Fewer than k tokens where the model's context ends; none if the context does not fit."""
        # The last drafted token is not read here, hence one more than there is room for.
        k = min(k, self.model.n_context - len(context) + 1)
        if k < 1:
            self._warn(len(context))
            return Draft()
        logits = self._read(context)
        if law is None or u is None:
            return self._likeliest(logits, k)
        return self._drawn(logits, context, k, law, u)

    def _likeliest(self, logits: FloatArray, k: int) -> Draft:
        tokens: list[int] = []
        confidence: list[float] = []
        sure = 1.0
        while True:
            column = int(logits.argmax())
            token = column if self._ids is None else int(self._ids[column])
            sure *= self._probability(logits, column)
            if sure < self.p_min:
                break
            tokens.append(token)
            confidence.append(sure)
            if len(tokens) == k:
                break
            logits = self._step(token)
        sources = (self.name,) * len(tokens)
        return Draft(tuple(tokens), sources=sources, confidence=tuple(confidence))

    def _drawn(
        self, logits: FloatArray, context: Sequence[int], k: int, law: Law, u: NDArray[np.float64]
    ) -> Draft:
        before = list(context)
        rows: list[FloatArray] = []
        tokens: list[int] = []
        sure = 1.0
        for i in range(k):
            if i > 0:
                logits = self._step(tokens[-1])
            row = law(self._of_all(logits), before)
            sure *= float(row.max())
            if sure < self.p_min:
                break
            token = pick(row, float(u[i]))
            rows.append(row)
            tokens.append(token)
            before.append(token)
        if not tokens:
            return Draft()
        return Draft(tuple(tokens), probs=np.array(rows), sources=(self.name,) * len(tokens))

    def _of_all(self, logits: FloatArray) -> FloatArray:
        """Logits [V] for logits [V or K]; those of a trimmed head are overwritten by the next."""
        if self._ids is None:
            return logits
        self._whole[self._ids] = logits
        return self._whole

    def _probability(self, logits: FloatArray, column: int) -> float:
        """Softmax of logits [V or K] at their maximum, `column`."""
        work = self._work
        np.subtract(logits, logits[column], out=work)
        np.exp(work, out=work)
        return 1.0 / float(work.sum())

    def _step(self, token: int) -> FloatArray:
        """Logits [V or K] after one more token."""
        logits: FloatArray = self.model.forward((token,))[0]
        self._cached.append(token)
        return logits

    def _read(self, context: Sequence[int]) -> FloatArray:
        """Bring the cache to `context` and give the logits [V or K] after it."""
        context = list(context)
        # A forward that was interrupted can leave the cache longer or shorter than the record.
        n_same = common_prefix(self._cached, context, min(self.model.length, len(context) - 1))
        del self._cached[n_same:]
        self.model.truncate(n_same)
        new = context[n_same:]
        if len(new) > FEW:
            self.model.extend(new[:-1])
            self._cached += new[:-1]
            new = new[-1:]
        logits: FloatArray = self.model.forward(new)[-1]
        self._cached += new
        return logits

    def _warn(self, n_tokens: int) -> None:
        if n_tokens > self.model.n_context and not self._warned:
            self._warned = True
            logger.warning(
                "drafter %s holds %d tokens, the context has %d: no drafts until it is shorter",
                self.name, self.model.n_context, n_tokens,
            )  # fmt: skip

    def observe(self, context: Sequence[int], draft: Draft, verdict: Verdict) -> None:
        """Nothing to learn; the next draft reads what was emitted."""

    def close(self) -> None:
        self.model.close()


def common_prefix(known: list[int], seen: list[int], limit: int) -> int:
    """How many leading ids agree, at most `limit`."""
    limit = min(limit, len(known), len(seen))
    low = 0
    # Slices compare at C speed; the usual difference is among the last few ids.
    step = max(limit - 32, 1)
    while low < limit:
        high = min(low + step, limit)
        if known[low:high] == seen[low:high]:
            low = high
        elif step == 1:
            return low
        else:
            step = max(step // 8, 1)
    return low
