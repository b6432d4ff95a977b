"""One llama_batch reused for every call, filled through numpy.

The C struct points into arrays owned here, so filling it for nine tokens takes a few
microseconds and nothing needs to be freed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends.tokens import Ids, Tree
from edgespec.types import FloatArray


@dataclass(frozen=True)
class Part:
    """Tokens of one sequence from a position on; of the last n_rows of them logits are wanted."""

    sequence: int
    start: int
    ids: Ids
    n_rows: int


class Batch:
    """Fills a llama_batch of at most n_batch entries; each call returns the struct to decode."""

    def __init__(self, api: Any, n_batch: int, max_leaves: int) -> None:
        self._tokens = np.zeros(n_batch, np.int32)
        self._positions = np.zeros(n_batch, np.int32)
        self._count = np.arange(n_batch, dtype=np.int32)
        self._n_seqs = np.ones(n_batch, np.int32)
        self._seqs = np.zeros((n_batch, max_leaves), np.int32)
        self._marked = np.zeros(n_batch, np.int8)  # the same where rows are of several sequences
        self._wanted = (np.arange(2 * n_batch) >= n_batch).astype(np.int8)
        rows = self._seqs.ctypes.data + self._seqs.strides[0] * np.arange(n_batch)
        self._seq_rows = rows.astype(np.uintp)
        self._types = dict(api.llama_batch._fields_)
        self._n_forked = 0  # entries whose sequences a tree has set
        self._by_token = self._point(api.llama_batch(), "token", self._tokens)
        self._by_vector = api.llama_batch()
        self._by_vector.token = None
        self._logits: dict[int, Any] = {}  # by how many rows are not wanted
        for batch in (self._by_token, self._by_vector):
            self._point(batch, "pos", self._positions)
            self._point(batch, "n_seq_id", self._n_seqs)
            self._point(batch, "seq_id", self._seq_rows)

    def chain(self, ids: Ids, start: int, n_rows: int) -> Any:
        """Tokens of sequence 0 from position `start`; logits for the last `n_rows` of them."""
        n = len(ids)
        self._tokens[:n] = ids
        return self._placed(self._by_token, n, start, n_rows)

    def vectors(self, vectors: FloatArray, start: int, n_rows: int) -> Any:
        """The same with input vectors [n, n_embd], which the caller keeps alive until decoded."""
        self._point(self._by_vector, "embd", vectors)
        return self._placed(self._by_vector, len(vectors), start, n_rows)

    def tree(self, ids: Ids, tree: Tree, start: int) -> Any:
        """Nodes of a tree whose top level has position `start`, each in the leaves below it."""
        n = len(ids)
        batch = self.chain(ids, start, n)
        self._positions[:n] = tree.depths
        self._positions[:n] += start
        for node, leaves in enumerate(tree.below):
            self._n_seqs[node] = len(leaves)
            self._seqs[node, : len(leaves)] = leaves
        self._n_forked = n
        return batch

    def several(self, parts: Sequence[Part]) -> Any:
        """Chains of several sequences one after the other, each from its own position on."""
        n = sum(len(part.ids) for part in parts)
        batch = self._placed(self._by_token, n, 0, 0)
        self._marked[:n] = end = 0
        for part in parts:
            start, end = end, end + len(part.ids)
            self._tokens[start:end], self._seqs[start:end, 0] = part.ids, part.sequence
            np.add(self._count[: end - start], part.start, out=self._positions[start:end])
            self._marked[end - part.n_rows : end] = 1
        batch.logits = self._as("logits", self._marked)
        self._n_forked = end
        return batch

    def _placed(self, batch: Any, n: int, start: int, n_rows: int) -> Any:
        if self._n_forked:
            self._n_seqs[: self._n_forked], self._seqs[: self._n_forked, 0] = 1, 0
            self._n_forked = 0
        np.add(self._count[:n], start, out=self._positions[:n])
        batch.n_tokens = n
        batch.logits = self._flags(n - n_rows)
        return batch

    def _flags(self, n_unwanted: int) -> Any:
        """Where so many zeros begin that ones follow."""
        if n_unwanted not in self._logits:
            flags = self._wanted[len(self._count) - n_unwanted :]
            self._logits[n_unwanted] = self._as("logits", flags)
        return self._logits[n_unwanted]

    def _as(self, name: str, array: NDArray[Any]) -> Any:
        return ctypes.cast(array.ctypes.data, self._types[name])

    def _point(self, batch: Any, name: str, array: NDArray[Any]) -> Any:
        setattr(batch, name, self._as(name, array))
        return batch
