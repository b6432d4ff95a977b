"""Calibration text: files, answers asked for and kept, and servers that answer."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from edgespec.export.trim import answers as trim_answers
from edgespec.export.trim.answers import Answers, Question, collect, read_answers, read_texts
from edgespec.export.trim.endpoint import KEY_VARIABLE, N_TRIES, Endpoint, base_of

from edgespec.cli import main
from edgespec.errors import BackendError, EdgeSpecError, UsageError


def asked(text: str, *later: str, sample: int = 0) -> Question:
    return Question(({"role": "user", "content": text},), later, sample)


QUESTIONS = [asked(f"What is {i}?") for i in range(8)]


class Model:
    """Answers with what it was asked, and remembers it; fails at one question."""

    def __init__(self, fails_at: str = "") -> None:
        self.seen: list[tuple[str, int]] = []
        self.fails_at = fails_at

    def ask(self, messages, sample):
        said = " / ".join(message["content"] for message in messages)
        if said == self.fails_at:
            raise BackendError("the model died")
        self.seen.append((said, sample))
        return f"[{said}]"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


# Asked for and kept


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_every_question_is_asked_once_and_a_part_is_held_out(path, n_parallel):
    model, shown = Model(), []
    found = collect(
        QUESTIONS, model.ask, Answers(path), "m", n_parallel=n_parallel,
        progress=lambda what, share: shown.append((what, share)),
    )  # fmt: skip
    assert sorted(model.seen) == [(f"What is {i}?", 0) for i in range(8)]
    assert found.held_out == ("[What is 3?]", "[What is 7?]")
    assert len(found.texts) == 6
    assert [prompt[0]["content"] for prompt in found.prompts] == ["What is 3?", "What is 7?"]
    assert shown[-1] == ("answers of m: 8 of 8", 1.0)


@pytest.mark.parametrize("n_parallel", [1, 3])
def test_an_interrupted_run_goes_on_where_it_stopped(path, n_parallel):
    broken = Model(fails_at="What is 5?")
    with pytest.raises(BackendError, match="died"):
        collect(QUESTIONS, broken.ask, Answers(path), "m", n_parallel=n_parallel)
    n_kept = len(path.read_text().splitlines())
    assert 0 < n_kept < 8 or n_parallel > 1
    model = Model()
    collect(QUESTIONS, model.ask, Answers(path), "m", n_parallel=n_parallel)
    assert len(model.seen) == 8 - n_kept
    assert len(path.read_text().splitlines()) == 8


def test_a_half_written_last_line_is_dropped(path):
    collect(QUESTIONS[:3], Model().ask, Answers(path), "m")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    model = Model()
    found = collect(QUESTIONS[:3], model.ask, Answers(path), "m")
    assert [said for said, _ in model.seen] == ["What is 2?"]
    assert path.read_bytes() == whole
    assert len(found.texts) == 3


def test_another_model_or_sample_is_asked_anew(path):
    collect(QUESTIONS[:2], Model().ask, Answers(path), "m")
    model = Model()
    collect(QUESTIONS[:2], model.ask, Answers(path), "another")
    drawn = [asked("What is 0?", sample=1), asked("What is 0?", sample=2)]
    collect(drawn, model.ask, Answers(path), "m")
    assert model.seen == [
        ("What is 0?", 0),
        ("What is 1?", 0),
        ("What is 0?", 1),
        ("What is 0?", 2),
    ]
    assert len(path.read_text().splitlines()) == 6


def test_later_turns_follow_the_answers_before_them(path):
    model = Model()
    found = collect([asked("a", "b", "c")], model.ask, Answers(path), "m")
    assert [said for said, _ in model.seen] == [
        "a",
        "a / [a] / b",
        "a / [a] / b / [a / [a] / b] / c",
    ]
    assert len(found.texts) == 3


def test_samples_of_one_prompt_are_held_out_together(path):
    questions = [asked(f"{i}", sample=n) for n in range(3) for i in range(4)]
    found = collect(questions, Model().ask, Answers(path), "m")
    assert found.held_out == ("[3]",) * 3
    assert len(found.prompts) == 1


def test_a_file_of_something_else_is_not_added_to(path):
    path.write_text('{"id": "x", "answers": ["a"]}\nshopping: eggs\n')
    with pytest.raises(UsageError, match=r"answers.jsonl:2: .*expected answers of an earlier run"):
        Answers(path)
    path.write_text("[]\n")
    with pytest.raises(UsageError, match=r"answers.jsonl:1"):
        Answers(path)


def test_answers_that_say_nothing_are_refused(path):
    with pytest.raises(UsageError, match="the calibration text is empty"):
        collect(QUESTIONS, lambda messages, sample: " ", Answers(path), "m")


# Read from files


def test_conversations_in_three_shapes_are_read(path):
    lines = [
        [["user", "q1"], ["assistant", "a1"], ["user", "q2"], ["assistant", "a2"]],
        {"messages": [{"role": "user", "content": "q3"}, {"role": "assistant", "content": "a3"}]},
        {"id": "x", "messages": [{"role": "user", "content": "q4"}], "answers": ["a4", "a5"]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = read_answers(path)
    assert found.texts == ("a1", "a2", "a3", "a4", "a5")
    path.write_text(
        "\n".join(map(json.dumps, [*lines, lines[1], [["user", "q5"], ["assistant", "x"]]]))
    )
    found = read_answers(path)
    assert found.held_out == ("x",)
    assert found.prompts == (({"role": "user", "content": "q5"},),)


@pytest.mark.parametrize(
    "line", ["eggs", '{"text": "a"}', '[["user"]]', '"a"', "7", '{"messages": 3}']
)
def test_a_line_that_is_no_conversation_is_named(path, line):
    path.write_text('[["user", "q"], ["assistant", "a"]]\n' + line + "\n")
    with pytest.raises(UsageError, match=r'answers.jsonl:2: .*expected \{"messages"'):
        read_answers(path)


def test_raw_text_is_cut_into_pieces_of_which_one_in_four_is_held_out(tmp_path):
    one, other = tmp_path / "a.txt", tmp_path / "b.txt"
    one.write_text("".join(f"line {i} of the text\n" for i in range(1000)))
    other.write_text("the end")
    found = read_texts([one, other])
    pieces = len(found.texts) + len(found.held_out)
    assert len(found.held_out) == pieces // 4
    assert sorted("".join(found.texts + found.held_out)) == sorted(one.read_text() + "the end")
    assert all(piece.endswith("\n") or piece == "the end" for piece in found.texts)


def test_of_many_pieces_one_in_ten_is_held_out():
    assert sum(trim_answers.is_held_out(i, 79) for i in range(79)) == 19
    assert sum(trim_answers.is_held_out(i, 80) for i in range(80)) == 8
    assert not trim_answers.is_held_out(0, 1)


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match=r"a.txt: not UTF-8 at byte 3"):
        read_texts([tmp_path / "a.txt"])


# From a server


class Server(ThreadingHTTPServer):
    """Answers a chat; `replies` are given first, each (status, body bytes, headers)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, bytes, dict[str, str]]] = []
        self.requests: list[tuple[str, dict | None, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.note(None)
        self.reply(200, json.dumps({"data": [{"id": "small"}, {"id": "large"}]}).encode(), {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.note(body)
        if self.server.replies:
            self.reply(*self.server.replies.pop(0))
            return
        said = f"re: {body['messages'][-1]['content']}"
        self.reply(200, json.dumps({"choices": [{"message": {"content": said}}]}).encode(), {})

    def note(self, body) -> None:
        self.server.requests.append((self.path, body, self.headers.get("Authorization")))

    def reply(self, status, body, headers) -> None:
        if status == 0:  # hang up in the middle
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 999\r\n\r\n{")
            return
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def endpoint(server, waits):
    return Endpoint(server.url, n_max=33, timeout_s=5, sleep=waits.append)


def test_a_server_is_asked_in_its_own_language(server, endpoint, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    assert endpoint.model == "small"
    assert endpoint.ask([{"role": "user", "content": "hello"}], 0) == "re: hello"
    path, body, key = server.requests[-1]
    assert path == "/v1/chat/completions"
    assert key == "Bearer secret"
    assert body == {
        "model": "small",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 33,
        "temperature": 0.0,
    }
    endpoint.ask([{"role": "user", "content": "hello"}], 2)
    assert server.requests[-1][1]["seed"] == 2
    assert server.requests[-1][1]["temperature"] > 0
    assert server.requests[0] == ("/v1/models", None, None)


def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(server, endpoint, waits):
    busy = (503, b"busy", {})
    server.replies = [busy, (429, b"", {"Retry-After": "7"}), busy, (0, b"", {})]
    assert endpoint.ask([{"role": "user", "content": "x"}], 0) == "re: x"
    assert waits == [0.5, 7.0, 2.0, 4.0]


def test_a_server_that_stays_busy_is_given_up(server, endpoint, waits):
    server.replies = [(500, b"out of\nmemory", {})] * 99
    with pytest.raises(BackendError, match=r"failed 6 times \(500 out of memory\)"):
        endpoint.ask([{"role": "user", "content": "x"}], 0)
    assert len(waits) == N_TRIES - 1
    assert len(server.requests) == 1 + N_TRIES


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((404, b"no such model", {}), r"answered 404 \(no such model\): .* --endpoint-model"),
        ((401, b"", {}), "answered 401: expected a key in EDGESPEC_API_KEY"),
        ((400, b"too long", {}), r"answered 400 \(too long\): expected 200"),
        ((200, b"<html>", {}), "answered b'<html>': expected JSON"),
        ((200, b'{"choices": []}', {}), "expected a chat completion"),
        ((200, b"[1]", {}), "expected a chat completion"),
        ((302, b"", {"Location": "http://elsewhere/"}), "sends to http://elsewhere/: expected"),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(server, endpoint, waits, reply, why):
    server.replies = [reply]
    with pytest.raises(UsageError, match=why) as caught:
        endpoint.ask([{"role": "user", "content": "x"}], 0)
    assert "\n" not in str(caught.value)
    assert waits == []


def test_an_answer_without_text_is_an_empty_one(server, endpoint):
    server.replies = [(200, b'{"choices": [{"message": {"content": null}}]}', {})]
    assert endpoint.ask([{"role": "user", "content": "x"}], 0) == ""


def test_a_server_that_is_not_there_is_named():
    waits: list[float] = []
    with pytest.raises(BackendError, match=r"127.0.0.1:9/v1 failed 6 times \(.*refused"):
        Endpoint("http://127.0.0.1:9", sleep=waits.append)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "x", "http:///v1"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(UsageError, match="expected a URL as in http://localhost:8000/v1"):
        base_of(url)


@pytest.mark.parametrize(
    "url", ["http://a:1", "http://a:1/", "http://a:1/v1", "http://a:1/v1/chat/completions"]
)
def test_a_url_may_be_given_short_or_long(url):
    assert base_of(url) == "http://a:1/v1"


def test_trimming_by_the_answers_of_a_server(server, stories260k, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("edgespec.export.trim.pair.draft_steps", lambda *_, **__: [2.0, 1.0])
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"The little cat saw {i}."}) + "\n" for i in range(9))
    )
    out = tmp_path / "b.gguf"
    words = [
        "export",
        "trim",
        str(stories260k),
        "--endpoint",
        server.url,
        "--prompts",
        str(prompts),
    ]
    assert main([*words, "--coverage", "0.9", "-o", str(out), "--json", "-"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["counted_in"] == "answers of the endpoint"
    assert said["n_counted"] > 40
    assert out.is_file()
    assert len(server.requests) == 10
    main([*words, "--coverage", "0.95", "-o", str(out)])
    assert len(server.requests) == 11  # its models; no prompt again


def test_an_error_of_a_worker_is_raised_here(path):
    def fails(messages, sample):
        raise EdgeSpecError("no")

    with pytest.raises(EdgeSpecError, match="no"):
        collect(QUESTIONS, fails, Answers(path), "m", n_parallel=4)
    assert not path.exists()
