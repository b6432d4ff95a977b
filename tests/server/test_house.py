"""Which models are open, told with models that are none and a clock and memory of the test's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from edgespec.errors import BusyError, Cancelled, ModelFileError
from edgespec.server.house import Closing, House, Rules
from edgespec.server.refusal import Refusal
from edgespec.types import Progress


@dataclass
class Model:
    """What a choice opens. closed: how often it was closed."""

    memory: Memory
    size: int
    closed: int = 0

    def close(self) -> None:
        self.closed += 1
        self.memory.free += self.size


@dataclass
class Memory:
    free: int = 100


@dataclass
class Named:
    """A model of 40 bytes. go: what opening waits for."""

    name: str
    memory: Memory
    size: int = 40
    missing: str = ""
    is_kept: bool = False
    go: threading.Event = field(default_factory=threading.Event)
    made: list[Model] = field(default_factory=list)
    error: Exception | None = None
    told: list[Progress] = field(default_factory=list)

    def needed_bytes(self) -> int | None:
        return self.size

    def open(self, progress: Progress) -> Closing:
        while not self.go.wait(0.01):
            progress(self.name, 0.5)
        if self.error is not None:
            raise self.error
        self.memory.free -= self.size
        self.made.append(Model(self.memory, self.size))
        return self.made[-1]


class World:
    """A house with the model `one` open, and `two`, `three` and `absent` to be asked for."""

    def __init__(self, **rules: float) -> None:
        self.now, self.memory = 0.0, Memory()
        self.choices = {name: Named(name, self.memory) for name in ("one", "two", "three")}
        self.choices["absent"] = Named("absent", self.memory, missing="has to be fetched first")
        for one in self.choices.values():
            one.go.set()
        self.choices["one"].is_kept = True
        first = self.choices["one"].open(lambda *_: None)
        self.house = House(
            self.choices["one"], first, lambda: self.choices, Rules(**rules),  # type: ignore[arg-type]
            free=lambda: self.memory.free, clock=lambda: self.now,
            n_bytes=self.choices["one"].size,
        )  # fmt: skip

    def ask(self, name: str, wanted: Callable[[], bool] = lambda: True) -> Closing | None:
        with self.house.using(name, wanted) as resident:
            return resident.opened

    def n_closed(self, name: str) -> int:
        return sum(one.closed for one in self.choices[name].made)


@pytest.fixture
def world() -> Iterator[World]:
    made = World(idle_s=60.0)
    yield made
    made.house.close()


def test_a_model_is_loaded_when_it_is_asked_for_and_no_second_time(world: World) -> None:
    assert world.ask("") is world.ask("default") is world.ask("one")
    assert world.ask("two") is world.ask("two")
    assert len(world.choices["two"].made) == 1 and set(world.house.open()) == {"one", "two"}


def test_who_asks_for_a_model_that_is_loading_waits_for_it(world: World) -> None:
    two = world.choices["two"]
    two.go.clear()
    with ThreadPoolExecutor(5) as pool:
        found = [pool.submit(world.ask, "two") for _ in range(5)]
        assert world.ask("one") is not None  # meanwhile others are served
        time.sleep(0.05)
        assert not any(one.done() for one in found)
        two.go.set()
        assert {id(one.result(5)) for one in found} == {id(two.made[0])}


def test_names_that_are_not_known_or_not_here_are_refused(world: World) -> None:
    for name, expected in (("four", "'one', 'two', 'three', or"), ("absent", "fetched first")):
        with pytest.raises(Refusal, match=expected) as caught:
            world.ask(name)
        assert (caught.value.status, caught.value.body()["error"]["code"]) == (
            404, "model_not_found"
        )  # fmt: skip
    assert set(world.house.open()) == {"one"}


def test_an_idle_model_makes_room_and_the_longest_idle_goes_first(world: World) -> None:
    for name in ("two", "one", "three"):
        world.now += 1
        world.ask(name)
    assert set(world.house.open()) == {"one", "three"} and world.n_closed("two") == 1
    world.now += 1
    world.ask("two")
    assert set(world.house.open()) == {"three", "two"} and world.n_closed("one") == 1


def test_a_model_in_use_is_never_closed(world: World) -> None:
    with world.house.using("one", lambda: True), world.house.using("two", lambda: True):
        world.now += 1000
        world.house.close_idle()
        with pytest.raises(Refusal, match="three takes 40.* free beside one, two") as caught:
            world.ask("three")
        assert caught.value.status == 503 and caught.value.headers["Retry-After"]
        world.choices["three"].size = 101  # more than is free when all are closed
        with pytest.raises(Refusal, match="expected a smaller model") as caught:
            world.ask("three")
        assert caught.value.status == 400
    assert set(world.house.open()) == {"one", "two"}
    world.choices["three"].size = 200
    with pytest.raises(Refusal, match="expected a smaller model") as caught:
        world.ask("three")
    assert caught.value.status == 400
    assert set(world.house.open()) == {"one", "two"}  # nothing was closed in vain


def test_what_is_needed_is_asked_anew_once_something_was_closed(world: World) -> None:
    world.ask("two")
    three = world.choices["three"]
    three.needed_bytes = lambda: min(world.memory.free + 15, 70)  # type: ignore[method-assign]
    three.size = 60
    assert world.ask("three") is not None
    assert world.house.open()["three"].n_bytes == 70 and world.n_closed("one") == 1


def test_no_more_are_open_than_the_rules_say() -> None:
    world = World(most=1)
    world.memory.free = 1000
    with world.house.using("one", lambda: True), pytest.raises(Refusal, match="1 models are open"):
        world.ask("two")
    world.ask("two")
    assert set(world.house.open()) == {"two"}
    world.house.close()


def test_an_idle_model_is_closed_after_its_time_and_the_first_stays(world: World) -> None:
    world.ask("two")
    world.now = 59
    world.house.close_idle()
    assert set(world.house.open()) == {"one", "two"}
    world.now = 61
    world.house.close_idle()
    assert set(world.house.open()) == {"one"} and world.n_closed("two") == 1
    assert world.ask("two") is not None
    world.house._residents["one"].is_kept = False
    world.now = 200
    world.house.close_idle()
    assert world.house.open() == {} and world.ask("") is not None


def test_a_model_that_cannot_be_loaded_is_told_to_all_and_tried_again(world: World) -> None:
    two = world.choices["two"]
    two.error = ModelFileError("two.gguf is truncated: fetch it again")
    with pytest.raises(Refusal, match="two cannot be loaded: two.gguf is truncated") as caught:
        world.ask("two")
    assert caught.value.status == 503
    two.error = None
    assert world.ask("two") is not None


def test_who_leaves_waits_no_longer_and_the_others_do(world: World) -> None:
    two = world.choices["two"]
    two.go.clear()
    with ThreadPoolExecutor(2) as pool:
        staying = pool.submit(world.ask, "two")
        with pytest.raises(Cancelled):
            world.ask("two", lambda: False)
        two.go.set()
        assert staying.result(5) is two.made[0]


def test_no_more_wait_for_a_model_than_may() -> None:
    world = World(queue=1)
    two = world.choices["two"]
    two.go.clear()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(world.ask, "two") for _ in range(2)]
        while world.house._n_waiting < 2:
            time.sleep(0.005)
        with pytest.raises(BusyError, match="2 requests wait for models"):
            world.ask("two")
        two.go.set()
        assert all(one.result(5) for one in found)
    world.house.close()


def test_closing_ends_what_is_loaded_and_refuses_who_waits(world: World) -> None:
    two = world.choices["two"]
    two.go.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(world.ask, "two")
        while "two" not in world.house._residents:
            time.sleep(0.005)
        world.house.close()
        assert isinstance(waiting.exception(5), Cancelled)
    assert world.house.open() == {} and world.n_closed("one") == 1 and not two.made
    with pytest.raises(Refusal, match="is closing"):
        world.ask("three")
