"""What belongs to the process that opened it: a fork has its memory and none of its threads."""

from __future__ import annotations

import threading
from os import getpid
from typing import Any

from edgespec.errors import BackendError


class OwnLock:
    """A lock that no forked child can take, where nothing would compute or release it.

    As a context manager and by its methods like `lock`, a threading.Lock unless given.
    """

    def __init__(self, lock: Any = None) -> None:
        self._pid = getpid()
        lock = threading.Lock() if lock is None else lock
        self._acquire, self.release = lock.acquire, lock.release

    @property
    def is_own(self) -> bool:
        """Whether this is the process that made the lock."""
        return getpid() == self._pid

    def acquire(self, *, blocking: bool = True) -> bool:
        """Raises: BackendError in a child."""
        if getpid() != self._pid:
            raise BackendError(
                f"this model was opened in process {self._pid}, and a fork has none of its "
                "threads: expected calls from that process; open it again in the child, or start "
                "the child with spawn"
            )
        return bool(self._acquire(blocking))

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()
