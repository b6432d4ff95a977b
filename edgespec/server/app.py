"""The application: what is asked for where. It knows HTTP and leaves all else to others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgespec.server import body, chat, completions, embeddings, fields, page, responses, tokens
from edgespec.server.asked import Served
from edgespec.server.choices import Opened
from edgespec.server.guard import Guard, refused
from edgespec.server.house import House
from edgespec.server.limits import Access, Limits
from edgespec.server.listing import listed, row_of
from edgespec.server.metrics import KIND, Metrics
from edgespec.server.refusal import Left, Refusal, refusal_of
from edgespec.server.wording import worded
from edgespec.server.work import Bench, Work

Endpoint = Callable[[Request], Awaitable[Response]]
WholeOf = Callable[[Served, Mapping[str, Any], Work], Any]
PartsOf = Callable[[Served, Mapping[str, Any], Work], Iterator[Any]]
log = logging.getLogger("edgespec")


def application(
    house: House, *, limits: Limits | None = None, access: Access | None = None, n_slots: int = 1
) -> Starlette:
    """What answers requests for the models of `house`; n_slots: most answers at once of one."""
    limits, access, metrics = limits or Limits(), access or Access(), Metrics(house.first)
    bench = Bench(limits, metrics, n_slots, house.rules.most)
    given = Given(house, bench, limits, metrics)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        closing = asyncio.ensure_future(closing_idle(house)) if house.rules.idle_s else None
        yield
        if closing is not None:
            closing.cancel()
        await bench.close()

    routes = [
        *told(house, bench, metrics),
        given.post("/v1/chat/completions", fields.CHAT, chat.whole, chat.parts),
        given.post("/v1/completions", fields.COMPLETIONS, completions.whole, completions.parts),
        given.post("/v1/responses", fields.RESPONSES, responses.whole, responses.parts),
        given.post("/v1/embeddings", fields.EMBEDDINGS, embeddings.whole),
        given.post("/tokenize", fields.TOKENIZE, tokens.tokenize, waits=False),
        given.post("/detokenize", fields.DETOKENIZE, tokens.detokenize, waits=False),
        *page.ROUTES,
    ]
    shared = Middleware(
        CORSMiddleware, allow_origins=access.origins, allow_methods=("GET", "POST"),
        allow_headers=("*",),  # origins decide; OpenAI's client sends headers of its own
    )  # fmt: skip
    cors = [shared] if access.origins else []
    guard = Middleware(Guard, access=access, metrics=metrics)
    app = Starlette(
        routes=routes, middleware=[*cors, guard], lifespan=lifespan,
        exception_handlers={HTTPException: no_such_place, Left: nobody, Exception: fault},
    )  # fmt: skip
    app.state.bench = bench
    return app


def told(house: House, bench: Bench, metrics: Metrics) -> list[Route]:
    """What is only looked at."""

    async def health(_: Request) -> Response:
        if bench.is_closing:
            return JSONResponse({"status": "closing"}, 503)
        n_running, n_waiting = bench.counts()
        return JSONResponse({"status": "ok", "running": n_running, "waiting": n_waiting})

    async def numbers(_: Request) -> Response:
        return Response(metrics.text(), headers={"Content-Type": KIND})

    async def models(_: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(listed, house))

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(await asyncio.to_thread(row_of, house, name))

    return [
        Route("/health", health),
        Route("/metrics", numbers),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


class Given:
    """Makes endpoints that take an object."""

    def __init__(self, house: House, bench: Bench, limits: Limits, metrics: Metrics) -> None:
        self._house, self._bench, self._limits, self._metrics = house, bench, limits, metrics

    def post(
        self, path: str, known: Mapping[str, fields.Check], whole: WholeOf,
        parts: PartsOf | None = None, *, waits: bool = True,
    ) -> Route:  # fmt: skip
        """An endpoint; parts: what it streams, where it can. waits: for its turn with the model."""

        async def endpoint(request: Request) -> Response:
            try:
                given = await body.read(request, self._limits)
                asked = fields.checked(given, known)
                model = self._house.named(asked.get("model", ""))
                if waits:
                    self._bench.check_room(model, self._n_slots(model))

                def job(work: Work) -> Any:
                    with self._served(asked, work) as served, worded(asked, known):
                        return whole(served, asked, work)

                def stream(work: Work) -> Iterator[Any]:
                    assert parts is not None
                    with self._served(asked, work) as served, worded(asked, known):
                        yield from parts(served, asked, work)

                if parts is not None and asked.get("stream"):
                    return await self._bench.stream(request, model, stream)
                found = await self._bench.whole(request, model, job)
                return await asyncio.to_thread(JSONResponse, found)
            except Left:
                return Response(status_code=499)
            except Refusal as refusal:
                return refused(refusal)
            except Exception as error:
                return refused(refusal_of(error))

        return Route(path, endpoint, methods=["POST"])

    def _n_slots(self, model: str) -> int:
        """Answers at once of a model; of one that is not open, one."""
        resident = self._house.open().get(model)
        opened = None if resident is None else cast("Opened | None", resident.opened)
        return 1 if opened is None else opened.n_slots

    @contextmanager
    def _served(self, asked: Mapping[str, Any], work: Work) -> Iterator[Served]:
        """The model that a request names, loaded if need be. Raises: as House.using."""
        with self._house.using(asked.get("model", ""), lambda: work.is_wanted) as resident:
            self._metrics.know(resident.name)
            with work.preparing():
                yield Served(cast(Opened, resident.opened), resident.name, self._limits)


async def closing_idle(house: House) -> None:
    """Looks now and then for models that nobody uses."""
    while True:
        await asyncio.sleep(min(max(house.rules.idle_s / 10, 0.1), 30.0))
        try:
            await asyncio.to_thread(house.close_idle)
        except Exception as error:
            log.error("closing an idle model: %s", error, exc_info=error)


async def no_such_place(request: Request, error: Exception) -> Response:
    """A path or a method that is not known."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    seen = f"{request.method} {request.url.path[:100]}"
    what = "another method" if status == 405 else "one of the paths that README.md lists"
    return refused(Refusal(status, f"{seen} is not known here: expected {what}", headers=headers))


async def nobody(_: Request, __: Exception) -> Response:
    """The client has left: this is not read."""
    return Response(status_code=499)


async def fault(_: Request, error: Exception) -> Response:
    """What failed unforeseen."""
    return refused(refusal_of(error))
