"""Other paths, errors, and who is let in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from serving import ASK, Call, call

import edgespec
from edgespec.errors import UsageError
from edgespec.server.limits import Access, Limits, keys_of
from edgespec.server.running import Place, Server

PATH = "/v1/chat/completions"


def wait_until_idle(server: Server) -> None:
    """Until nothing is answered."""
    until = time.monotonic() + 5
    while sum(server._bench.counts()):
        assert time.monotonic() < until, "a generation goes on"
        time.sleep(0.01)


def test_health_models_and_metrics(ask: Call, client: Any) -> None:
    assert ask("/health").body["status"] == "ok"
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    assert ask("/v1/models/other").status == 404
    before = counters(ask("/metrics").data.decode())
    ask(PATH, {"messages": ASK, "max_tokens": 20})
    text = ask("/metrics").data.decode()
    after = counters(text)
    grew = {name for name in after if after[name] > before.get(name, 0)}
    names = ("drafts", "draft_tokens", "accepted_tokens")
    assert {f"vllm:spec_decode_num_{name}_total" for name in names} <= grew
    assert after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] == 20
    assert 'accepted_tokens_per_pos_total{engine="0",model_name="demo",position="0"}' in text
    assert 'vllm:num_requests_waiting{engine="0",model_name="demo"} 0.0' in text


def counters(text: str) -> dict[str, float]:
    """Sums by name."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.split("{")[0].split(" ")[0], float(line.rsplit(" ", 1)[1])
            found[name] = found.get(name, 0.0) + value
    return found


def test_tokens_there_and_back(ask: Call, server: Server) -> None:
    found = ask("/tokenize", {"content": "Once upon a time"}).body
    assert found["tokens"] == server.answering.encode("Once upon a time")
    assert found["count"] == len(found["tokens"])
    assert "Once upon a time" in ask("/detokenize", {"tokens": found["tokens"]}).body["content"]
    asked = ask("/tokenize", {"messages": ASK}).body["tokens"]
    assert asked == list(server.answering.prompt(ASK))
    assert ask("/detokenize", {"tokens": [1 << 30]}).error["param"] == "tokens"
    assert ask("/tokenize", {}).error["param"] == "content"
    refused = ask("/v1/embeddings", {"input": "x"})
    assert refused.status == 400 and "expected an embedding model" in refused.error["message"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "is a list: expected a JSON object"),
        (b'{"temperature": NaN}', "NaN is no number"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "not UTF-8"),
        (b'{"messages": ' + b"[" * 100000 + b"]" * 100000 + b"}", "nested too deep"),
        (b'{"messages": ' + b"[" * 70 + b"]" * 70 + b"}", "nested too deep"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "number of thousands of digits"),
        (b'{"tools": [{"x": -1e999}]}', "the number -1e999: expected less than"),
    ],
)
def test_a_body_that_is_no_object_is_refused(ask: Call, body: bytes, expected: str) -> None:
    refused = ask(PATH, body)
    assert refused.status == 400 and expected in refused.error["message"]


def test_other_paths_and_methods_are_errors_in_the_same_shape(ask: Call) -> None:
    assert ask("/v1/nothing").status == 404
    assert "/v1/nothing" in ask("/v1/nothing").error["message"]
    refused = ask(PATH)
    assert refused.status == 405 and refused.error["type"] == "invalid_request_error"
    assert ask("/page_files/../limits.py").status == 404


def test_large_bodies_are_refused_before_they_are_read(ask: Call, server: Server) -> None:
    refused = ask(PATH, b" " * (1 << 20) + b"{}")
    assert (refused.status, refused.error["code"]) == (413, "request_too_large")
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=5) as one:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        one.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(400):
                one.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            pass  # it was answered and closed meanwhile
        assert b"413" in one.recv(64)


def test_a_client_that_leaves_ends_its_generation(server: Server, ask: Call) -> None:
    place = urlsplit(server.url)
    for stream in (b"true", b"false"):
        body = (
            b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 900, "stream": '
            + stream + b', "response_format": {"type": "json_object"}}'
        )  # fmt: skip
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        one = socket.create_connection((place.hostname, place.port), timeout=5)
        one.sendall(head % (PATH.encode(), len(body)) + body)
        until = time.monotonic() + 5
        while not server._bench.counts()[0]:
            assert time.monotonic() < until
            time.sleep(0.005)
        one.close()
        wait_until_idle(server)
        finish = server.answering.session.turns.finish  # type: ignore[attr-defined]
        assert finish in ("", "cancelled")  # neither stop nor length
    assert ask(PATH, {"messages": ASK, "max_tokens": 2}).status == 200


@pytest.mark.slow
def test_a_full_queue_is_said_with_429(server: Server, ask: Call) -> None:
    statuses: list[int] = []

    def many() -> None:
        statuses.append(ask(PATH, {"messages": ASK, "max_tokens": 120}).status)

    threads = [threading.Thread(target=many) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    wait_until_idle(server)


@pytest.fixture(scope="module")
def guarded(server: Server) -> Iterator[Server]:
    """Another that wants a key, lets in one origin, and answers within no time."""
    limits = Limits(answer_s=0.3, n_tokens=600, close_s=0.2)
    access = Access(keys=("abc", "key two"[:3]), origins=("http://friend.test",))
    answering = server.answering
    one = Server(answering, Place(0, access, limits, "named"))
    yield one
    one._house.open()["named"].opened = Unclosed()
    one.close()


class Unclosed:
    """In the place of what others still use."""

    def close(self) -> None:
        """Nothing."""


def test_keys_are_asked_for(guarded: Server) -> None:
    for given in ({}, {"Authorization": "Bearer abd"}, {"Authorization": "Basic abc"}):
        refused = call(guarded.url, "/v1/models", **given)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert call(guarded.url, "/health").status == 200
    for key in ("abc", "key"):
        found = call(guarded.url, "/v1/models", Authorization=f"Bearer {key}")
        assert found.body["data"][0]["id"] == "named"


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_ended(guarded: Server) -> None:
    key = {"Authorization": "Bearer abc"}
    given = {"messages": ASK, "max_tokens": 600, "response_format": {"type": "json_object"}}
    refused = call(guarded.url, PATH, given, **key)
    assert (refused.status, refused.error["code"]) == (503, "timeout")
    events = call(guarded.url, PATH, {**given, "stream": True}, **key).events()
    assert events[-1] != "[DONE]" and '"code":"timeout"' in events[-1]
    wait_until_idle(guarded)
    refused = call(guarded.url, PATH, {"messages": ASK, "max_tokens": 601}, **key)
    assert refused.error["param"] == "max_tokens"


def test_pages_of_other_sites_are_not_let_in(server: Server, guarded: Server) -> None:
    refused = call(server.url, "/v1/models", Origin="http://evil.test")
    assert (refused.status, refused.error["code"]) == (403, "origin_refused")
    assert "access-control-allow-origin" not in refused.headers
    refused = call(server.url, "/v1/models", Host="evil.test")
    assert (refused.status, refused.error["code"]) == (403, "host_refused")
    assert call(server.url, "/v1/models", Origin=server.url).status == 200
    found = call(guarded.url, "/health", Origin="http://friend.test")
    assert found.headers["access-control-allow-origin"] == "http://friend.test"
    asked = {"Origin": "http://friend.test", "Access_Control_Request_Method": "POST"}
    assert call(guarded.url, PATH, method="OPTIONS", **asked).status == 200
    asked["Access_Control_Request_Headers"] = "authorization,content-type,x-stainless-lang"
    allowed = call(guarded.url, PATH, method="OPTIONS", **asked)
    assert allowed.status == 200
    assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
    asked["Origin"] = "http://evil.test"
    assert call(guarded.url, PATH, method="OPTIONS", **asked).status == 400


def test_no_server_is_open_to_strangers(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="--host 0.0.0.0 lets other machines in: expected a key"):
        edgespec.serve(host="0.0.0.0")
    Access("0.0.0.0", ("key",)).check()
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        Access(host).check()
    with pytest.raises(UsageError, match="--cors my.site: expected an origin"):
        Access(origins=("my.site",)).check()
    file = tmp_path / "keys"
    file.write_text("one\n\ntwo\n")
    assert keys_of(str(file), {}) == ("one", "two")
    assert keys_of("", {"EDGESPEC_API_KEY": " k "}) == ("k",) and keys_of("", {}) == ()
    file.write_text("\n")
    with pytest.raises(UsageError, match="is empty: expected a key"):
        keys_of(str(file), {})
    file.write_text("a b")
    with pytest.raises(UsageError, match="make one with"):
        keys_of(str(file), {})


def test_a_port_that_is_taken_is_said(server: Server) -> None:
    port = urlsplit(server.url).port or 0
    with pytest.raises(UsageError, match=f"127.0.0.1 port {port}: .*: expected .* a free port"):
        Server(server.answering, Place(port))
