"""Notices calls that hang: a thread looks once a second, and a call costs 0.2 us to begin and end.

Looks are counted, not seconds: a process that was stopped for an hour has not hung for an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK_S = 1.0
MOST_LOOKS = 10  # without progress: a call hangs
MOST_IDLE = 10  # without any call: the thread ends, the next call begins another
# What a token may take that a model first has to read: 5 x SmolLM2-135M on a single busy core. A
# drafter that takes longer is of no use.
READ_S = 0.05


class Watch:
    """Looks after one call at a time.

    progress: gives what changes while a call goes on; from another thread. on_hang: called every
    second from then on, in that thread, as long as the call lasts.
    """

    def __init__(self, progress: Callable[[], object], on_hang: Callable[[], None]) -> None:
        self._progress, self._on_hang = progress, on_hang
        self._number, self._busy, self._most = 0, False, MOST_LOOKS
        self._seen: object = None
        self._n_same = self._n_idle = 0
        self._thread: threading.Thread | None = None
        self.hung = False  # whether the last call did

    def begin(self, n_unread: int = 0) -> None:
        """A call begins, in which so many tokens may have to be read first."""
        self._number += 1
        self._most = MOST_LOOKS if n_unread < 20 else MOST_LOOKS + int(n_unread * READ_S / LOOK_S)
        self.hung, self._busy = False, True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """It is over."""
        self._busy = False

    def look(self) -> bool:
        """See how the call is getting on; whether to look again."""
        if not self._busy:
            self._n_idle += 1
            return self._n_idle < MOST_IDLE
        seen = (self._number, self._progress())
        self._n_same = self._n_same + 1 if seen == self._seen else 0
        self._seen, self._n_idle = seen, 0
        if self._n_same >= self._most:
            self.hung = True
            self._on_hang()
        return True

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_S):
            if not self.look():
                self._thread = None
                if not self._busy:  # else a call began meanwhile, which has seen this thread
                    return
                self._thread = threading.current_thread()
