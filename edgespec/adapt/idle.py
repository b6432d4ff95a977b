"""Work in idle time: in a thread, piece by piece, while nobody waits for an answer.

A request stops it: `stop` returns once no piece is running, so a piece should take milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

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
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Nobody waits any more."""
        self.stop()
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="edgespec idle", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Somebody waits: returns once no piece is running."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopped.set()
        thread.join()

    def wait(self, seconds: float) -> None:
        """Until nothing is left to do, or so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        if self._stopped.wait(self._wait_s) or not self._may():
            return
        while not self._stopped.is_set() and self._work():
            pass


def on_mains() -> bool:
    """Whether the device is not on battery, as far as the system says."""
    try:
        import psutil  # type: ignore[import-untyped]

        battery = psutil.sensors_battery()
    except (ImportError, AttributeError):  # systems that psutil knows no battery of
        return True
    return battery is None or bool(battery.power_plugged)
