"""A shared model of tables: its law is known, its forwards are counted and can be made to fail."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edgespec.backends.fake import TableModel


class TableText(TableModel):
    """Implements protocols.SharedText."""

    n_held = 0

    def hold(self, tokens):
        self.extend(tokens)
        self.n_held += len(tokens)

    def drop_held(self):
        self.truncate(self.length - self.n_held)

    def truncate(self, n):
        self.n_held = max(self.n_held - (self.length - n), 0)
        super().truncate(n)

    def copy(self, other, n):
        assert n <= other.length - other.n_held
        self._tokens, self.n_held = other._tokens[:n], 0


class TableShared:
    """Implements protocols.SharedModel. reads: of each forward the tokens read without rows.

    rows: of each forward its rows, by text. before: called with the number of each forward.
    """

    def __init__(
        self,
        table,
        n: int,
        *,
        n_vocab: int = 8,
        n_context: int = 256,
        n_batch: int = 64,
        n_rows: int = 48,
        before: Callable[[int], object] = lambda i: None,
        token_s: float = 0.0,
    ) -> None:
        self.sequences = [TableText(table, n_vocab, n_context) for _ in range(n)]
        self.n_batch, self.n_rows, self.token_s = n_batch, n_rows, token_s
        self.rows: list[list[int]] = []
        self.reads: list[list[int]] = []
        self.before, self.n_calls = before, 0

    def forward(self, asks, reads=()):
        lengths = [text.length for text in self.sequences]
        self.n_calls += 1
        self.before(self.n_calls)
        n_rows, n_read = [len(t) for _, t in asks], [len(t) for _, t in reads]
        assert all(n_rows) and all(n_read)
        n_held = sum(text.n_held for text, _ in (*asks, *reads))
        assert sum(n_rows) <= self.n_rows, n_rows
        assert sum(n_rows) + sum(n_read) + n_held <= self.n_batch, lengths
        texts = [id(text) for text, _ in (*asks, *reads)]
        assert len(set(texts)) == len(texts)
        self.rows.append(n_rows)
        self.reads.append(n_read)
        if self.token_s:
            time.sleep(self.token_s * (sum(n_rows) + sum(n_read)))
        for text, _ in (*asks, *reads):
            text.n_held = 0
        for text, tokens in reads:
            text.extend(tokens)
        return [text.forward(tokens) for text, tokens in asks]


def law_of(seed: int, n_vocab: int = 8, *, sharp: float = 3.0):
    """A table: a law that depends on the last two tokens."""
    rng = np.random.default_rng(seed)
    logits = sharp * rng.standard_normal((n_vocab, n_vocab, n_vocab))
    laws = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)

    def table(prefix):
        one, two = (prefix[-2] if len(prefix) > 1 else 0), prefix[-1]
        return laws[one, two].astype(np.float32)

    return table
