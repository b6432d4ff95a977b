"""Several clients at once: each hears what it would hear alone, and who leaves hurts nobody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import call

import edgespec
from edgespec.server.limits import Limits
from edgespec.server.running import Server

HEROES = ("fox", "bear", "girl", "boy", "cat", "king", "bird", "frog")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with edgespec.serve(parallel=4, threads=1, ctx_size=512, max_tokens=24) as one:
            yield one


def body(hero: str, **more: object) -> dict[str, object]:
    messages = [{"role": "user", "content": f"Tell me a story about a {hero}."}]
    return {"messages": messages, "temperature": 0, **more}


def said(server: Server, hero: str, **more: object) -> str:
    answer = call(server.url, "/v1/chat/completions", body(hero, **more))
    assert answer.status == 200, answer.data
    if not more.get("stream"):
        return str(answer.body["choices"][0]["message"]["content"])
    events = answer.events()
    assert events[-1] == "[DONE]"
    deltas = [json.loads(one)["choices"][0]["delta"] for one in events[:-1]]
    return "".join(delta.get("content", "") for delta in deltas)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_each_hears_what_it_hears_alone(server: Server, stream: bool) -> None:
    alone = [said(server, hero) for hero in HEROES]
    with ThreadPoolExecutor(len(HEROES)) as pool:
        together = list(pool.map(lambda hero: said(server, hero, stream=stream), HEROES))
    differing = [hero for hero, a, b in zip(HEROES, alone, together, strict=True) if a != b]
    assert len(differing) <= 1, differing  # a numerical tie
    assert len(set(together)) > 4


@pytest.mark.slow
def test_more_than_are_answered_and_wait_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    options = {"threads": 1, "ctx_size": 512, "speculative": "off", "limits": Limits(queue=1)}
    with edgespec.serve(parallel=3, **options) as one, ThreadPoolExecutor(12) as pool:
        path, few = "/v1/chat/completions", body("fox", max_tokens=2)
        paused = call(one.url, path, {**few, "speculative": "auto"}).body["timings"]["paused"]
        assert paused == "drafting is off: the model was opened with speculative off"
        refused = call(one.url, path, {**few, "speculative": "on"})
        assert refused.status == 400 and "opened with speculative off" in refused.error["message"]
        assert call(one.url, path, few).body["timings"]["paused"] == ""
        asked = [body(hero, max_tokens=100) for hero in (*HEROES, *HEROES[:4])]
        answers = list(pool.map(lambda it: call(one.url, "/v1/chat/completions", it), asked))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429} and 4 <= statuses.count(200) < 12


def test_who_leaves_ends_its_answer_and_hurts_nobody(server: Server) -> None:
    import http.client
    from urllib.parse import urlsplit

    place = urlsplit(server.url)
    expected = said(server, "fox")
    leaving = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    words = json.dumps(body("bear", stream=True, max_tokens=400))
    leaving.request("POST", "/v1/chat/completions", words, {"content-type": "application/json"})
    assert leaving.getresponse().read(20)
    staying = threading.Thread(target=said, args=(server, "cat"))
    staying.start()
    leaving.close()
    assert said(server, "fox") == expected
    staying.join(10)
    assert not staying.is_alive()
    end = time.monotonic() + 5
    while call(server.url, "/health").body.get("running", 0) and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end
