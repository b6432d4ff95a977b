"""Many clients at once against `edgespec serve`, for a while: what they saw, as JSON.

    python tests/slow/storm.py --seconds 180 --clients 64 [flags of edgespec serve]

They read whole answers and streams, leave before or within them, and send bodies that are wrong.
Every answer is compared with the one asked alone; where they part, the margin there tells whether
it was a tie. A process of its own asks for /health meanwhile, and the server's memory is read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATH = "/v1/chat/completions"
HEROES = ("fox", "bear", "girl", "boy", "cat", "king", "bird", "frog", "dog", "cow", "duck", "boat")
KINDS = {"whole": 35, "stream": 30, "leave": 15, "cancel": 10, "bad": 10}  # in per cent
BAD: tuple[tuple[bytes, int], ...] = (
    (b"{", 400), (b"\xff\xfe", 400), (b"[1]", 400), (b'{"messages": 3}', 400), (b"{}", 400),
    (b'{"messages": [{"role": "pope", "content": "x"}]}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "temprature": 1}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "model": "gpt-4"}', 404),
    (b'{"messages": [{"role": "user", "content": "x"}], "n": 1000}', 400),
)  # fmt: skip
TIE = 0.05  # of log probability between the two best, below which batches may decide otherwise
WAIT_S = 60.0  # for an answer
WARM_UP = 0.25  # of the time, after which memory should stay


@dataclass
class Seen:
    """What was seen. wrong: answers unlike the lone one by more than a tie; broken: what came back
    was no whole answer; silent: nothing came in time. rss_bytes: of the server, by second.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    n_equal: int = 0
    n_ties: int = 0
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    silent: int = 0
    rss_bytes: list[int] = field(default_factory=list)

    @property
    def rss_growth_bytes(self) -> int:
        """Between the least and the most memory after the warm-up."""
        settled = self.rss_bytes[int(WARM_UP * len(self.rss_bytes)) :]
        return max(settled) - min(settled)


@dataclass(frozen=True)
class Lone:
    """An answer asked alone: its tokens, and how far the second best was from each."""

    tokens: list[str]
    margins: list[float]


def body(hero: str, **more: Any) -> bytes:
    """A request whose answer has but one right text, and tells its tokens."""
    messages = [{"role": "user", "content": f"Tell me a story about a {hero}."}]
    given = {"messages": messages, "temperature": 0, "max_tokens": 24, "logprobs": True}
    return json.dumps({**given, **more}).encode()


class Client:
    """Sends requests, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.host, self.port = place.hostname or "", place.port or 0

    async def send(self, data: bytes, most: int = 1 << 30) -> tuple[int, bytes]:
        """Status and body of at most so many bytes, then it leaves."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + data)
            await writer.drain()
            found = b""
            while len(found) < most and (part := await reader.read(65536)):
                found += part
        finally:
            writer.close()
        top, _, rest = found.partition(b"\r\n\r\n")
        status = int(top.split(b" ")[1]) if top.startswith(b"HTTP/") else 0
        return status, dechunked(rest) if b"chunked" in top.lower() else rest


def dechunked(data: bytes) -> bytes:
    """What chunks hold; those that did not come whole are left out."""
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size or b"0", 16)
        found, data = found + data[:n], data[n + 2 :]
    return found


def tokens_of(data: bytes, *, stream: bool) -> list[str]:
    """The tokens of an answer. Raises: ValueError for one that is not whole."""
    if not stream:
        return [one["token"] for one in json.loads(data)["choices"][0]["logprobs"]["content"]]
    events = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise ValueError(f"the stream ends with {events[-1:]}")
    parts = [json.loads(event)["choices"][0] for event in events[:-1]]
    scored = [part["logprobs"]["content"] for part in parts if part.get("logprobs")]
    return [one["token"] for content in scored for one in content]


async def lone(client: Client, hero: str) -> Lone:
    """What a hero's answer is when nobody else asks."""
    status, data = await client.send(body(hero, top_logprobs=2))
    assert status == 200, data
    scored = json.loads(data)["choices"][0]["logprobs"]["content"]
    margins = [
        one["top_logprobs"][0]["logprob"] - one["top_logprobs"][1]["logprob"] for one in scored
    ]
    return Lone([one["token"] for one in scored], margins)


def compare(seen: Seen, hero: str, expected: Lone, found: list[str]) -> None:
    """Count an answer."""
    if found == expected.tokens:
        seen.n_equal += 1
        return
    pairs = enumerate(zip(expected.tokens, found, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(found), len(expected.tokens)))
    margin = expected.margins[at] if at < len(expected.margins) else float("inf")
    if margin < TIE:
        seen.n_ties += 1
    else:
        seen.wrong.append(f"{hero} at {at}, margin {margin:.3f}: {''.join(found)[:60]!r}")


class Storm:
    """Clients that go on until `end`; expected: each hero's answer asked alone."""

    def __init__(self, client: Client, expected: dict[str, Lone], end: float) -> None:
        self._client, self._expected, self._end, self.seen = client, expected, end, Seen()

    async def one(self, number: int) -> None:
        """A client; they begin within a second."""
        chance = random.Random(number)
        await asyncio.sleep(chance.random())
        while time.monotonic() < self._end:
            await self._ask(chance)

    async def watch(self, server: int, every_s: float) -> None:
        """Read the server's memory."""
        while time.monotonic() < self._end:
            self.seen.rss_bytes.append(rss_bytes(server))
            await asyncio.sleep(every_s)

    async def _ask(self, chance: random.Random) -> None:
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        hero = chance.choice(HEROES)
        data, status = body(hero, stream=kind in ("stream", "leave")), 200
        if kind == "bad":
            data, status = chance.choice(BAD)
        self.seen.kinds[kind] += 1
        wait_s = chance.uniform(0, 0.3) if kind == "cancel" else WAIT_S
        most = chance.randrange(1, 4000) if kind == "leave" else 1 << 30
        try:
            got, answer = await asyncio.wait_for(self._client.send(data, most), wait_s)
        except asyncio.TimeoutError:
            self.seen.silent += kind != "cancel"
        except OSError as error:
            self.seen.broken.append(f"{kind}: {error!r}")
        else:
            if kind not in ("leave", "cancel"):
                self._judge(kind, hero, got, status, answer)
            if got == 429:
                await asyncio.sleep(1.0)  # as Retry-After says

    def _judge(self, kind: str, hero: str, got: int, status: int, answer: bytes) -> None:
        """Count what came back where `status` was due."""
        self.seen.statuses[got] += 1
        if got not in (status, 429) or b"Traceback" in answer:
            self.seen.broken.append(f"{kind}: {got} {answer[:80]!r}")
        elif got == 200:
            try:
                tokens = tokens_of(answer, stream=kind == "stream")
                compare(self.seen, hero, self._expected[hero], tokens)
            except (ValueError, KeyError, IndexError) as error:
                self.seen.broken.append(f"{kind}: {error!r}")


async def storm(url: str, server: int, seconds: float, n_clients: int) -> Seen:
    """What so many clients see; server: the process whose memory is read."""
    os.nice(10)  # in earnest they are other programs that mostly wait, or other machines
    client = Client(url)
    expected = {hero: await lone(client, hero) for hero in HEROES}
    all_ = Storm(client, expected, time.monotonic() + seconds)
    watch = all_.watch(server, min(1.0, seconds / 20))
    await asyncio.gather(watch, *(all_.one(number) for number in range(n_clients)))
    return all_.seen


def rss_bytes(pid: int) -> int:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def watch_health(url: str) -> None:
    """Ask for /health until stdin closes; print the seconds that each took, as JSON."""
    import http.client
    import select

    place, took = urlsplit(url), list[float]()
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        began = time.perf_counter()
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        took.append(time.perf_counter() - began if response.status == 200 else 10.0)
        connection.close()
    print(json.dumps(took))


def where(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address that a server tells once it serves. Raises: RuntimeError if it ends before."""
    while server.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("serving") and len(line.split()) > 3:
                return line.split()[3]
        time.sleep(0.05)
    raise RuntimeError(log.read_text())


def served(seconds: float, n_clients: int, words: list[str]) -> dict[str, Any]:
    """Start a server and the watcher, let the storm go over them, and end them."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "EDGESPEC_HOME": home}
        command = [sys.executable, "-m", "edgespec", "serve", "--port", "0", *words]
        log = Path(home) / "stderr"  # a pipe that nobody reads would fill
        with log.open("w") as stderr:
            server = subprocess.Popen(command, stderr=stderr, env=environment)
        try:
            url = where(server, log)
            watcher = subprocess.Popen(
                [sys.executable, __file__, "--watch", url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            seen = asyncio.run(storm(url, server.pid, seconds, n_clients))
            took = sorted(json.loads(watcher.communicate("end\n", 20)[0]))
            server.terminate()
            server.wait(10)
        finally:
            server.kill()
        said = log.read_text()
    health = {
        "n": len(took), "median_s": took[len(took) // 2], "p99_s": took[int(0.99 * len(took))],
        "worst_s": took[-1], "n_over_50_ms": sum(one > 0.05 for one in took),
    }  # fmt: skip
    more = {"rss_growth_bytes": seen.rss_growth_bytes, "health": health, "exit": server.returncode}
    return {**vars(seen), **more, "log": said[-2000:], "traces": said.count("Traceback")}


def main() -> None:
    """Print what was seen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--watch", default="", help="only ask this server for its health")
    args, words = parser.parse_known_args()
    if args.watch:
        watch_health(args.watch)
        return
    print(json.dumps(served(args.seconds, args.clients, words)))


if __name__ == "__main__":
    main()
