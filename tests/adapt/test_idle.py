"""Work in idle time waits for quiet, stops for a request, and knows when nothing is left."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from edgespec.adapt.idle import Idle, on_mains


def until(true, limit_s: float = 5.0) -> bool:
    end = time.monotonic() + limit_s
    while not true() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(true())


def test_work_goes_on_until_nothing_is_left():
    left = [1] * 5
    idle = Idle(lambda: bool(left.pop()) and bool(left), wait_s=0.0)
    idle.begin()
    idle.wait(5)
    assert not left
    idle.stop()


def test_a_request_stops_it_and_waits_for_the_piece_that_is_running():
    running, go = threading.Event(), threading.Event()
    done = []

    def work() -> bool:
        running.set()
        go.wait(5)
        done.append(1)
        return True

    idle = Idle(work, wait_s=0.0)
    idle.begin()
    assert running.wait(5)
    threading.Timer(0.05, go.set).start()
    idle.stop()
    n = len(done)
    assert n >= 1
    time.sleep(0.03)
    assert len(done) == n


def test_requests_in_quick_succession_leave_no_idle_time():
    done = []
    idle = Idle(lambda: bool(done.append(1)), wait_s=5.0)
    for _ in range(20):
        idle.begin()
        idle.stop()
    assert done == []


def test_nothing_is_done_without_power():
    done = []
    idle = Idle(lambda: bool(done.append(1)), wait_s=0.0, may=lambda: False)
    idle.begin()
    time.sleep(0.03)
    idle.stop()
    assert done == []


def test_what_fails_is_said_in_a_line_and_is_not_tried_again(caplog):
    tried = []
    idle = Idle(lambda: tried.append(1) or 1 / 0, wait_s=0.0)
    for _ in range(3):
        idle.begin()
        idle.wait(5)
        idle.stop()
    assert tried == [1] and idle.is_off
    (line,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert line.exc_info is None
    assert line.getMessage().endswith("that has failed (ZeroDivisionError: division by zero)")


def test_an_interrupt_is_no_failure():
    idle = Idle(lambda: False)
    with pytest.raises(KeyboardInterrupt):
        idle.at_once(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not idle.is_off


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_where_nothing_is_known_of_batteries_learning_goes_on(error, monkeypatch):
    psutil = pytest.importorskip("psutil")

    def refused():
        raise error

    monkeypatch.setattr(psutil, "sensors_battery", refused)
    assert on_mains()


@pytest.mark.parametrize(
    ("battery", "mains"),
    [(None, True), (SimpleNamespace(power_plugged=False), False),
     (SimpleNamespace(power_plugged=True), True), (SimpleNamespace(power_plugged=None), True)],
)  # fmt: skip
def test_a_battery_that_is_not_charged_is_spared(battery, mains: bool, monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery)
    assert on_mains() == mains
