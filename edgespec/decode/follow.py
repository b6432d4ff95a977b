"""A model's cache kept on a text that grows, shrinks and changes.

Knows ids of the model's own vocabulary; nothing of drafts or targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

import numpy as np

from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray, Spent

MANY = 8  # tokens from which on a forward counts as reading


class Pays(Protocol):
    """Whether a draft of such confidences is worth another token; or, if the last of them is
    undrawn, but its law known, whether it is to be drawn. A draft that is not to begin has its
    first token all the same, to be scored: who said so drops it.
    """

    def __call__(self, confidence: Sequence[float], undrawn: bool = False, /) -> bool: ...


class Follower:
    """What a model's cache holds. ids: the record of it."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.ids: list[int] = []

    def cut(self, context: list[int], limit: int) -> int:
        """Forget what is not the beginning of `context`; how much of it is left, at most `limit`.

        A call that was interrupted can leave the cache longer or shorter than the record.
        """
        n_same = common_prefix(self.ids, context, min(limit, self.model.length))
        del self.ids[n_same:]
        self.model.truncate(n_same)
        return n_same

    def extend(self, tokens: list[int]) -> None:
        """Read more, without logits."""
        self.model.extend(tokens)
        self.ids += tokens

    def forward(self, tokens: list[int], n: int) -> FloatArray:
        """Read more; logits [n, K] after each of the last n, a view."""
        logits = self.model.forward(tokens, n_rows=n)[-n:]
        self.ids += tokens
        return logits


class Reader:
    """A draft model's logits after any context, read by its longest common prefix with the last.

    columns: ids [K] that the logits' columns are of, None if every id has its own. pays: see Pays.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model, self._cache = model, Follower(model)
        ids = model.token_ids
        self.columns = None if ids is None else ids.astype(np.intp)  # int32 would be cast each time
        self.pays: Pays = always
        self._spent = [0.0, 0.0]  # reading, stepping
        self._whole = np.empty(0, np.float32)  # [V], -inf where a trimmed head has no row
        if ids is not None:
            self._whole = np.full(model.n_vocab, -np.inf, np.float32)

    def room(self, context: Sequence[int]) -> int:
        """Tokens that can be drafted after `context`: the last one is not read, hence one more."""
        return max(self.model.n_context - len(context) + 1, 0)

    def read(self, context: Sequence[int]) -> FloatArray:
        """Bring the cache to `context` and give the logits [K] after it; a view."""
        last: FloatArray = self.rows(context, 1)[-1]
        return last

    def step(self, token: int) -> FloatArray:
        """Logits [K] after one more token; a view."""
        last: FloatArray = self._forward([token], 1)[0]
        return last

    def rows(self, context: Sequence[int], n: int) -> FloatArray:
        """Logits [n, K] after each of the context's last n tokens; a view."""
        context = list(context)
        return self._forward(context[self._cache.cut(context, len(context) - n) :], n)

    def lap(self) -> Spent:
        """What the forwards since the last lap took."""
        spent, self._spent = Spent(*self._spent), [0.0, 0.0]
        return spent

    def _forward(self, tokens: list[int], n: int) -> FloatArray:
        start = perf_counter()
        logits = self._cache.forward(tokens, n)
        self._spent[len(tokens) < MANY] += perf_counter() - start
        return logits

    def n_unread(self, context: Sequence[int]) -> int:
        """How many of the context's tokens are not in the cache."""
        known, context = self._cache.ids, list(context)
        return len(context) - common_prefix(known, context, min(len(context), self.model.length))

    def read_on(self, context: Sequence[int], n: int) -> None:
        """Read the next n of them, without logits."""
        context = list(context)
        n_same = self._cache.cut(context, len(context))
        self._cache.extend(context[n_same : n_same + n])

    def whole(self, logits: FloatArray) -> FloatArray:
        """Logits [V] for logits [K]; those of a trimmed head are overwritten by the next."""
        if self.columns is None:
            return logits
        self._whole[self.columns] = logits
        return self._whole


def always(confidence: Sequence[float], undrawn: bool = False, /) -> bool:
    """That another token pays, where nobody says otherwise."""
    return True


def common_prefix(known: Sequence[int], seen: Sequence[int], limit: int) -> int:
    """How many leading ids agree, at most `limit`; both of one type, lists or tuples."""
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
