"""A model whose rows depend on the class of the width that each token was read at."""

from __future__ import annotations

import numpy as np

from edgespec.backends.fake import TableModel
from edgespec.types import Capabilities


def table_of(n_vocab: int, seed: int = 0):
    """A law after every prefix, of its last six ids."""

    def table(prefix):
        rng = np.random.default_rng([seed, len(prefix), *prefix[-6:]])
        return rng.dirichlet(np.full(n_vocab, 0.3)).astype(np.float32)

    return table


class WidthModel:
    """class_of: a number for each width; placed: widths whose rows depend on their place."""

    capabilities, token_ids, tokenizer, device = Capabilities(), None, None, "a table"

    def __init__(self, class_of, *, n_vocab=7, n_context=256, placed=()):
        self.n_vocab, self.n_context = n_vocab, n_context
        self._inner = TableModel(table_of(n_vocab), n_vocab, n_context)
        self._class_of, self._placed = class_of, placed
        self.widths, self.read = [], []  # of all forwards, and of what was read without rows

    @property
    def hidden(self):
        return np.zeros((99, 0), np.float32)

    @property
    def length(self):
        return self._inner.length

    def _read_as(self, tokens):
        """Ids that differ where the tokens are read in another way."""
        n = len(tokens)
        places = range(n) if n in self._placed else [0] * n
        ways = [1 + self._class_of(n) * 100 + place for place in places]
        return [token + self.n_vocab * way for token, way in zip(tokens, ways, strict=True)]

    def extend(self, tokens):
        self.read.append(len(tokens))
        self._inner.extend(self._read_as(tokens))

    def forward(self, tokens, parents=None, *, n_rows=None):
        self.widths.append(len(tokens))
        return self._inner.forward(self._read_as(tokens))

    def keep(self, rows):
        self._inner.keep(rows)

    def truncate(self, n):
        self._inner.truncate(n)

    def cancel(self):
        """Nothing is in flight."""

    def close(self):
        self._inner.close()
