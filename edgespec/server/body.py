"""A request's body: read within limits of size and time, and parsed as an object of plain JSON."""

from __future__ import annotations

import asyncio
import json
from math import isinf
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from edgespec.server.limits import Limits
from edgespec.server.refusal import Left, Refusal

MOST_DEPTH = 64  # of lists and objects within each other
FAR_TOO_LARGE = 16  # times the limit


async def read(request: Request, limits: Limits) -> dict[str, Any]:
    """The body's object. Raises: Refusal, Left."""
    try:
        return parsed(await asyncio.wait_for(whole(request, limits.body_bytes), limits.read_s))
    except asyncio.TimeoutError:
        raise Refusal(
            408, f"the body did not come within {limits.read_s:g} s: expected it whole",
            code="request_timeout", headers={"Connection": "close"},
        ) from None  # fmt: skip


async def whole(request: Request, most: int) -> bytes:
    """The bytes of the body. Raises: Refusal for more than `most`, Left.

    What is somewhat too large is read to its end, as a client that is still sending would not see
    the answer.
    """
    declared = request.headers.get("content-length", "")
    n_declared = int(declared) if declared.isascii() and declared.isdigit() else 0
    parts: list[bytes] = []
    n = 0
    try:
        async for part in request.stream():
            n += len(part)
            if max(n, n_declared) > most * FAR_TOO_LARGE:
                raise too_large(max(n, n_declared), most)
            if n <= most:
                parts.append(part)
    except ClientDisconnect:
        raise Left from None
    if n > most:
        raise too_large(n, most)
    return b"".join(parts)


def too_large(n: int, most: int) -> Refusal:
    """For a body of `n` bytes or more. The connection is closed, so that no more is read."""
    return Refusal(
        413, f"the body has {n} bytes or more: expected at most {most}", code="request_too_large",
        headers={"Connection": "close"},
    )  # fmt: skip


def parsed(body: bytes) -> dict[str, Any]:
    """An object of plain JSON: finite numbers, no halves of characters. Raises: Refusal."""
    try:
        text = body.decode("utf-8")
        found = json.loads(text, parse_constant=no_constant, parse_float=finite)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    except UnicodeError as error:
        raise Refusal(400, f"the body is not UTF-8 ({error}): expected JSON") from None
    except RecursionError:
        raise Refusal(400, f"the body is nested too deep: expected {MOST_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON ({error}): expected an object") from None
    except ValueError:  # Python reads no whole number of more than 4300 digits
        raise Refusal(400, "the body has a number of thousands of digits: expected fewer") from None
    if not isinstance(found, dict):
        raise Refusal(400, f"the body is a {type(found).__name__}: expected a JSON object")
    check_depth(found)
    return found


def no_constant(name: str) -> NoReturn:
    """NaN and Infinity, which JSON does not have. Raises: Refusal."""
    raise Refusal(400, f"the body is not JSON ({name} is no number of JSON): expected an object")


def finite(text: str) -> float:
    """A number with a point or an exponent. Raises: Refusal for one that would be infinite."""
    value = float(text)
    if isinf(value):
        shown = text if len(text) <= 20 else f"{text[:17]}..."
        raise Refusal(400, f"the body has the number {shown}: expected less than 1e308 in size")
    return value


def check_depth(found: Any) -> None:
    """Raises: Refusal for what is nested too deep for whoever reads it by recursion."""
    level = [found]
    for _ in range(MOST_DEPTH):
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [value for one in inner for value in one if isinstance(value, (dict, list))]
        if not level:
            return
    raise Refusal(400, f"the body is nested too deep: expected {MOST_DEPTH} levels at most")
