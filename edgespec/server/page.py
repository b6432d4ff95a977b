"""The page at /: three files of the package, and a policy that lets nothing else in."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
KINDS = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}


async def file(request: Request) -> Response:
    """One of the three, by its path."""
    name = request.url.path.removeprefix("/") or "page.html"
    data = (files("edgespec.server") / "page_files" / name).read_bytes()
    return Response(data, headers={**HEADERS, "Content-Type": KINDS[name]})


async def no_icon(_: Request) -> Response:
    """Browsers ask for one."""
    return Response(status_code=204)


ROUTES = [
    Route("/", file),
    Route("/page.css", file),
    Route("/page.js", file),
    Route("/favicon.ico", no_icon),
]
