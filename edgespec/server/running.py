"""A server that runs in a thread of its own, for `edgespec serve`, tests and applications.

    import edgespec
    with edgespec.serve() as server:
        print(server.url)

Knows sockets and signals to end; what is answered is app.py's business.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import cast

import uvicorn

from edgespec.config import Config
from edgespec.device import free_memory
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.files import model_name, why
from edgespec.files import place as place_of
from edgespec.option import LoadOptions, Unpack
from edgespec.protocols import Drafter
from edgespec.server.app import application
from edgespec.server.choices import Choices, First, How, Opened, needed, opened, settled
from edgespec.server.house import IDLE_S, MOST, House, Rules
from edgespec.server.limits import Access, Limits
from edgespec.session.load import config_of
from edgespec.session.many.many import Answers
from edgespec.session.many.opening import USUAL
from edgespec.session.many.solo import Solo
from edgespec.session.session import Session
from edgespec.types import Progress

PORT = 8088
START_S = 20.0
END_S = 1.5  # for threads that are still in a round once everything was told to stop
log = logging.getLogger("edgespec")
Again = Callable[[Progress | None], Opened]
"""Opens the first model."""


@dataclass(frozen=True)
class Others:
    """Models that requests name: whether they are served, from where, and how many at once.

    alone: only the first is served. folder: of GGUF files that can be named, "" for none. most:
    open at once. idle_s: without a request, after which one is closed, the first one too; 0: never;
    None: after IDLE_S, and the first one never. n_parallel: see open_many.
    """

    alone: bool = False
    folder: str = ""
    most: int = MOST
    idle_s: float | None = None
    n_parallel: int = 0

    def check(self) -> None:
        """Raises: UsageError for a folder that is none."""
        if self.folder and not place_of(self.folder).is_dir():
            raise UsageError(f"--models-dir {self.folder}: expected a folder of GGUF files")


@dataclass(frozen=True)
class Place:
    """Where a server is reached, and by whom. name: of the model, "" for the configuration's.

    port: 0 for any that is free. others: how other models are served.
    """

    port: int = PORT
    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    name: str = ""
    others: Others = field(default_factory=lambda: Others(alone=True))


class Server:
    """A server that answers until it is closed. url: where it is reached."""

    def __init__(self, opened: Opened, place: Place, again: Again | None = None) -> None:
        """It closes `opened` when it is closed. again: opens it another time, if it can be.

        Raises: UsageError for a port that is taken.
        """
        place.access.check()
        place.others.check()
        self._socket = bound(place.access.host, place.port)
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}"
        self.name = place.name or name_of(opened.config)
        self._house = housed(opened, self.name, place, again)
        most = 0 if place.others.alone else place.others.n_parallel or USUAL
        app = application(
            self._house, limits=place.limits, access=place.access,
            n_slots=max(opened.n_slots, most),
        )  # fmt: skip
        self._bench = app.state.bench
        settings = uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None,
            access_log=False, server_header=False, timeout_keep_alive=30,
            timeout_graceful_shutdown=1, h11_max_incomplete_event_size=1 << 18,
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._close_s = place.limits.close_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="edgespec-server", daemon=True)
        self._closed = False
        self._thread.start()
        self._wait_until_started()

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    def _wait_until_started(self) -> None:
        until = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        if not self._server.started:
            self.close()
            raise UsageError(f"the server at {self.url} did not start: -v says why")

    def close(self) -> None:
        """Let what is answered end for a while, end what is left, and free the models.

        Closing twice is no error.
        """
        if self._closed:
            return
        self._closed = True
        if self._loop is not None and self._thread.is_alive():
            closed = asyncio.run_coroutine_threadsafe(self._bench.close(), self._loop)
            try:
                closed.result(self._close_s + END_S)
            except Exception as error:  # it ends all the same
                log.warning("closing the server: %r", error)
        self._server.should_exit = True
        self._thread.join(END_S)
        self._server.force_exit = True
        self._thread.join(END_S)
        self._socket.close()
        self._house.close()

    @property
    def answering(self) -> Answers:
        """What answers for the first model, while it is open. Raises: KeyError."""
        return cast(Answers, self._house.open()[self.name].opened)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def serve(
    model: str | Path | None = None,
    draft_model: str | Path | None = None,
    *,
    drafter: str | Drafter = "auto",
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str = "",
    cors: tuple[str, ...] = (),
    name: str = "",
    limits: Limits | None = None,
    parallel: int = 0,
    others: Others | None = None,
    **keywords: Unpack[LoadOptions],
) -> Server:
    """A server in a thread of its own; close it, or use it as a context manager.

    model, draft_model, drafter and keywords: as for `edgespec.load`; a drafter of yours serves one
    request at a time. host, port: where it is reached; 0 for any port that is free. api_key: what
    who asks has to know; needed where `host` is not this machine alone. cors: origins whose pages
    may ask. name: of the model in requests. parallel: answers at once, 0: as memory allows.
    others: how models that requests name are served; none are, unless told.
    Raises: as `edgespec.load`; UsageError for a port that is taken.
    """
    access = Access(host, (api_key,) if api_key else (), tuple(cors))
    access.check()
    others = replace(others or Others(alone=True), n_parallel=parallel)
    place = Place(port, access, limits or Limits(), name, others)
    config, n_queue = config_of(model, draft_model, drafter, keywords), place.limits.queue
    if isinstance(drafter, str):
        return over(config, place)
    return started(
        place, lambda _: settled(Solo(Session(config, drafter=drafter), n_queue=n_queue))
    )


def over(config: Config, place: Place, progress: Progress | None = None) -> Server:
    """A server of the configured model. Raises: as `edgespec.load`, UsageError."""
    how = How(place.others.n_parallel, place.limits.queue)
    here = replace(config, offline=True)  # nothing is downloaded for a request
    return started(
        place, lambda told: opened(config, how, told), progress,
        again=lambda told: opened(here, how, told),
    )  # fmt: skip


def started(
    place: Place, open_: Again, progress: Progress | None = None, again: Again | None = None
) -> Server:
    """A server of what is opened so, which it closes, also if it cannot start.

    again: opens it another time, if that is done in another way.
    """
    first = open_(progress)
    try:
        return Server(first, place, again or open_)
    except BaseException:
        first.close()
        raise


def housed(first: Opened, name: str, place: Place, again: Again | None) -> House:
    """The house of a server that began with this model."""
    others, queue = place.others, place.limits.queue
    kept = others.idle_s is None or again is None
    one = First(name, first.config, again or not_again, others.n_parallel, is_kept=kept)
    folder = str(place_of(others.folder)) if others.folder else ""
    choices = Choices(one, How(others.n_parallel, queue), others=not others.alone, folder=folder)
    rules = Rules(others.most, IDLE_S if others.idle_s is None else others.idle_s, queue)
    n_bytes = 0 if others.alone else taken(first)
    return House(one, first, choices, rules, free=free_memory, n_bytes=n_bytes)


def taken(opened: Opened) -> int:
    """Bytes of memory that an open model has, 0 if that is not known."""
    try:
        return needed(replace(opened.config, offline=True), opened.n_slots) or 0
    except EdgeSpecError as error:  # its files are gone
        log.info("how much memory the first model has is not known: %s", error)
        return 0


def not_again(_: Progress | None) -> Opened:
    """For a model that somebody else opened. Raises: UsageError."""
    raise UsageError("the model was closed by who opened it: start the server again")


def name_of(config: Config) -> str:
    """What the configured model is called in requests."""
    if config.model:
        return model_name(config.model)
    return config.hf_repo or config.pair


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises: UsageError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        seen = why(error) if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"{host} port {port}: {seen}: expected an address of this machine and a free port; "
            "choose another with --host and --port"
        ) from error
