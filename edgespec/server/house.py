"""Which models are open: loaded when somebody asks for them, closed when nobody does for long.

One is loaded at a time, after its memory was foreseen; whoever asks meanwhile waits. One that is in
use is never closed. Knows nothing of how models are opened or used.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from edgespec.errors import BusyError, Cancelled, EdgeSpecError
from edgespec.files import in_words
from edgespec.server.refusal import Refusal, closing, line, no_model
from edgespec.types import Progress

log = logging.getLogger("edgespec")
MOST = 4  # models open at once
IDLE_S = 600.0  # without a request, after which what requests loaded is closed
LOOK_S = 0.1  # how often who waits for a model looks whether it still should
END_S = 1.0  # for a model that is being loaded when the server closes
OPEN_NAMES = ("", "default")  # who asks for these takes the first model


class Closing(Protocol):
    """An open model, or whatever was made of one."""

    def close(self) -> None:
        """End what it does and free it."""
        ...


class Choice(Protocol):
    """A model that could be opened.

    missing: what has to be done before, "" if it is here. is_kept: it stays when idle.
    """

    @property
    def name(self) -> str: ...

    @property
    def missing(self) -> str: ...

    @property
    def is_kept(self) -> bool: ...

    def needed_bytes(self) -> int | None:
        """Memory that it would take, None if that cannot be told."""
        ...

    def open(self, progress: Progress) -> Closing:
        """It, open; `progress` raises what ends the loading."""
        ...


@dataclass(eq=False)
class Resident:
    """A model that is open, or about to be. opened: None before and after. n_using: requests.

    is_kept: see Choice. since: when it was opened, as Unix time; used: by the clock, when it was
    last asked for. n_bytes: of memory that closing it may free, 0 if that is not known.
    """

    name: str
    is_kept: bool
    opened: Closing | None = None
    n_using: int = 0
    since: int = field(default_factory=lambda: int(time.time()))
    used: float = 0.0
    n_bytes: int = 0
    error: BaseException | None = None
    is_leaving: bool = False

    @property
    def is_idle(self) -> bool:
        return self.opened is not None and not self.n_using and not self.is_leaving


@dataclass(frozen=True)
class Rules:
    """most: models open at once. idle_s: 0 for ever. queue: requests that wait for a model."""

    most: int = MOST
    idle_s: float = IDLE_S
    queue: int = 64


class House:
    """Models by name, used from any thread.

    first: the one that is asked for by no name, open already; n_bytes: that it took, 0 if that is
    not known. choices: all that could be opened, by name, as of now. free: bytes of memory that can
    be taken, None if that is not known.
    """

    def __init__(
        self,
        first: Choice,
        opened: Closing,
        choices: Callable[[], Mapping[str, Choice]],
        rules: Rules,
        *,
        free: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
        n_bytes: int = 0,
    ) -> None:
        self.first, self.choices, self.rules = first.name, choices, rules
        self._free, self._clock = free, clock
        self._changed = threading.Condition()
        self._loading, self._is_closed, self._n_waiting = threading.Lock(), False, 0
        one = Resident(first.name, first.is_kept, opened, used=clock(), n_bytes=n_bytes)
        self._residents = {first.name: one}

    def named(self, name: str) -> str:
        """The name of the model that is asked for by `name`."""
        return self.first if name in OPEN_NAMES else name

    def open(self) -> dict[str, Resident]:
        """Those that are open."""
        with self._changed:
            found = list(self._residents.values())
        return {one.name: one for one in found if one.opened is not None}

    @contextmanager
    def using(self, name: str, wanted: Callable[[], bool]) -> Iterator[Resident]:
        """That model, open until this is left; it is loaded now if it has to be.

        wanted: whether to go on waiting for it. Raises: Refusal, BusyError, Cancelled, and what
        opening it raises.
        """
        resident = self._taken(self.named(name), wanted)
        try:
            yield resident
        finally:
            with self._changed:
                resident.n_using -= 1
                resident.used = self._clock()
                self._changed.notify_all()

    def _taken(self, name: str, wanted: Callable[[], bool]) -> Resident:
        """It, with this request counted among those who use it."""
        choice: Choice | None = None
        while True:
            with self._changed:
                resident = self._residents.get(name)
                if resident is None and choice is not None:
                    resident = self._begin(choice)
                if resident is not None and self._is_there(resident, wanted):
                    resident.n_using += 1
                    return resident
            choice = self.choice(name)  # reads folders: outside of the lock

    def choice(self, name: str) -> Choice:
        """What is to be opened. Raises: Refusal for a name that is not known, or not here."""
        choices = self.choices()
        choice = choices.get(name)
        if choice is None or choice.missing:
            here = [one.name for one in choices.values() if not one.missing]
            raise no_model(name, here, "" if choice is None else choice.missing)
        return choice

    def _is_there(self, resident: Resident, wanted: Callable[[], bool]) -> bool:
        """Waits until it is open; False if it was closed instead. The lock is held.

        Raises: BusyError, Cancelled, Refusal, why it was not opened.
        """
        if resident.opened is not None and not resident.is_leaving:
            return True
        if self._n_waiting > self.rules.queue:
            raise BusyError(
                f"{self._n_waiting} requests wait for models to be loaded: expected at most "
                f"{self.rules.queue + 1}; ask again later"
            )
        self._n_waiting += 1
        try:
            while self._residents.get(resident.name) is resident:
                if resident.opened is not None and not resident.is_leaving:
                    return True
                if not wanted():
                    raise Cancelled(f"stopped while {resident.name} was loaded")
                self._changed.wait(LOOK_S)
        finally:
            self._n_waiting -= 1
        if resident.error is not None:
            raise resident.error
        return False

    def _begin(self, choice: Choice) -> Resident:
        """Load it in a thread of its own. The lock is held."""
        if self._is_closed:
            raise closing()
        resident = self._residents[choice.name] = Resident(choice.name, choice.is_kept)
        load = threading.Thread(
            target=self._load, args=(resident, choice), name="edgespec-load", daemon=True
        )
        load.start()
        return resident

    def _load(self, resident: Resident, choice: Choice) -> None:
        opened: Closing | None = None
        try:
            with self._loading:
                resident.n_bytes = self._with_room(choice)
                opened = choice.open(self._told)
                log.info("%s is loaded", resident.name)
        except BaseException as error:
            log.info("%s is not loaded: %s", resident.name, error)
            resident.error = of_loading(resident.name, error)
        with self._changed:
            late = opened if self._is_closed else None
            resident.opened = None if self._is_closed else opened
            resident.used = self._clock()
            if resident.opened is None:
                self._residents.pop(resident.name, None)
            self._changed.notify_all()
        if late is not None:
            late.close()

    def _told(self, _: str, __: float | None) -> None:
        """How far loading is. Raises: Cancelled when that is in vain."""
        if self._is_closed:
            raise Cancelled("the server closes")

    def _with_room(self, choice: Choice) -> int:
        """Close idle models until there is room; the bytes needed, 0 if not known.

        What is needed may depend on what is free. Raises: Refusal where there is no room.
        """
        while True:
            needed = choice.needed_bytes() or 0
            why = self._lacking(choice.name, needed)
            if why is None:
                return needed
            idle, free = self._idle(), self._free()
            if free is not None and needed > free + sum(one.n_bytes for one in idle):
                raise why  # closing them all would not do
            with self._changed:
                oldest = next((one for one in idle if one.is_idle), None)
                if oldest is None:
                    raise why
                oldest.is_leaving = True
            self._close(oldest)

    def _idle(self) -> list[Resident]:
        """Those that nobody uses, the longest unused first."""
        with self._changed:
            found = [one for one in self._residents.values() if one.is_idle]
        return sorted(found, key=lambda one: one.used)

    def _lacking(self, name: str, needed: int) -> Refusal | None:
        """Why it cannot be opened now."""
        free = self._free()
        with self._changed:
            others = [one for one in self._residents.values() if one.opened is not None]
        busy = [one.name for one in others if one.n_using]
        if free is not None and needed > free + sum(one.n_bytes for one in others):
            return too_large(name, needed, free)  # whatever is closed
        if len(others) >= self.rules.most:
            return full(f"{len(others)} models are open: expected fewer than {self.rules.most}")
        if free is None or needed <= free:
            return None
        if busy:
            return full(f"{taken(name, needed, free)} beside {', '.join(busy)}")
        return too_large(name, needed, free)

    def _close(self, resident: Resident) -> None:
        """Free it; who asks for it meanwhile waits, and has it loaded again."""
        log.info("%s is closed, as nobody uses it", resident.name)
        try:
            if resident.opened is not None:
                resident.opened.close()
        finally:
            with self._changed:
                resident.opened = None
                if self._residents.get(resident.name) is resident:
                    del self._residents[resident.name]
                self._changed.notify_all()

    def close_idle(self) -> None:
        """Close those that nobody has asked for within the time of the rules."""
        if not self.rules.idle_s:
            return
        before = self._clock() - self.rules.idle_s
        old = [one for one in self._idle() if one.used <= before and not one.is_kept]
        with self._changed:
            old = [one for one in old if one.is_idle]
            for one in old:
                one.is_leaving = True
        for one in old:
            self._close(one)

    def close(self) -> None:
        """Close all; what is being loaded is given a while to end. Closing twice is no error."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            loading = [one for one in self._residents.values() if one.opened is None]
            known = self._residents
            self._changed.wait_for(lambda: not any(known.get(o.name) is o for o in loading), END_S)
            left = [one for one in self._residents.values() if one.opened is not None]
        for one in left:
            self._close(one)


def taken(name: str, needed: int, free: int) -> str:
    """What a model takes and what there is, in words."""
    return f"{name} takes {in_words(needed)} of memory, {in_words(free)} are free"


def too_large(name: str, needed: int, free: int) -> Refusal:
    """For a model that has no room here."""
    more = "expected a smaller model; or start the server with a smaller -c"
    text = f"{taken(name, needed, free)}: {more}"
    return Refusal(400, text, param="model", code="model_too_large")


def full(why: str) -> Refusal:
    """For a model that has no room now, but may have later."""
    return Refusal(
        503, f"{why}: ask again when they are idle", kind="server_error", param="model",
        code="model_not_loaded", headers={"Retry-After": "5"},
    )  # fmt: skip


def of_loading(name: str, error: BaseException) -> BaseException:
    """What is told of a model that cannot be loaded; a fault is told as one."""
    if isinstance(error, EdgeSpecError) and not isinstance(error, Cancelled):
        text = f"{name} cannot be loaded: {line(error)}"
        return Refusal(503, text, kind="server_error", param="model", code="model_not_loaded")
    return error
