"""Texts to vectors, by a model that was made for that: one call after another, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgespec.backends import backend_of
from edgespec.config import Config
from edgespec.errors import BusyError, Cancelled, UsageError
from edgespec.protocols import Tokenizer
from edgespec.session import opening
from edgespec.session.many.door import CLOSED, Door
from edgespec.types import FloatArray, Progress

PART = 16  # texts that are read before others may have their turn


class Embeds(Protocol):
    """What gives vectors; see Embedding. n_embd: their width. n_slots: calls read at once."""

    config: Config
    path: Path
    n_slots: int
    n_embd: int
    n_context: int
    n_vocab: int

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode(self, text: str) -> list[int]: ...

    def embed(self, texts: Sequence[Sequence[int]], wanted: Callable[[], bool]) -> FloatArray: ...

    def close(self) -> None: ...


class Embedding:
    """Implements Embeds by an embedder, which is then used by nobody else."""

    n_slots = 1

    def __init__(self, config: Config, path: Path, embedder: Any, *, n_queue: int) -> None:
        self.config, self.path, self._embedder = config, path, embedder
        self.n_embd, self.n_context = int(embedder.n_embd), int(embedder.n_context)
        self.n_vocab, self._n_queue = int(embedder.n_vocab), n_queue
        self._turn, self._count, self._n_inside = threading.Lock(), threading.Lock(), 0
        self._door, self._closes = Door(), False

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        found: Tokenizer = self._embedder.tokenizer
        return found

    def encode(self, text: str) -> list[int]:
        """Ids of a text within what the model begins and ends texts with. Raises: UsageError."""
        with self._door.inside():
            found: list[int] = self._embedder.tokenizer.framed(text)
        return found

    def embed(self, texts: Sequence[Sequence[int]], wanted: Callable[[], bool]) -> FloatArray:
        """[n, n_embd] a vector of length 1 for each text's ids; wanted: whether to go on.

        Raises: ContextError for a text that is too long; BusyError; Cancelled; UsageError once
        it is closed.
        """
        with self._count:
            if self._n_inside > self._n_queue:
                raise BusyError(
                    f"{self._n_inside} requests wait for vectors: expected at most "
                    f"{self._n_queue}; ask again later"
                )
            self._n_inside += 1
        try:
            with self._door.inside():
                return self._all(texts, wanted)
        finally:
            with self._count:
                self._n_inside -= 1

    def _all(self, texts: Sequence[Sequence[int]], wanted: Callable[[], bool]) -> FloatArray:
        import numpy as np

        self._embedder.check(texts)
        out = np.empty((len(texts), self.n_embd), np.float32)
        for start in range(0, len(texts), PART):
            with self._turn:
                if self._closes:
                    raise UsageError(CLOSED)
                if not wanted():
                    raise Cancelled("stopped: nobody waits for it")
                out[start : start + PART] = self._embedder.embed(texts[start : start + PART])
        return out

    def close(self) -> None:
        """Free the model, once calls in flight were ended; closing twice is no error."""
        self._closes = True
        self._embedder.cancel()
        self._door.close()
        self._embedder.close()


def is_embedding(path: Path) -> bool:
    """Whether a model gives vectors and no text. Raises: ModelFileError, UsageError."""
    if backend_of(path) != "llamacpp":
        return False
    from edgespec.backends.llamacpp.embedder import gives_vectors

    return gives_vectors(path)


def needed_bytes(path: Path, config: Config) -> int:
    """Memory that such a model takes. Raises: ModelFileError, UsageError."""
    from edgespec.backends.llamacpp.embedder import size_of

    return size_of(path, opening.options_of(config)[0])


def shortened(vectors: FloatArray, width: int) -> FloatArray:
    """[n, width] the first numbers of each vector, of length 1 again."""
    from edgespec.backends.llamacpp.embedder import of_length_1

    return of_length_1(vectors[:, :width])


def open_embedding(
    path: Path, config: Config, progress: Progress | None = None, *, n_queue: int = 64
) -> Embedding:
    """The model in `path`, open. Raises: ModelFileError, UsageError, BackendError."""
    from edgespec.backends.llamacpp.embedder import Embedder

    embedder = opening.told(path, opening.options_of(config)[0], progress, Embedder)
    return Embedding(config, path, embedder, n_queue=n_queue)
