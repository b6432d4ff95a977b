"""What belongs to the process that opened it: a fork has its memory and none of its threads."""

from __future__ import annotations

import os
import threading

from edgespec.errors import BackendError


class OwnLock:
    """A lock that no forked child can take, where nothing would compute or release it."""

    def __init__(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self.release = self._lock.release

    @property
    def is_own(self) -> bool:
        """Whether this is the process that made the lock."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raises: BackendError in a child."""
        if not self.is_own:
            raise BackendError(
                f"this model was opened in process {self._pid}, and a fork has none of its "
                "threads: expected calls from that process; open it again in the child, or start "
                "the child with spawn"
            )

    def acquire(self, *, blocking: bool = True) -> bool:
        """As threading.Lock. Raises: as `check`."""
        self.check()
        return self._lock.acquire(blocking)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
