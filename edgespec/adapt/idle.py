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

    may: asked before each time whether the device has power to spare. is_off: something has
    failed once, and nothing is done any more.
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
        self.is_off = False

    def begin(self) -> None:
        """Nobody waits any more."""
        self.stop()
        if self.is_off:
            return
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
        self.at_once(lambda: self._go_on(stopped))

    def _go_on(self, stopped: threading.Event) -> None:
        while not stopped.is_set() and self._work():
            pass

    def at_once(self, work: Callable[[], None]) -> None:
        """Do a piece of it in this thread, while nobody waits. What fails is said once."""
        if self.is_off:
            return
        try:
            work()
        except Exception as error:
            self.is_off = True
            log.warning(
                "the drafter learns no more between answers: that has failed (%s: %s)",
                type(error).__name__, error,
            )  # fmt: skip
            log.info("the failure:", exc_info=error)


def on_mains() -> bool:
    """Whether the device is not on battery, as far as the system says."""
    try:
        import psutil  # type: ignore[import-untyped]

        battery = psutil.sensors_battery()
    except (ImportError, AttributeError, OSError, ValueError):  # psutil cannot tell here
        return True
    return battery is None or battery.power_plugged is not False  # None: unknown
