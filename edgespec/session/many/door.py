"""Who may still use what is about to be freed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgespec.errors import UsageError

CLOSED = "the model is closed: open it again"


class Door:
    """Lets callers in, from any thread, until it is closed; closing waits for those inside."""

    def __init__(self) -> None:
        self._changed, self._n_inside, self._is_closed = threading.Condition(), 0, False

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Within it nothing is freed. Raises: UsageError once it is closed."""
        with self._changed:
            if self._is_closed:
                raise UsageError(CLOSED)
            self._n_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_inside -= 1
                self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody in any more; whether it was open. Returns when nobody is inside."""
        with self._changed:
            was_open, self._is_closed = not self._is_closed, True
            self._changed.wait_for(lambda: self._n_inside == 0)
        return was_open
