"""Work in idle time: in a thread, piece by piece, while nobody waits for an answer.

A request stops it: `stop` returns once no piece is running, so a piece should take milliseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("edgespec")

WAIT_S = 0.25  # of quiet before the first piece: requests one after the other leave no idle time


class Idle:
    """Calls `work` between `begin` and `stop`, until it says that nothing is left.

    may: asked before each time whether the device has power to spare.
    """

    def __init__(
        self,
        work: Callable[[], bool],
        *,
        wait_s: float = WAIT_S,
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        self._work, self._wait_s, self._may = work, wait_s, may
        self._stopped, self._thread = threading.Event(), threading.Thread()

    def begin(self) -> None:
        """Nobody waits any more."""
        self.stop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stopped,), name="edgespec idle", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Somebody waits: returns once no piece is running."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, seconds: float) -> None:
        """Until nothing is left to do, or so long."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self, stopped: threading.Event) -> None:
        if stopped.wait(self._wait_s) or not self._may():
            return
        try:
            while not stopped.is_set() and self._work():
                pass
        except Exception:  # nobody waits for it, so nobody is told
            log.exception("work in idle time has failed")


def on_mains() -> bool:
    """Whether the device is not on battery, as far as the system says."""
    try:
        import psutil  # type: ignore[import-untyped]

        battery = psutil.sensors_battery()
    except (ImportError, AttributeError, OSError, ValueError):  # psutil cannot tell here
        return True
    return battery is None or battery.power_plugged is not False  # None: unknown
