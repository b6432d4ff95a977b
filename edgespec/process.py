"""What belongs to the process that opened it: a fork has its memory and none of its threads."""

from __future__ import annotations

import os
import threading
from typing import Any

from edgespec.errors import BackendError


class OwnLock:
    """A lock that no forked child can take, where nothing would compute or release it.

    As a context manager and by its methods like `lock`, a threading.Lock unless given.
    """

    def __init__(self, lock: Any = None) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock() if lock is None else lock
        self.release = self._lock.release

    @property
    def is_own(self) -> bool:
        """Whether this is the process that made the lock."""
        return os.getpid() == self._pid

    def acquire(self, *, blocking: bool = True) -> bool:
        """Raises: BackendError in a child."""
        if not self.is_own:
            raise BackendError(
                f"this model was opened in process {self._pid}, and a fork has none of its "
                "threads: expected calls from that process; open it again in the child, or start "
                "the child with spawn"
            )
        return bool(self._lock.acquire(blocking))

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
