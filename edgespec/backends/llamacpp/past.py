"""How a recurrent memory forgets the end of a text: by snapshots, checkpoints, or reading again.

An attention cache drops the rows of what is forgotten. A recurrent state is one for the whole text,
and three ways lead back. Where the architecture has it, llama.cpp keeps the states before each of
the last tokens of a batch (`n_rs_seq`): free, but only once, only within that batch, and only that
far. Else the state is copied before a forward that may be taken back, and what stays of the forward
is read again. Else the text is read anew.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgespec.errors import BackendError

PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: what is recurrent, without the attention cache
TARGET_KEPT, DRAFTER_KEPT = 4, 24  # checkpoints: of prompts and a round; of each drafted token
MOST_BYTES = 256 << 20  # of all of them


@dataclass(frozen=True)
class Checkpoint:
    """The recurrent state after the first n tokens."""

    n: int
    state: Any


def n_kept(size: int, *, each: bool) -> int:
    """Checkpoints of so many bytes that are kept at most; each: of a drafter's every token."""
    return min(DRAFTER_KEPT if each else TARGET_KEPT, max(MOST_BYTES // max(size, 1), 1))


class Past:
    """What sequence 0 of a recurrent context has read, and how to forget the end of it.

    n_back: tokens that snapshots lead back. each: keep a checkpoint before every forward, as a
    drafter needs that steps one token at a time.
    """

    def __init__(self, api: Any, context: Any, n_back: int, *, each: bool) -> None:
        self._api, self._context = api, context
        self._memory = api.llama_get_memory(context)
        self._n_back, self._each = n_back, each
        self.text: list[Any] = []  # token ids or vectors, all that counts
        self._n_cached = 0  # of them, what the state is of; more while some do not count any more
        self._n_free = 0  # tokens that snapshots can take back now
        self.is_sound = True  # the state: it is none while a batch is read, or was cut short
        self._was_read = True  # the last forward read a prompt
        self._checkpoints: list[Checkpoint] = []

    def begins(self, n: int, *, wants_rows: bool) -> None:
        """A forward of n tokens comes: keep the state if the forward may be taken back."""
        may_go_back = self._each or self._was_read or n - 1 > self._n_back
        is_known = bool(self._checkpoints) and self._checkpoints[-1].n == self._n_cached
        if wants_rows and may_go_back and self._n_cached and not is_known:
            self._keep()
        self._was_read = not wants_rows

    def _keep(self) -> None:
        size = self._api.llama_state_seq_get_size_ext(self._context, 0, PARTIAL)
        state = (ctypes.c_uint8 * size)()
        if self._api.llama_state_seq_get_data_ext(self._context, state, size, 0, PARTIAL) != size:
            return
        self._checkpoints.append(Checkpoint(self._n_cached, state))
        while len(self._checkpoints) > n_kept(size, each=self._each):
            self._thin()

    def _thin(self) -> None:
        """Drop the one that is missed least: its neighbours are nearest to each other.

        The first and the last stay, and so does the beginning of a draft or an answer, long after
        the one before it.
        """
        at = [one.n for one in self._checkpoints]
        gaps = {i: at[i + 1] - at[i - 1] for i in range(1, len(at) - 1)}
        del self._checkpoints[min(gaps, key=lambda i: gaps[i], default=0)]

    def ends(self, given: Sequence[Any]) -> None:
        """A batch has been read."""
        end = self._n_cached + len(given)
        self.text[self._n_cached : end] = given
        self._n_cached, self._n_free = end, min(len(given) - 1, self._n_back)
        self.is_sound = True

    def cut(self, n: int) -> None:
        """All but the first n tokens do not count any more."""
        if n == len(self.text):
            return
        n_gone = self._n_cached - n
        while self._checkpoints and self._checkpoints[-1].n > n:
            self._checkpoints.pop()
        del self.text[n:]
        is_near = self.is_sound and 0 < n_gone <= self._n_free
        if is_near and self._api.llama_memory_seq_rm(self._memory, 0, n, -1):
            self._n_cached, self._n_free = n, 0

    def missing(self) -> list[Any]:
        """What has to be read again before the next forward; the cache is at its beginning then."""
        n = len(self.text)
        if self.is_sound and self._n_cached <= n:
            return self.text[self._n_cached :]
        self._n_cached, self._n_free, self.is_sound = 0, 0, False
        for one in reversed(self._checkpoints):
            if self._restored(one):
                self._n_cached, self.is_sound = one.n, True
                return self.text[one.n :]
        self._api.llama_memory_seq_rm(self._memory, 0, -1, -1)
        self.is_sound = True
        return list(self.text)

    def _restored(self, one: Checkpoint) -> bool:
        api, size = self._api, len(one.state)
        if api.llama_state_seq_set_data_ext(self._context, one.state, size, 0, PARTIAL) != size:
            return False
        if not api.llama_memory_seq_rm(self._memory, 0, one.n, -1):
            raise BackendError(f"llama.cpp keeps what follows token {one.n}: expected it to go")
        return True
