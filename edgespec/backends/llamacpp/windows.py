"""The text of a context whose windowed layers keep their window only: what it takes to go back.

llama.cpp overwrites what no later token can see, the oldest first, with a batch's room to spare. A
step back whose window is still whole is free; for a longer one the text is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Windows:
    """What sequence 0 has read, and how to forget the end of it; used as past.Past is."""

    def __init__(self, api: Any, context: Any, n_window: int) -> None:
        """n_window: tokens that a windowed layer sees, the one that it reads included."""
        self._api, self._memory = api, api.llama_get_memory(context)
        self._n_window = n_window
        self.text: list[Any] = []  # token ids or vectors, all that counts
        self._n_cached = 0
        self.is_sound = True  # nothing is in the cache but the first _n_cached tokens

    def begins(self, n: int, *, wants_rows: bool) -> None:
        """A forward of n tokens comes: nothing has to be kept for it."""

    def ends(self, given: Sequence[Any]) -> None:
        """A batch has been read."""
        end = self._n_cached + len(given)
        self.text[self._n_cached : end] = given
        self._n_cached, self.is_sound = end, True

    def cut(self, n: int) -> None:
        """All but the first n tokens do not count any more."""
        del self.text[n:]

    def missing(self) -> list[Any]:
        """What has to be read again before the next forward; the cache ends before it."""
        n = len(self.text)
        if self._n_cached > n or not self.is_sound:
            self._api.llama_memory_seq_rm(self._memory, 0, n, -1)
            self._n_cached = n if self._is_whole(n) else 0
            if self._n_cached == 0:
                self._api.llama_memory_seq_rm(self._memory, 0, -1, -1)
            self.is_sound = True
        return self.text[self._n_cached :]

    def _is_whole(self, n: int) -> bool:
        """Whether all is there that token n and later ones can see."""
        first = int(self._api.llama_memory_seq_pos_min(self._memory, 0))
        return 0 <= first <= max(0, n - self._n_window)
