"""A language model that is a table: its law is known after every prefix, so laws can be tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgespec.errors import ContextError
from edgespec.types import Capabilities, FloatArray


class TableModel:
    """Logits are the log of `table(prefix)`, a law [V] for the ids read so far."""

    capabilities = Capabilities(n_leaves=0)
    token_ids = None

    def __init__(
        self, table: Callable[[tuple[int, ...]], FloatArray], n_vocab: int, n_context: int = 64
    ) -> None:
        self.table, self.n_vocab, self.n_context = table, n_vocab, n_context
        self._tokens: list[int] = []
        self._paths: list[tuple[int, ...]] = []  # of the last forward's rows
        self._before = 0  # length before the last forward

    @property
    def hidden(self) -> FloatArray:
        return np.empty((0, 0), np.float32)

    @property
    def length(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        self._check(len(tokens))
        self._tokens += tokens

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        self._check(len(tokens))
        prefix, self._before = tuple(self._tokens), len(self._tokens)
        above = range(-1, len(tokens) - 1) if parents is None else parents
        self._paths = []
        for token, parent in zip(tokens, above, strict=True):
            self._paths.append((*(self._paths[parent] if parent >= 0 else ()), token))
        self._tokens += tokens
        with np.errstate(divide="ignore"):
            rows = [np.log(self.table(prefix + path)) for path in self._paths]
        return np.array(rows, np.float32).reshape(len(rows), self.n_vocab)

    def keep(self, rows: Sequence[int]) -> None:
        path = self._paths[rows[-1]] if rows else ()
        assert len(path) == len(rows), f"rows {rows} are not a path from the top"
        self._tokens[self._before :] = path

    def truncate(self, n: int) -> None:
        assert n <= len(self._tokens)
        del self._tokens[n:]

    def close(self) -> None:
        self._tokens = []

    def _check(self, n_new: int) -> None:
        if len(self._tokens) + n_new > self.n_context:
            raise ContextError(
                f"{len(self._tokens)} + {n_new} tokens: the context holds {self.n_context}"
            )
