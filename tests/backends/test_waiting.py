"""How threads wait for each other: chosen once, before llama.cpp's OpenMP reads it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from model_maker import DEMO

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.llamacpp import waiting
from edgespec.device import WAITING, waited_s

LOAD = "from edgespec.backends.llamacpp.library import library; print(library().waiting)"


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that nobody told how to wait, and that has loaded nothing."""
    for name in WAITING:
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    monkeypatch.setattr(waiting, "_mapped", lambda: "7f00 /usr/lib/libgomp-a34b3233.so.1\n")
    return monkeypatch


def test_threads_do_not_spin_for_long(unasked: pytest.MonkeyPatch) -> None:
    assert waiting.settle() == "spinning for microseconds, then asleep"
    assert {name: os.environ.get(name) for name in waiting.CHOSEN} == waiting.CHOSEN


def test_what_the_application_asked_for_stays(unasked: pytest.MonkeyPatch) -> None:
    unasked.setenv("OMP_WAIT_POLICY", "active")
    assert waiting.settle() == "as OMP_WAIT_POLICY=active in the environment says"
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("loaded", ["7f00 /lib/libgomp.so.1.0.0\n", "/opt/lib/libomp.dylib"])
def test_it_is_told_when_it_is_too_late(unasked: pytest.MonkeyPatch, loaded: str) -> None:
    unasked.setattr(waiting, "_mapped", lambda: loaded)
    assert waiting.settle().startswith("spinning, since OpenMP was loaded before EdgeSpec")
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_openmp_that_llama_cpp_loads_has_read_it() -> None:
    pytest.importorskip("llama_cpp")
    told = {name: value for name, value in os.environ.items() if name not in WAITING}
    told["OMP_DISPLAY_ENV"] = "verbose"
    child = subprocess.run(
        [sys.executable, "-c", LOAD], env=told, capture_output=True, text=True, check=True
    )
    if "GOMP_SPINCOUNT" not in child.stderr:
        pytest.skip("this llama.cpp has not GNU's OpenMP")
    assert f"GOMP_SPINCOUNT = '{waiting.CHOSEN['GOMP_SPINCOUNT']}'" in child.stderr
    assert child.stdout.startswith("spinning for microseconds")


def cores_of_threads(n_threads: int) -> list[set[int]]:
    """Where each thread that reading a few tokens started may run."""
    options = ModelOptions(n_context=64, device="cpu", n_threads=n_threads)
    model = open_model(DEMO, options)
    found: list[set[int]] = []

    def read() -> None:  # in a thread of its own, which has helpers of its own
        before = set(os.listdir("/proc/self/task"))
        model.forward([1, 2, 3])
        new = set(os.listdir("/proc/self/task")) - before
        found.extend([os.sched_getaffinity(0), *(os.sched_getaffinity(int(t)) for t in new)])

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    model.close()
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux places threads")
def test_each_thread_has_a_core_of_its_own_and_the_caller_any() -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    caller, *helpers = cores_of_threads(len(cores))
    assert caller == cores
    assert [len(one) for one in helpers] == [1] * (len(cores) - 1)
    assert len(set.union(*helpers)) == len(helpers)
    assert cores_of_threads(1) == [cores]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_time_spent_waiting_for_a_core_only_grows() -> None:
    before = waited_s()
    assert 0 <= before <= waited_s()
