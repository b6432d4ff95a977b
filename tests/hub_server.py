"""A small server that speaks the hub's protocol on the loopback, and can misbehave as a hub does.

It lists repositories, redirects files to a second address that stands for the store behind the
hub, serves ranges, breaks off, and writes down what it was asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_good"
PATH = re.compile(r"/(?:api/models/([^/]+/[^/]+)|([^/]+/[^/]+)/resolve/[^/]+/(.+))")


@dataclass(frozen=True)
class Asked:
    """One request: `at` is hub or store."""

    at: str
    method: str
    path: str
    first_byte: int
    token: str


@dataclass
class Hub:
    """What the server has and how it behaves; change it while it runs.

    repos: files by name. claimed: contents a file is described as, where it is not what is
    served. private, gated: repositories. status: what every request gets, 0 for the truth.
    breaks: bytes after which each next delivery is broken off. stall: set it to hold deliveries
    after `stall_at` bytes; `stalled` is set when one is held.
    """

    repos: dict[str, dict[str, bytes]]
    claimed: dict[str, bytes] = field(default_factory=dict)
    small: set[str] = field(default_factory=set)  # files kept without a sum
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    status: int = 0
    page: bytes = b""  # instead of what a hub says
    commit: str = COMMIT
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    stall_at: int = 0
    stalled: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    store: str = ""

    def of(self, at: str, method: str = "GET") -> list[Asked]:
        return [one for one in self.asked if one.at == at and one.method == method]

    def described(self, name: str, data: bytes) -> tuple[int, str]:
        claimed = self.claimed.get(name, data)
        return len(claimed), hashlib.sha256(claimed).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    at: str

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        first = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(first[1]) if first else 0
        self.hub.asked.append(Asked(self.at, self.command, path, start, token))
        if self.hub.status:
            return self.send(self.hub.status)
        if self.at == "store":
            return self.deliver(path, start)
        if self.hub.page:
            return self.send(200, self.hub.page)
        match = PATH.fullmatch(path)
        repo = (match[1] or match[2]) if match else ""
        if token and token != TOKEN:
            message = "Invalid credentials in Authorization header"
            return self.send(401, headers={"X-Error-Message": message})
        if repo not in self.hub.repos or (repo in self.hub.private and not token):
            return self.send(404 if token else 401, headers={"X-Error-Code": "RepoNotFound"})
        assert match is not None
        return self.describe(repo) if match[1] else self.resolve(repo, match[3])

    def describe(self, repo: str) -> None:
        siblings: list[dict[str, Any]] = []
        for name, data in self.hub.repos[repo].items():
            size, sha256 = self.hub.described(name, data)
            one: dict[str, Any] = {"rfilename": name, "size": size, "blobId": "b" * 40}
            if name not in self.hub.small:
                one["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 130}
            siblings.append(one)
        info = {"id": repo, "modelId": repo, "sha": self.hub.commit, "siblings": siblings,
                "private": False, "tags": [], "downloads": 1, "likes": 0}  # fmt: skip
        self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def resolve(self, repo: str, name: str) -> None:
        if repo in self.hub.gated:
            code = 403 if self.headers.get("Authorization") else 401
            return self.send(code, headers={"X-Error-Code": "GatedRepo"})
        if name not in self.hub.repos[repo]:
            return self.send(404, headers={"X-Error-Code": "EntryNotFound"})
        data = self.hub.repos[repo][name]
        size, sha256 = self.hub.described(name, data)
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{sha256}"'}
        if name in self.hub.small:
            return self.send(200, data, headers)
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(size)}
        # The newer store is offered, and must not be needed: nothing answers at this address.
        headers |= {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{self.hub.url}/no-token"}
        self.send(302, b"", headers | {"Location": f"{self.hub.store}/{repo}/{name}?signed=1"})

    def deliver(self, path: str, start: int) -> None:
        user, repo, name = path.lstrip("/").split("/", 2)
        data = self.hub.repos[f"{user}/{repo}"][name]
        ranged = self.hub.ranges and start > 0
        body = data[start:] if ranged else data
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if ranged else {}
        if self.hub.breaks:
            cut = self.hub.breaks.pop(0)
            self.send(206 if ranged else 200, body, headers, cut=cut)
            self.close_connection = True
            return
        self.send(206 if ranged else 200, body, headers, stall=self.hub.stall_at)

    def send(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *,
        cut: int | None = None, stall: int = 0,
    ) -> None:  # fmt: skip
        """One answer, whole, broken off after `cut` bytes, or held after `stall`."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[:cut]
        try:
            if stall:
                self.wfile.write(body[:stall])
                self.wfile.flush()
                self.hub.stalled.set()
                self.hub.go_on.wait(10)
            self.wfile.write(body[stall:])
        except OSError:
            self.close_connection = True  # whoever asked is gone


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever asked has hung up, which the tests are about."""


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub answers at hub.url, its store at another host name."""
    servers = []
    for at in ("hub", "store"):
        handler = type("Handler", (_Handler,), {"hub": hub, "at": at})
        server = _Server(("127.0.0.1", 0), handler)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{servers[0].server_port}"
    hub.store = f"http://localhost:{servers[1].server_port}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def use(started: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the library at the server and at a cache in `home`.

    It reads the environment when it is imported; here that is done already, perhaps.
    """
    from huggingface_hub import constants, file_download

    from edgespec.store.hub import download

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    template = started.url + "/{repo_id}/resolve/{revision}/{filename}"
    values = {
        "ENDPOINT": started.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(download, "PIECE", 1 << 12)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library waits before it retries
