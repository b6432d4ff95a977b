"""One request's generations on a thread, and the way from there to a socket.

Whoever leaves, or takes too long, ends them within a round. A slow reader holds nobody up: what is
said waits for it, at most as much as its answer may be long.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgespec.config import Config
from edgespec.errors import BusyError
from edgespec.option import Options
from edgespec.server.limits import Limits
from edgespec.server.metrics import Metrics
from edgespec.server.refusal import Left, Refusal, closing, refusal_of
from edgespec.session.completion import Begun
from edgespec.session.many.many import Answers

Found = TypeVar("Found")
# Requests whose prompts are read at a time: more would only wait for Python's lock, 5 ms for each,
# and with them whoever listens to sockets.
PREPARING = 2
MORE = 4  # threads beside those of requests that are answered or wait
PING_S = 15.0  # of silence, after which a comment shows that the answer is still to come
GONE, LATE, CLOSING = "the client left", "it takes too long", "the server closes"


class Work:
    """What is generated for one request. why: it was ended early, "" if it was not.

    model: the name of the one that is used. computes: a turn with it has come, for what is no
    generation.
    """

    def __init__(self, metrics: Metrics, model: str, gate: threading.Semaphore) -> None:
        """gate: lets some prepare at a time."""
        self._metrics, self.model = metrics, model
        self._gate, self._is_inside = gate, False
        self.begun: list[Begun] = []
        self.why, self.computes = "", False
        self._lock = threading.Lock()

    def begin(
        self, answering: Answers, ids: Sequence[int], config: Config, options: Options
    ) -> Begun:
        """As Answers.begin."""
        self.prepared()
        begun = answering.begin(ids, config, options)
        with self._lock:
            self.begun.append(begun)
            if self.why:
                begun.pieces.close()
        return begun

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Waits for its turn to read what is asked; within it until `prepared`."""
        self._gate.acquire()
        self._is_inside = True
        try:
            yield
        finally:
            self.prepared()

    def prepared(self) -> None:
        """What follows is no matter of Python's: let another prepare."""
        was_inside, self._is_inside = self._is_inside, False
        if was_inside:
            self._gate.release()

    def leave(self, why: str) -> None:
        """End what is generated, and what would be; from any thread."""
        with self._lock:
            self.why = self.why or why
            for begun in self.begun:
                begun.pieces.close()

    def over(self) -> None:
        """It is answered: count it."""
        self.leave("it is over")
        for begun in self.begun:
            self._metrics.observe(self.model, begun.counted(), begun.result.finish)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self.why

    @property
    def is_running(self) -> bool:
        """Whether a first token has come, or vectors are computed."""
        return self.computes or any(begun.counted().n_tokens for begun in list(self.begun))


Whole = Callable[[Work], Found]
Parts = Callable[[Work], Iterator[Mapping[str, Any] | str]]
"""Gives what is sent as it comes: an object, or a text that is sent as it is."""


class Bench:
    """Where requests are worked on: threads, as many as may wait or be answered at once."""

    def __init__(self, limits: Limits, metrics: Metrics, n_slots: int, n_models: int = 1) -> None:
        """n_slots: answers at once of one model at most, n_models: that may be open at once."""
        self.limits, self._metrics = limits, metrics
        # A few more than may wait or be answered, so that whoever is too many is refused at once.
        n = (limits.queue + n_slots) * n_models + MORE
        self._threads = ThreadPoolExecutor(n, thread_name_prefix="edgespec-answer")
        self._live: set[Work] = set()
        self._gate = threading.Semaphore(PREPARING)
        self.is_closing = False
        metrics.watch(self.counts)

    def counts(self, model: str = "") -> tuple[int, int]:
        """Requests that are answered, and those that wait; model: of this one alone."""
        live = [one for one in list(self._live) if model in ("", one.model)]
        n_running = sum(work.is_running for work in live)
        return n_running, len(live) - n_running

    def check_room(self, model: str, n_slots: int) -> None:
        """Refuse whoever is too many now, before a thread reads a prompt that has no room.

        n_slots: answers at once of that model. Raises: BusyError.
        """
        n, most = sum(one.model == model for one in list(self._live)), self.limits.queue + n_slots
        if n >= most:
            raise BusyError(
                f"{n} requests are answered or wait: expected at most {most}; ask again later"
            )

    async def whole(self, request: Request, model: str, job: Whole[Found]) -> Found:
        """What `job` gives, on a thread; model: it is for. Raises: Refusal, Left, as `job`."""
        work = self._work(model)
        done = self._run(work, lambda: job(work))
        gone = asyncio.ensure_future(disconnected(request))
        try:
            await first_of(done, gone, self.limits.answer_s)
            if done.done():
                return done.result()
            work.leave(GONE if gone.done() else LATE)
            if gone.done():
                raise Left
            raise late(self.limits)
        except Exception as error:
            raise self._told(work, error) from error
        finally:
            gone.cancel()

    async def stream(self, request: Request, model: str, job: Parts) -> Response:
        """What `job` gives as server-sent events; refused if it fails before the first of them."""
        work, loop = self._work(model), asyncio.get_running_loop()
        parts: asyncio.Queue[Part] = asyncio.Queue()

        def put(part: Part) -> None:
            loop.call_soon_threadsafe(parts.put_nowait, part)

        def give() -> None:
            try:
                for part in job(work):
                    put(event(part))
                put(None)
            except BaseException as error:
                put(error)

        self._run(work, give)
        late_at = loop.call_later(self.limits.answer_s, work.leave, LATE)
        gone = asyncio.ensure_future(disconnected(request))
        first = asyncio.ensure_future(parts.get())
        await first_of(first, gone)
        if first.done() and not isinstance(first.result(), BaseException):
            return Events(first.result(), parts, self, work, gone, late_at)
        gone.cancel()
        late_at.cancel()
        if not first.done():
            work.leave(GONE)
            first.cancel()
            raise Left
        raise self._told(work, cast(Exception, first.result()))

    def _work(self, model: str) -> Work:
        if self.is_closing:
            raise closing()
        work = Work(self._metrics, model, self._gate)
        self._live.add(work)
        return work

    def _run(self, work: Work, job: Callable[[], Found]) -> asyncio.Future[Found]:
        def run() -> Found:
            try:
                return job()
            finally:
                self._live.discard(work)
                work.over()

        done = asyncio.get_running_loop().run_in_executor(self._threads, run)
        done.add_done_callback(lambda one: one.cancelled() or one.exception())  # perhaps unread
        return done

    def _told(self, work: Work, error: Exception) -> Exception:
        """The error as what the client is told."""
        if isinstance(error, Left) or work.why == GONE:
            return Left()
        if work.why == LATE:
            return late(self.limits)
        return closing() if work.why == CLOSING else refusal_of(error)

    async def close(self) -> None:
        """Take no more; let what is in progress end for a while, then end it."""
        self.is_closing = True
        until = asyncio.get_running_loop().time() + self.limits.close_s
        while self._live and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)
        for work in list(self._live):
            work.leave(CLOSING)
        self._threads.shutdown(wait=False, cancel_futures=True)


Part = bytes | BaseException | None
"""What is sent, why there is no more, or that all was sent."""


class Events(Response):
    """Server-sent events, until the last one or until the reader leaves."""

    media_type = "text/event-stream"

    def __init__(
        self, first: Part, parts: asyncio.Queue[Part], bench: Bench, work: Work,
        gone: asyncio.Future[None], late_at: asyncio.TimerHandle,
    ) -> None:  # fmt: skip
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers, media_type=self.media_type)
        del self.headers["content-length"]
        self._first, self._parts, self._bench, self._work = first, parts, bench, work
        self._gone, self._late_at = gone, late_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: dict[str, Any]) -> None:
            await asyncio.wait_for(send(message), self._bench.limits.read_s)

        try:
            head = {"type": "http.response.start", "status": self.status_code}
            await sent({**head, "headers": self.raw_headers})
            part = self._first
            while not self._gone.done():
                body = self._body(part)
                more = isinstance(part, bytes)
                await sent({"type": "http.response.body", "body": body, "more_body": more})
                if not more:
                    return
                part = await self._next()
        except (asyncio.TimeoutError, OSError):
            return  # it does not read: the connection is dropped
        finally:
            self._late_at.cancel()
            self._gone.cancel()
            self._work.leave(GONE)

    async def _next(self) -> Part:
        """What has come by now, joined, or a comment if nothing does."""
        found = [await self._waited() if self._parts.empty() else self._parts.get_nowait()]
        while isinstance(found[-1], bytes) and not self._parts.empty():
            found.append(self._parts.get_nowait())
        if len(found) > 1 and not isinstance(found[-1], bytes):
            self._parts.put_nowait(found.pop())  # the end, after which nothing comes
        texts = [part for part in found if isinstance(part, bytes)]
        return b"".join(texts) if texts else found[0]

    async def _waited(self) -> Part:
        found = asyncio.ensure_future(self._parts.get())
        await first_of(found, self._gone, PING_S)
        if not found.done():
            found.cancel()
            return b": still at it\n\n"
        return found.result()

    def _body(self, part: Part) -> bytes:
        if isinstance(part, BaseException):
            told = self._bench._told(self._work, cast(Exception, part))
            return event(told.body()) if isinstance(told, Refusal) else b""
        return part or b""


def event(part: Mapping[str, Any] | str) -> bytes:
    """One server-sent event."""
    if isinstance(part, str):
        return part.encode("utf-8", "replace")
    text = json.dumps(part, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"data: {text}\n\n".encode("utf-8", "replace")


async def first_of(
    one: asyncio.Future[Any], other: asyncio.Future[Any], timeout_s: float | None = None
) -> None:
    """Returns once either is done, or after a while."""
    await asyncio.wait({one, other}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


async def disconnected(request: Request) -> None:
    """Returns once the client has left; after its body was read nothing else comes."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


def late(limits: Limits) -> Refusal:
    """An answer that did not end in time."""
    text = f"the answer took over {limits.answer_s:g} s: expected a shorter one; lower max_tokens"
    return Refusal(503, text, kind="server_error", code="timeout")
