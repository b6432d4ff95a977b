"""What one generation has for its reader, who may come late, be slow or leave.

Written by the thread that generates, read by another; knows neither tokens nor text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from edgespec.errors import Cancelled
from edgespec.types import Piece

T = TypeVar("T")


class End(NamedTuple):
    """Nothing more comes; error: why, if it was no good end."""

    error: BaseException | None = None


class Outbox(Generic[T]):
    """Things in order, then an end. has_left: the reader wants no more."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[T | End] = SimpleQueue()
        self.has_left = self.has_ended = False

    def put(self, one: T) -> None:
        """For the reader."""
        self._queue.put(one)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; the reader gets the error after all that is there. Only once."""
        if not self.has_ended:
            self.has_ended = True
            self._queue.put(End(error))

    def leave(self) -> None:
        """The reader wants no more."""
        self.has_left = True

    def all(self) -> Generator[T, None, None]:
        """What is there and what comes; waits for it. Raises: what it ended with."""
        while not isinstance(one := self._queue.get(), End):
            yield one
        if one.error is not None:
            raise one.error


class Reading(Iterator[Piece]):
    """Pieces as they come; closed or dropped, also before the first one, it says so.

    on_close: called once, when there is no more or nobody reads on.
    """

    def __init__(self, pieces: Generator[Piece, None, None], on_close: Callable[[], None]) -> None:
        self._pieces, self._on_close = pieces, on_close
        self._closed, self._why = False, ""
        self._lock = threading.Lock()  # held while a piece is waited for and spelled

    def __next__(self) -> Piece:
        try:
            with self._lock:
                if self._why:
                    raise Cancelled(self._why)
                return next(self._pieces, None) or self._over()
        except BaseException:
            self._told()
            raise

    def _over(self) -> Piece:
        """Raises: StopIteration at the end, Cancelled where it was closed meanwhile."""
        if self._why:
            raise Cancelled(self._why)
        raise StopIteration

    def stop(self, why: str) -> None:
        """Whoever reads on is told why not. Afterwards no piece is being spelled, so that what
        spells them may go; its end must be there, or this waits for it.
        """
        with self._lock:
            self._why = why

    def close(self) -> None:
        """Read no more; who asks for a piece from now on, or waits for one, is told so."""
        self._why = self._why or "stopped: nobody reads on"
        self._told()
        # While another thread reads it is left alone: closing one that runs may crash CPython 3.11.
        if self._lock.acquire(blocking=False):
            try:
                self._pieces.close()
            finally:
                self._lock.release()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self._told()

    def _told(self) -> None:
        closed, self._closed = self._closed, True
        if not closed:
            self._on_close()
