"""Views on the rows that a llama.cpp context has computed last."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.backends.llamacpp.library import Library
from edgespec.errors import BackendError
from edgespec.types import FloatArray


class Rows:
    """Logits [n, V] and states [n, d] of the last rows: views, or what was put in their place.

    most: rows that a batch has at most. width: d, 0 for a context without states. n_embd: of states
    where there are none.
    """

    def __init__(
        self, library: Library, context: Any, most: int, n_vocab: int, n_embd: int, *, states: bool
    ) -> None:
        self._library, self._context, self._most = library, context, most
        self._n_vocab, self._n_embd, self._with_states = n_vocab, n_embd, states
        self._logits_at = self._hidden_at = 0  # where llama.cpp has its rows
        self.forget()

    def forget(self) -> None:
        """There are none."""
        self.logits = np.empty((0, self._n_vocab), np.float32)
        self.hidden = np.empty((0, self._n_embd), np.float32)

    def show(self, n: int, path: Path) -> None:
        """Point the views at the n rows that were just computed by the model in `path`."""
        at = self._library.get_logits(self._context)
        if at != self._logits_at:
            self._logits_at = at
            self._all_logits = _floats(at, self._most, self._n_vocab)
        self.logits = self._all_logits[:n]
        # One sum finds a NaN or infinity anywhere in the rows.
        if not np.isfinite(self.logits.sum()):
            raise BackendError(
                f"{path.name} computed logits that are not numbers: expected finite "
                "ones; the weights are damaged, fetch the file again"
            )
        if self._with_states:
            at = self._library.get_embeddings(self._context)
            if at != self._hidden_at:
                self._hidden_at = at
                self._all_hidden = _floats(at, self._most, self._n_embd)
            self.hidden = self._all_hidden[:n]


def _floats(address: int, n_rows: int, n_columns: int) -> FloatArray:
    """A view [n_rows, n_columns] of memory that llama.cpp owns."""
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, (n_rows, n_columns))
