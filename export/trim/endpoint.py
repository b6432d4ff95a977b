"""Answers from any server that speaks OpenAI's chat protocol, through the standard library.

    server = Endpoint("http://localhost:8000", model="", n_max=256)
    server.ask([{"role": "user", "content": "Tell me a story."}], 0)

The key, where one is needed, is in the variable EDGESPEC_API_KEY; it is sent to this server alone.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from edgespec.errors import BackendError, UsageError

KEY_VARIABLE = "EDGESPEC_API_KEY"
N_TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # doubled from try to try: half a minute in all
PASSING = (408, 409, 425, 429, 500, 502, 503, 504)  # a busy server: worth another try
WARM = 0.8  # temperature of drawn samples


class Refused(Exception):
    """A failure that another try may mend."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """One model on one server. `who` names both."""

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        n_max: int = 256,
        timeout_s: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """model: empty for the first that the server lists. n_max: tokens of an answer.

        Raises: UsageError for a URL that is none, or a server that cannot be used.
        """
        self._base, self._n_max, self._timeout_s, self._sleep = (
            base_of(url),
            n_max,
            timeout_s,
            sleep,
        )
        self._opener = urllib.request.build_opener(_NoRedirect)
        self.model = model or self._first_model()
        self.who = f"{self.model} at {self._base}"

    def ask(self, messages: Sequence[Mapping[str, Any]], sample: int) -> str:
        """The answer; sample 0 is greedy, others are drawn with their number as seed.

        Raises: UsageError if the server refuses, BackendError if it fails again and again.
        """
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        body |= {"max_tokens": self._n_max, "temperature": WARM if sample else 0.0}
        if sample:
            body["seed"] = sample
        found = self._call("/chat/completions", body)
        try:
            text = found["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = found
        if not isinstance(text, str | None):
            raise UsageError(
                f"{self._base} answered {json.dumps(found)[:80]}: expected a chat completion; "
                "is it an OpenAI-compatible server?"
            )
        return text or ""

    def _first_model(self) -> str:
        found = self._call("/models", None)
        try:
            return str(found["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise UsageError(
                f"{self._base} lists no models: expected one; name it with --endpoint-model"
            ) from None

    def _call(self, path: str, body: Mapping[str, Any] | None) -> Any:
        """What the server says, tried again while the failure may pass."""
        wait_s, why = FIRST_WAIT_S, ""
        for attempt in range(N_TRIES):
            try:
                return self._once(self._base + path, body)
            except Refused as error:
                why = str(error)
                if attempt < N_TRIES - 1:
                    self._sleep(min(max(wait_s, error.wait_s), LONGEST_WAIT_S))
                wait_s *= 2
        raise BackendError(
            f"{self._base} failed {N_TRIES} times ({why}): expected a running server; "
            "start it and repeat the command, what was answered is kept"
        )

    def _once(self, url: str, body: Mapping[str, Any] | None) -> Any:
        """Raises: Refused if it may go better another time, UsageError if it will not."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        if key := os.environ.get(KEY_VARIABLE):
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                raw = response.read()
        except urllib.error.HTTPError as error:
            raise self._failure(url, error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Refused(str(getattr(reason, "strerror", None) or reason)[:100]) from error
        try:
            return json.loads(raw)
        except ValueError:
            raise UsageError(
                f"{url} answered {raw[:40]!r}: expected JSON; is it an OpenAI-compatible server?"
            ) from None

    def _failure(self, url: str, error: urllib.error.HTTPError) -> Exception:
        with error:
            said = " ".join(error.read(300).decode("utf-8", "replace").split())[:120]
        if error.code in PASSING:
            after = error.headers.get("Retry-After", "")
            return Refused(f"{error.code} {said}", float(after) if after.isdecimal() else 0.0)
        if error.code in (401, 403):
            return UsageError(f"{url} answered {error.code}: expected a key in {KEY_VARIABLE}")
        if error.code == 404:
            return UsageError(
                f"{url} answered 404 ({said}): expected an OpenAI-compatible server there and a "
                "model it has; check --endpoint and --endpoint-model"
            )
        if 300 <= error.code < 400:
            to = error.headers.get("Location", "elsewhere")
            return UsageError(f"{url} sends to {to}: expected the server itself; give that URL")
        return UsageError(f"{url} answered {error.code} ({said}): expected 200")


def base_of(url: str) -> str:
    """The part before /chat/completions, for a URL with or without /v1. Raises: UsageError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--endpoint is {url!r}: expected a URL as in http://localhost:8000/v1")
    base = url.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"
