"""What an app calls: replies instead of exceptions, tokens into a sink, ends from elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgespec.phone.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "Tell me a story about a fox who lost her kite."
SETTINGS: dict[str, Any] = {"pair": "demo", "max_tokens": 24, "threads": 1}


class Sink:
    """Keeps what it is told; go_on: asked after each token."""

    def __init__(self, go_on: Callable[[int], bool] = lambda n: True) -> None:
        self.tokens: list[tuple[str, bool]] = []
        self._go_on = go_on

    def onToken(self, text: str, from_draft: bool) -> bool:
        self.tokens.append((text, from_draft))
        return self._go_on(len(self.tokens))

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.tokens)


def conversation(*texts: str) -> str:
    """Questions and answers in turn, as the app sends them."""
    roles = ("user", "assistant")
    return json.dumps([{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the demo pair, for tests that leave it open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        engine = Engine()
        assert "error" not in engine.open_session(json.dumps(SETTINGS))
        yield engine
        engine.close()


def test_an_answer_streams_as_a_session_says_it(shared: Engine) -> None:
    import edgespec

    sink = Sink()
    reply = shared.generate(conversation(QUESTION), sink)
    assert (reply["finish"], reply["n_tokens"], reply["n_left_out"]) == ("length", 24, 0)
    assert reply["tokens_per_s"] > 0
    assert len(sink.tokens) > 20
    with edgespec.load(max_tokens=24, threads=1) as session:
        messages = [{"role": "user", "content": QUESTION}]
        assert sink.text == "".join(piece.text for piece in session.chat(messages))
    assert shared.stats() == {k: v for k, v in reply.items() if k != "n_left_out"}


def test_what_was_drafted_is_told_token_by_token() -> None:
    engine, sink = Engine(), Sink()
    opened = engine.open_session(json.dumps({**SETTINGS, "speculative": "on"}))
    assert (opened["name"], opened["drafts"], opened["n_context"]) == ("target", True, 1024)
    reply = engine.generate(conversation(QUESTION), sink)
    engine.close()
    drafted = sum(from_draft for _, from_draft in sink.tokens)
    assert 0 < drafted < len(sink.tokens)
    assert 0 < reply["acceptance"] <= 1
    assert reply["n_drafted"] > 0


def test_the_sink_ends_an_answer(shared: Engine) -> None:
    sink = Sink(lambda n: n < 5)
    reply = shared.generate(conversation(QUESTION), sink)
    assert reply["finish"] == "cancelled"
    assert len(sink.tokens) == 5


def test_another_thread_ends_an_answer(shared: Engine) -> None:
    begun = threading.Event()

    def go_on(n: int) -> bool:
        if n == 3:
            begun.set()
            other.join()
        return True

    other = threading.Thread(target=lambda: begun.wait() and shared.cancel())
    other.start()
    sink = Sink(go_on)
    reply = shared.generate(conversation(QUESTION), sink)
    assert reply["finish"] == "cancelled"
    assert 3 <= len(sink.tokens) < 24
    assert shared.generate(conversation(QUESTION), Sink())["finish"] == "length"


def test_a_conversation_that_is_too_long_loses_its_beginning(shared: Engine) -> None:
    told = [QUESTION, "Once upon a time. " * 60] * 5
    reply = shared.generate(conversation(*told, "Who was it?"), Sink())
    assert reply["n_left_out"] > 0
    assert reply["finish"] in ("length", "stop")


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda e: e.generate("[]", Sink()), "UsageError", "empty: expected a question"),
        (lambda e: e.generate("{", Sink()), "UsageError", "the conversation: .*expected JSON"),
        (lambda e: e.generate('"a"', Sink()), "UsageError", "'a': expected a JSON list"),
        (lambda e: e.generate('[{"role": "x"}]', Sink()), "UsageError", "expected roles and texts"),
        (lambda e: e.generate(conversation("a", "b"), Sink()), "UsageError", "of assistant: exp"),
        (lambda e: e.generate(conversation("a"), object()), "Fault", "AttributeError.*onToken"),
        (lambda e: e.adjust('{"mood": 1}'), "UsageError", "expected thermal, battery, charging"),
        (lambda e: e.serve(" "), "UsageError", "the key is empty"),
        (lambda e: e.benchmark("{}"), "UsageError", "expected a JSON list"),
        (lambda e: e.load("/none.json", Sink()), "UsageError", "none.json"),
    ],
)
def test_what_goes_wrong_is_a_reply(
    shared: Engine, call: Callable[[Engine], Any], kind: str, message: str
) -> None:
    reply = call(shared)
    assert reply["error"] == kind
    assert re.search(message, reply["message"])
    assert "\n" not in reply["message"]
    assert shared.generate(conversation(QUESTION), Sink())["finish"] == "length"


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"model": "/none/model.gguf"}, "ModelFileError", "model.gguf"),
        ({"pair": "demmo"}, "UsageError", "demmo"),
        ({"treads": 2}, "UsageError", "did you mean 'threads'"),
        ({"memory_bytes": 1 << 20}, "ModelFileError", "take 17.9 MB: expected at most the 1.05 MB"),
    ],
)
def test_models_that_cannot_be_opened_leave_those_that_are(
    shared: Engine, settings: dict[str, Any], kind: str, message: str
) -> None:
    reply = shared.open_session(json.dumps(settings))
    assert reply["error"] == kind
    assert message in str(reply["message"])
    assert shared.generate(conversation(QUESTION), Sink())["finish"] == "length"


def test_nothing_is_open_at_first() -> None:
    engine = Engine()
    assert engine.stats()["n_tokens"] == 0
    assert engine.cancel() == engine.close() == {}
    assert "expected open_session first" in engine.generate(conversation("a"), Sink())["message"]


def test_models_that_were_unloaded_come_back_with_the_next_question(shared: Engine) -> None:
    first, second = Sink(), Sink()
    shared.generate(conversation(QUESTION), first)
    assert shared.unload() == {"loaded": False}
    assert shared.stats()["n_tokens"] == 0
    shared.generate(conversation(QUESTION), second)
    assert first.text == second.text


def test_a_warm_device_drafts_less_from_the_next_round_on(shared: Engine) -> None:
    def go_on(n: int) -> bool:
        if n == 4:
            assert shared.adjust('{"thermal": 3}') == {"why": "the device is hot"}
        return True

    reply = shared.generate(conversation(QUESTION), Sink(go_on))
    assert reply["note"] == "the device is hot"
    assert shared.generate(conversation(QUESTION), Sink())["n_drafted"] == 0
    assert shared.adjust('{"thermal": 0, "battery": 80}') == {"why": ""}
    assert shared.generate(conversation(QUESTION), Sink())["note"] != "the device is hot"


@pytest.mark.slow
def test_both_ways_are_measured_in_turns_and_say_the_same(shared: Engine) -> None:
    class Progress:
        def __init__(self) -> None:
            self.shares: list[float] = []

        def onProgress(self, what: str, share: float) -> None:
            self.shares += [share] if what == "measuring" else []

    progress = Progress()
    reply = shared.benchmark(json.dumps([QUESTION]), progress)
    assert reply["n_same"] == reply["n_questions"] == 1
    assert reply["least"] <= reply["times"] <= reply["most"]
    assert min(reply["with_tokens_per_s"], reply["without_tokens_per_s"]) > 0
    assert progress.shares == [i / 6 for i in range(6)]


@pytest.mark.slow
def test_others_on_the_device_are_served_who_know_the_key(shared: Engine) -> None:
    reply = shared.serve("secret")
    assert str(reply["url"]).startswith("http://127.0.0.1:")
    body = json.dumps({"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4})

    def ask(key: str) -> Any:
        request = urllib.request.Request(
            f"{reply['url']}/chat/completions",
            body.encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    assert ask("secret")["choices"][0]["message"]["content"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask("guess")
    assert shared.generate(conversation(QUESTION), Sink())["finish"] == "length"
    assert shared.unload() == {"loaded": True}
    taken = Engine()
    taken.open_session(json.dumps({**SETTINGS, "speculative": "off"}))
    port = int(str(reply["url"]).rsplit(":", 1)[1].split("/")[0])
    assert f"port {port}" in str(taken.serve("secret", port)["message"])
    assert taken.generate(conversation(QUESTION), Sink())["finish"] == "length"
    taken.close()
    assert shared.stop_serving() == {}
    assert shared.generate(conversation(QUESTION), Sink())["finish"] == "length"


def test_a_saved_conversation_comes_back_message_by_message(tmp_path: Path) -> None:
    class Messages:
        def __init__(self) -> None:
            self.all: list[tuple[str, str]] = []

        def onMessage(self, role: str, text: str) -> None:
            self.all.append((role, text))

    engine, found = Engine(), Messages()
    path = str(tmp_path / "talk.json")
    assert engine.save(path, conversation("Zoë?", "Yes.")) == {}
    assert engine.load(path, found) == {}
    assert found.all == [("user", "Zoë?"), ("assistant", "Yes.")]


# As in the app: Android's name, no interpreter to start, and none of the packages it goes without.
IN_AN_APP = """
import sys, subprocess, builtins, json
ABSENT = ("onnxruntime", "huggingface_hub", "rich", "pygments", "prompt_toolkit", "psutil", "gguf",
          "edgespec.models", "edgespec.export")
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT or name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
def refuse(*args, **more):
    raise AssertionError(f"called with {args}")
sys.platform, subprocess.Popen, builtins.print = "android", refuse, refuse
from edgespec.phone.engine import Engine
class Sink:
    said = ""
    def onToken(self, text, from_draft):
        Sink.said += text
        return True
engine = Engine()
for _ in range(2):
    opened = engine.open_session(json.dumps({**json.loads(sys.argv[1]), "max_tokens": 8}))
    assert "error" not in opened, opened
    reply = engine.generate('[{"role": "user", "content": "Hello."}]', Sink())
    assert reply["finish"] in ("stop", "length"), reply
engine.close()
assert sys.platform == "android"
sys.stdout.write(json.dumps([opened, Sink.said]))
"""


def in_an_app(settings: dict[str, Any], path: Path = ROOT) -> list[Any]:
    """What the engine says of itself, and what it answers twice."""
    done = subprocess.run(
        [sys.executable, "-c", IN_AN_APP, json.dumps(settings)],
        capture_output=True, text=True, cwd=path, check=False,
        env={**os.environ, "PYTHONPATH": str(path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.slow
def test_in_an_app_it_starts_no_process_and_prints_nothing(
    tmp_path: Path, stories260k: Path
) -> None:
    opened, said = in_an_app({"files": str(tmp_path), "threads": 1})
    assert opened["name"] == "target"
    assert said
    model = {"model": str(stories260k), "drafter": "ngram", "chat_template": "chatml"}
    opened, said = in_an_app({"files": str(tmp_path), "threads": 1, **model})
    assert opened["name"] == "stories260K-f32"
    known = json.loads((tmp_path / "edgespec" / "models-tried.json").read_text())
    assert known[str(stories260k.resolve())]["ways"] == {"map": {}}
    assert list((tmp_path / "edgespec" / "opening").iterdir()) == []


@pytest.mark.slow
def test_the_files_that_the_app_takes_are_enough(tmp_path: Path) -> None:
    build = (ROOT / "android_demo" / "app" / "build.gradle.kts").read_text(encoding="utf-8")
    patterns = [p for call in re.findall(r" include\((.*)\)", build) for p in call.split(", ")]
    assert len(patterns) == 4
    for pattern in patterns:
        for source in ROOT.glob(pattern.strip('"').replace("/**", "/**/*")):
            if source.is_file() and "__pycache__" not in source.parts:
                target = tmp_path / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    opened, said = in_an_app({"files": str(tmp_path / "files"), "threads": 1}, tmp_path)
    assert opened["name"] == "target"
    assert said
