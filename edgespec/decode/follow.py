"""A draft model that keeps its cache on a text that grows, shrinks and changes.

Knows ids of the model's own vocabulary; nothing of drafts or targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray

FEW = 8  # new tokens up to which one forward, with logits nobody reads, beats extend + forward


class Reader:
    """Reads a context by its longest common prefix with the last one.

    columns: ids [K] that the logits' columns are of, None if every id has its own.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._cached: list[int] = []  # the ids in the model's cache
        ids = model.token_ids
        self.columns = None if ids is None else ids.astype(np.intp)  # int32 would be cast each time
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
        logits: FloatArray = self.model.forward((token,))[0]
        self._cached.append(token)
        return logits

    def rows(self, context: Sequence[int], n: int) -> FloatArray:
        """Logits [n, K] after each of the context's last n tokens; a view."""
        context = list(context)
        # A forward that was interrupted can leave the cache longer or shorter than the record.
        limit = min(self.model.length, len(context) - n)
        n_same = common_prefix(self._cached, context, limit)
        del self._cached[n_same:]
        self.model.truncate(n_same)
        new = context[n_same:]
        if len(new) > max(FEW, n):
            self.model.extend(new[:-n])
            self._cached += new[:-n]
            new = new[-n:]
        logits: FloatArray = self.model.forward(new)[-n:]
        self._cached += new
        return logits

    def whole(self, logits: FloatArray) -> FloatArray:
        """Logits [V] for logits [K]; those of a trimmed head are overwritten by the next."""
        if self.columns is None:
            return logits
        self._whole[self.columns] = logits
        return self._whole

    def close(self) -> None:
        self.model.close()


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
