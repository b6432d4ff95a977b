"""Ends that come early or between answers, limits of who is served, what is told of the server."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from edgespec.phone import engine as engine_module
from edgespec.phone.engine import STACK_BYTES, Engine
from edgespec.session.session import Session

SETTINGS: dict[str, Any] = {"pair": "demo", "max_tokens": 8, "threads": 1, "speculative": "on"}
QUESTION = json.dumps([{"role": "user", "content": "Tell me a story about a red kite."}])


class Sink:
    """Counts what it is told."""

    n = 0

    def onToken(self, text: str, from_draft: bool) -> bool:
        self.n += 1
        return True


@pytest.fixture
def engine() -> Iterator[Engine]:
    """With the demo pair open."""
    engine = Engine()
    assert "error" not in engine.open_session(json.dumps(SETTINGS))
    yield engine
    engine.close()


def asked(url: str) -> Any:
    """What the server answers."""
    body = {"messages": json.loads(QUESTION), "max_tokens": 8}
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": "Bearer key", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_stop_while_models_are_opened_again_ends_the_answer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.unload()

    def opened(*args: Any, **more: Any) -> Session:
        engine.cancel()
        return Session(*args, **more)

    monkeypatch.setattr(engine_module, "Session", opened)
    sink = Sink()
    assert engine.generate(QUESTION, sink)["finish"] == "cancelled"
    assert sink.n == 0
    assert engine.generate(QUESTION, sink)["finish"] == "length"


def test_a_stop_between_two_answers_ends_the_measurement(engine: Engine) -> None:
    class Progress:
        shares: list[float] = []

        def onProgress(self, what: str, share: float) -> None:
            if what == "measuring":
                self.shares.append(share)
                engine.cancel()

    assert engine.benchmark('["Hello."]', Progress())["error"] == "Cancelled"
    assert Progress.shares == [0]


def test_a_stop_after_an_answer_does_not_end_the_next_one(engine: Engine) -> None:
    engine.cancel()
    assert engine.generate(QUESTION, Sink())["finish"] == "length"


def test_who_is_served_on_a_warm_device_has_its_limits(engine: Engine) -> None:
    url = str(engine.serve("key")["url"])
    for thermal, drafts in ((3, False), (0, True)):
        engine.adjust(json.dumps({"thermal": thermal}))
        asked(url)
        assert (engine.stats()["n_drafted"] > 0) == drafts


@pytest.mark.slow
def test_where_models_are_served_is_told_after_others_were_opened(engine: Engine) -> None:
    assert engine.serving() == {"url": ""}
    url = str(engine.serve("key")["url"])
    assert engine.serving() == {"url": url} and url.startswith("http://127.0.0.1:")
    engine.open_session(json.dumps(SETTINGS))
    assert engine.serving() == {"url": ""}


@pytest.mark.slow
def test_served_answers_have_large_stacks_and_other_threads_their_own(engine: Engine) -> None:
    before = threading.stack_size()
    engine.serve("key")
    assert threading.stack_size() == STACK_BYTES
    engine.stop_serving()
    assert threading.stack_size() == before
