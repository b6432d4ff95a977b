"""What a server allows: who may ask, and how much."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from edgespec.errors import UsageError
from edgespec.files import text_of

KEY_VARIABLE = "EDGESPEC_API_KEY"
MOST_KEY = 512  # letters of a key


@dataclass(frozen=True)
class Limits:
    """How much a request may ask for. n_tokens: of an answer, 0: up to the end of the context.

    answer_s: from the last byte of a request to the end of its answer. read_s: in which its body
    has to come, and in which a reader has to take what is sent. close_s: in which what is in
    progress may end once the server is told to.
    """

    body_bytes: int = 4 << 20
    n: int = 8
    n_tokens: int = 0
    queue: int = 64
    answer_s: float = 600.0
    read_s: float = 30.0
    close_s: float = 3.0


@dataclass(frozen=True)
class Access:
    """Who may ask. keys: any of them will do, none: everyone. origins: of pages on other sites."""

    host: str = "127.0.0.1"
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises: UsageError for a server that strangers could use."""
        if not self.keys and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} lets other machines in: expected a key that they have to "
                f"know; give a file of one with --api-key-file, or set {KEY_VARIABLE}"
            )
        for origin in self.origins:
            if origin != "*" and ("://" not in origin or origin.endswith("/")):
                raise UsageError(f"--cors {origin}: expected an origin such as http://my.site:8080")

    def admits(self, given: str) -> bool:
        """Whether an Authorization header has a key; takes as long for a nearly right one."""
        scheme, _, key = given.partition(" ")
        if not self.keys:
            return True
        seen = key.strip().encode("utf-8", "replace")
        found = [hmac.compare_digest(seen, one.encode()) for one in self.keys]
        return scheme.lower() == "bearer" and any(found)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keys_of(file: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The keys in a file, one a line, else the one in the environment. Raises: UsageError."""
    environ = os.environ if environ is None else environ
    if file:
        text = text_of(str(Path(file)), "--api-key-file", expected="a file with a key in a line")
        keys = tuple(one.strip() for one in text.splitlines() if one.strip())
    else:
        keys = tuple(filter(None, (environ.get(KEY_VARIABLE, "").strip(),)))
    for key in keys:
        if len(key) > MOST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(
                f"an API key has {len(key)} letters, some of them perhaps not ASCII: expected "
                f"at most {MOST_KEY} printable ones without a space; make one with "
                "`openssl rand -hex 24`"
            )
    if file and not keys:
        raise UsageError(f"--api-key-file {file} is empty: expected a key in a line")
    return keys
