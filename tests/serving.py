"""Ways to talk to a server in tests."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ASK = [{"role": "user", "content": "Tell me a story about a little fox."}]
# One answer at a time, so that what waits is known.
OPTIONS: dict[str, Any] = {"speculative": "on", "draft_tokens": 2, "threads": 1, "max_tokens": 24}
OPTIONS["parallel"] = 1


@dataclass(frozen=True)
class Answered:
    """A response: its status, headers, bytes, and what they say if that is JSON."""

    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.data)

    @property
    def error(self) -> dict[str, Any]:
        """The error, which has OpenAI's four keys."""
        found = self.body["error"]
        assert set(found) == {"message", "type", "param", "code"}
        assert "Traceback" not in found["message"] and "\n" not in found["message"]
        return dict(found)

    def events(self) -> list[str]:
        """What server-sent events say, comments left out."""
        parts = self.data.decode().split("\n\n")
        lines = [line for part in parts for line in part.splitlines() if line.startswith("data: ")]
        return [line.removeprefix("data: ") for line in lines]


Call = Callable[..., Answered]


def call(url: str, path: str, body: Any = None, method: str = "", **headers: str) -> Answered:
    """One request on a connection of its own; a body that is no bytes is sent as JSON."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, data, named)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, found, response.read())
    finally:
        connection.close()
