"""Why a request is not answered, in OpenAI's shape, with the status it is told by."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from edgespec.errors import (
    BusyError,
    Cancelled,
    ContextError,
    EdgeSpecError,
    TokenizerError,
    UsageError,
)

log = logging.getLogger("edgespec")

INVALID = "invalid_request_error"
FAULT = "something failed here while the request was answered; the server's log says what"
NOTHING: Mapping[str, str] = {}
MOST_NAMED = 8  # models in a message


class Refusal(Exception):
    """A request that is not answered. param: the field that is wrong. code: for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = NOTHING,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers
        self._kind, self._param, self._code = kind, param, code

    def body(self) -> dict[str, Any]:
        """What the client reads."""
        error = {"message": self.message, "type": self._kind}
        return {"error": {**error, "param": self._param, "code": self._code}}


class Left(Exception):
    """The client is gone: nobody reads an answer."""


def refusal_of(error: BaseException) -> Refusal:
    """Any error as one that may be told; a fault is logged, and told without its trace."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ContextError):
        return Refusal(400, line(error), code="context_length_exceeded")
    if isinstance(error, (UsageError, TokenizerError)):
        return Refusal(400, line(error))
    if isinstance(error, BusyError):
        headers = {"Retry-After": "1"}
        code = "rate_limit_exceeded"
        return Refusal(429, line(error), kind="requests", code=code, headers=headers)
    if isinstance(error, Cancelled):
        return Refusal(503, line(error), kind="server_error", code="cancelled")
    log.error("a request failed: %s", error, exc_info=error)
    text = line(error) if isinstance(error, EdgeSpecError) else FAULT
    return Refusal(500, text, kind="server_error", code="internal_error")


def no_model(name: str, here: Sequence[str], missing: str = "") -> Refusal:
    """A model that is not served. here: names of those that are; missing: what it lacks."""
    if missing:
        text = f"the model {name[:100]!r} {missing}"
    else:
        more = ", ..." if len(here) > MOST_NAMED else ""
        names = ", ".join(map(repr, here[:MOST_NAMED])) + more
        text = f"the model {name[:100]!r} is not served here: expected {names}, or 'default'"
    return Refusal(404, text, param="model", code="model_not_found")


def closing() -> Refusal:
    """A server that is about to end."""
    text = "the server is closing: ask another, or this one when it is back"
    return Refusal(503, text, kind="server_error", code="closing", headers={"Retry-After": "5"})


def line(error: BaseException) -> str:
    """What it says, in one line."""
    return " ".join(str(error).split())
