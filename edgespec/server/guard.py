"""Who gets through: keys, hosts and origins, checked before a request is read.

A page of another site that a browser here shows may send requests to this machine, too. So a
request with an Origin that is neither the server's own nor allowed is refused, and so is, where
there is no key, one whose Host is a name that someone else's DNS could have led here.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgespec.server.limits import Access, is_loopback
from edgespec.server.metrics import Metrics
from edgespec.server.refusal import Refusal, refusal_of

OPEN = ("/health", "/", "/page.css", "/page.js", "/favicon.ico")  # they tell no secret
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Around the application: refuses, adds headers, counts, and never lets a trace out."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app, self._access, self._metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._metrics.responded(message["status"])
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, sent)
        except Exception as error:
            refusal = refusal_of(error)
            if not begun:
                await refused(refusal)(scope, receive, sent)

    def _check(self, scope: Scope) -> None:
        """Raises: Refusal."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        if origin and not self._knows(origin, host):
            raise Refusal(
                403, f"the origin {origin[:100]!r} is not let in: expected the server's own page; "
                "start the server with --cors ORIGIN to let it in", code="origin_refused",
            )  # fmt: skip
        name = urlsplit(f"//{host}").hostname if is_plain(host) else None
        if not self._access.keys and not is_loopback(name or ""):
            raise Refusal(
                403, f"the host {host[:100]!r} is not this machine's own name: expected localhost "
                "or 127.0.0.1", code="host_refused",
            )  # fmt: skip
        if scope["path"] in OPEN:
            return
        if not self._access.admits(headers.get("authorization", "")):
            raise Refusal(
                401, "the API key is missing or wrong: expected the header "
                "'Authorization: Bearer KEY'", param=None, code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    def _knows(self, origin: str, host: str) -> bool:
        known = self._access.origins
        return "*" in known or origin in known or origin in (f"http://{host}", f"https://{host}")


def is_plain(host: str) -> bool:
    """Whether a Host header looks like one, so that taking it apart cannot fail."""
    return host.count("[") == host.count("]") <= 1 and not set(host) & set("/?#@\\ ")


def refused(refusal: Refusal) -> JSONResponse:
    """As a response."""
    return JSONResponse(refusal.body(), refusal.status, dict(refusal.headers))
