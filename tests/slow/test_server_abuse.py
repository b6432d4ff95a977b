"""Bodies made at random, and sockets that behave badly: no trace, no hang, no crash."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from embedder_maker import make_bert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import ASK, OPTIONS, Answered, call

import edgespec
from edgespec.server import fields
from edgespec.server.limits import Limits
from edgespec.server.running import Others, Place, Server

pytestmark = pytest.mark.slow
PATH, VECTORS = "/v1/chat/completions", "/v1/embeddings"
KNOWN = {
    PATH: fields.CHAT,
    "/v1/completions": fields.COMPLETIONS,
    "/v1/responses": fields.RESPONSES,
    VECTORS: fields.EMBEDDINGS,
    "/tokenize": fields.TOKENIZE,
    "/detokenize": fields.DETOKENIZE,
}
STATUSES = {200, 400, 404, 413, 429}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
        limits = Limits(read_s=1.0, n_tokens=40, n=2)
        others = Others(
            folder=str(make_bert(tmp_path_factory.mktemp("folder") / "bert.gguf").parent)
        )
        options = {**OPTIONS, "max_tokens": 4}
        with edgespec.serve(limits=limits, others=others, **options) as one:
            yield one


def alive(server: Server) -> None:
    """It answers, within the 50 ms in which health has to be told, and is right."""
    began = time.monotonic()
    assert call(server.url, "/health").status == 200
    assert time.monotonic() - began < 1.0
    said = call(server.url, PATH, {"messages": ASK, "max_tokens": 4}).body
    assert said["choices"][0]["message"]["content"].startswith("Once upon")


leaf = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20), st.sampled_from(["auto", "on", "off", "user", "assistant", "required"]),
)  # fmt: skip
anything = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
content = st.one_of(st.text(max_size=40), st.lists(st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_text"]), "text": st.text(max_size=9)}
), max_size=2), anything)  # fmt: skip
schema = st.recursive(
    st.sampled_from([{"type": "integer"}, {"type": "string"}, {"enum": [1, "a"]}, {}, {"type": 3}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.text(max_size=5), inner)}
        ),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=2)}),
    ),
    max_leaves=4,
)
bad_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "developer", "x"]), "content": content},
    optional={"tool_calls": anything, "name": anything},
)
said = st.text(max_size=40)
good_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "user", "system", "assistant"]), "content": said}
)
message = st.one_of(*[good_message] * 6, bad_message)
some = st.sampled_from
likely: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(message, min_size=1, max_size=3),
    "model": some(["demo", "demo", "default"]),
    "stream": st.booleans(),
    "user": said, "instructions": said, "content": said, "top_p": some([0, 0.1, 1.0]),
    "seed": st.integers(-5, 1 << 40), "stop": st.one_of(said, st.lists(said, max_size=3)),
    "presence_penalty": st.floats(-2, 2), "frequency_penalty": st.floats(-2, 2),
    "top_k": st.integers(0, 99), "min_p": st.floats(0, 1), "repeat_penalty": st.floats(0.5, 2),
    "verification": some(["match", "rejection", "block"]),
    "speculative": some(["auto", "on", "off"]), "think": some(["auto", "on", "off"]),
    "draft_tokens": some(["auto", 0, 1, 5, 64]), "show_drafted": st.booleans(),
    "max_completion_tokens": st.integers(1, 6), "max_output_tokens": st.integers(1, 6),
    "logprobs": st.booleans(), "parallel_tool_calls": st.booleans(), "echo": st.booleans(),
    "reasoning_effort": some(["none", "low"]), "modalities": st.just(["text"]),
    "chat_template_kwargs": st.dictionaries(said, leaf, max_size=2), "best_of": st.just(1),
    "text": st.fixed_dictionaries({"format": st.fixed_dictionaries(
        {"type": some(["text", "json_object", "json_schema"])}, optional={"schema": schema})}),
    "reasoning": st.just({"effort": "none"}), "truncation": some(["disabled", "auto"]),
    "include": st.just(["message.output_text.logprobs"]), "metadata": st.just({"a": "b"}),
    "add_special": st.booleans(),
    "prompt": st.one_of(st.text(max_size=30), st.lists(st.integers(0, 4000), max_size=5)),
    "input": st.one_of(
        said, st.lists(message, min_size=1, max_size=2), st.lists(said, max_size=3),
        st.lists(st.integers(0, 60), max_size=5),
    ),
    "dimensions": st.integers(0, 40), "encoding_format": some(["float", "base64"]),
    "tokens": st.lists(st.integers(0, 4100), max_size=5),
    "response_format": st.fixed_dictionaries(
        {"type": st.sampled_from(["json_schema", "json_object", "text"])},
        optional={"schema": schema, "json_schema": st.fixed_dictionaries({"schema": schema})},
    ),
    "tools": st.lists(st.fixed_dictionaries({"type": st.just("function"), "function":
        st.fixed_dictionaries({"name": st.text(max_size=5), "parameters": schema})}), max_size=2),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"function": {"name": "a"}}]),
    "stream_options": some([{"include_usage": True}, {"x": 1}, {"include_obfuscation": True}, {}]),
    "logit_bias": st.dictionaries(st.integers(0, 5000).map(str), st.integers(-100, 100)),
    "n": st.integers(0, 3),
    "max_tokens": st.integers(-2, 6),
    "top_logprobs": st.integers(0, 20),
    "temperature": st.floats(0, 2),
    "grammar": st.sampled_from(['root ::= "a"', "root ::= (", "/etc/passwd", 'x ::= "a"', "::="]),
}  # fmt: skip


@st.composite
def request(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A path and a body whose fields are mostly known, and mostly of the right kind."""
    path = draw(st.sampled_from(sorted(KNOWN)))
    names = draw(st.lists(st.sampled_from(sorted(KNOWN[path])), max_size=5, unique=True))
    names += [name for name in ("messages", "prompt", "input", "tokens") if name in KNOWN[path]]
    body = {}
    for name in names:
        wild = draw(st.integers(0, 15)) == 15
        body[name] = draw(anything if wild or name not in likely else likely[name])
    if draw(st.integers(0, 19)) == 19:
        body[draw(st.text(max_size=9))] = draw(anything)
    body.setdefault("model", "demo")
    if path == VECTORS and body["model"] in ("demo", "default"):
        body["model"] = "bert"
    return path, body


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(request())
def test_any_body_is_answered_or_refused(server: Server, asked: tuple[str, Any]) -> None:
    path, body = asked
    answered = call(server.url, path, body)
    check(answered)


def check(answered: Answered) -> None:
    """It has a known status, and where it is refused OpenAI's shape."""
    assert answered.status in STATUSES, (answered.status, answered.data)
    assert b"Traceback" not in answered.data and b'File "' not in answered.data
    if answered.status != 200:
        assert answered.error["message"]
    elif answered.headers["content-type"].startswith("text/event-stream"):
        events = [json.loads(event) for event in answered.events() if event != "[DONE]"]
        assert all(e.get("error", {}).get("type") != "server_error" for e in events), events[-1]


def test_bodies_reach_a_model_that_gives_vectors(server: Server) -> None:
    assert call(server.url, VECTORS, {"model": "bert", "input": ["a fox"]}).status == 200


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(KNOWN)))
def test_any_bytes_are_refused(server: Server, body: bytes, path: str) -> None:
    answered = call(server.url, path, body)
    assert answered.status in (200, 400) and answered.body


def connected(server: Server) -> socket.socket:
    place = urlsplit(server.url)
    return socket.create_connection((place.hostname, place.port), timeout=20)


def head(n: int, *more: str) -> bytes:
    lines = [f"POST {PATH} HTTP/1.1", "Host: localhost", f"Content-Length: {n}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(one: socket.socket) -> bytes:
    found = b""
    try:
        while part := one.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def test_ten_megabytes_are_refused(server: Server) -> None:
    body = b'{"messages": "' + b"x" * (10 << 20) + b'"}'
    answered = call(server.url, PATH, body)
    assert (answered.status, answered.error["code"]) == (413, "request_too_large")
    alive(server)


def test_a_thousand_headers_are_answered_or_refused(server: Server) -> None:
    for letters in (5, 400):
        more = [f"X-Header-{i}: {'x' * letters}" for i in range(1000)]
        with connected(server) as one:
            with contextlib.suppress(OSError):  # closed while it was sent
                one.sendall(head(2, *more, "Connection: close") + b"{}")
            status = int(read_all(one).split(b" ")[1])
        assert status in (400, 431)
    alive(server)


@pytest.mark.parametrize(
    "data",
    [b"\x00\xff" * 50, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"],
)
def test_what_is_no_http_is_refused(server: Server, data: bytes) -> None:
    with connected(server) as one:
        one.sendall(data)
        assert b"400" in read_all(one)
    alive(server)


def test_a_body_that_does_not_come_is_not_waited_for(server: Server) -> None:
    with connected(server) as one:
        one.sendall(head(100) + b'{"mess')
        began = time.monotonic()
        assert b" 408 " in read_all(one)
        assert time.monotonic() - began < 5
    alive(server)


def test_half_closed_sockets_leave_nothing_behind(server: Server) -> None:
    body = json.dumps({"messages": ASK, "max_tokens": 40, "stream": True}).encode()
    for cut in (10, len(body)):
        ones = [connected(server) for _ in range(5)]
        for one in ones:
            one.sendall(head(len(body)) + body[:cut])
            one.shutdown(socket.SHUT_WR)
        for one in ones:
            read_all(one)
            one.close()
    idle(server)
    alive(server)


def idle(server: Server, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while sum(server._bench.counts()):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_slow_readers_hold_nobody_up(server: Server) -> None:
    """They read nothing of answers that are longer than what sockets keep."""
    limits = Limits(read_s=1.0)
    patient = Server(server.answering, Place(0, limits=limits))
    given = {"messages": ASK, "stream": True, "n": 8, "logprobs": True, "top_logprobs": 20,
             "max_tokens": 250, "logit_bias": {"2": -100}, "speculative": "off"}  # fmt: skip
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", urlsplit(patient.url).port or 0))
    body = json.dumps(given).encode()
    slow.sendall(head(len(body)) + body)
    while not patient._bench.counts()[0]:
        time.sleep(0.02)
    idle(patient, 30)
    until = time.monotonic() + 5
    while patient._server.server_state.tasks:  # nobody waits for it to read
        assert time.monotonic() < until
        time.sleep(0.02)
    slow.close()
    alive(server)
    patient._house.open()["demo"].opened = Unclosed()
    patient.close()


class Unclosed:
    """In the place of what the other server still uses."""

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def batching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """One that answers four at once, by default's drafting."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.serve(threads=1, parallel=4, ctx_size=512, temperature=0.0) as one:
        yield one


def test_many_at_once_are_all_answered_and_right(server: Server) -> None:
    stormed(server)


def test_several_at_once_are_all_answered_and_right(batching: Server) -> None:
    stormed(batching)


def stormed(server: Server) -> None:
    """32 clients that read, stream, leave or send nonsense: every answer is the lone one."""
    given = {"messages": ASK, "max_tokens": 12}
    expected = call(server.url, PATH, given).body["choices"][0]["message"]["content"]
    found: list[tuple[int, str]] = []
    worst: list[float] = []

    def ask(number: int) -> None:
        for turn in range(3):
            kind = (number + turn) % 4
            if kind == 0:
                answered = call(server.url, PATH, {**given, "stream": True})
                parts = [json.loads(e) for e in answered.events() if e != "[DONE]"]
                deltas = [p["choices"][0]["delta"].get("content", "") for p in parts]
                found.append((answered.status, "".join(deltas)))
            elif kind == 1:
                with connected(server) as one:
                    body = json.dumps({**given, "stream": True}).encode()
                    one.sendall(head(len(body)) + body)
                    one.recv(10)
            elif kind == 2:
                assert call(server.url, PATH, {"messages": number}).status == 400
            else:
                answered = call(server.url, PATH, given)
                text = answered.body["choices"][0]["message"]["content"]
                found.append((answered.status, text))

    def watch() -> None:
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            assert call(server.url, "/health").status == 200
            worst.append(time.monotonic() - began)
            time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    watch()
    for thread in threads:
        thread.join(30)
    assert len(found) == 48 and set(found) == {(200, expected)}
    assert sorted(worst)[len(worst) // 2] < 1.0  # beside the test's own 32 threads
    idle(server)


def test_memory_stays(server: Server) -> None:
    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def some() -> None:
        for _ in range(100):
            call(server.url, PATH, {"messages": ASK, "max_tokens": 4, "stream": True})

    some()
    before = peak()
    some()
    assert peak() - before < 20 << 10  # KiB


def test_wrong_keys_take_as_long_as_right_ones(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.serve(speculative="off", threads=1, api_key="k" * 40) as one:
        for key in ("", "k", "k" * 39, "k" * 41, "K" * 40, "é" * 40, "x" * 9000):
            sent = f"Bearer {key}".encode().decode("latin-1")
            assert call(one.url, "/v1/models", Authorization=sent).status == 401
        assert call(one.url, "/v1/models", Authorization=f"Bearer {'k' * 40}").status == 200
