"""Models that requests name, real ones: loaded, listed, refused, closed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from model_maker import make
from serving import ASK, Answered, call

import edgespec
from edgespec.server.limits import Limits
from edgespec.server.running import Others, Server

PATH = "/v1/chat/completions"
HUB = "huggingface_hub.constants.HF_HUB_CACHE"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of the demo pair that serves others, and the files of a folder."""
    folder = tmp_path_factory.mktemp("folder")
    make(folder / "random.gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(HUB, str(tmp_path_factory.mktemp("hub")))
        patch.delenv("EDGESPEC_REAL_MODELS", raising=False)
        others = Others(folder=str(folder), idle_s=0.0)
        options: dict[str, Any] = {"threads": 1, "parallel": 2, "ctx_size": 256, "max_tokens": 6}
        options |= {"speculative": "off", "loading": "map"}
        with edgespec.serve(others=others, **options) as one:
            yield one


def ask(server: Server, name: str, **more: Any) -> Answered:
    return call(server.url, PATH, {"model": name, "messages": ASK, "temperature": 0, **more})


@pytest.mark.slow
def test_requests_to_another_model_load_it_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgespec")
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(server, "random"), range(4)))
    assert {one.status for one in answers} == {200}
    assert {one.body["model"] for one in answers} == {"random"}
    assert len({one.body["choices"][0]["message"]["content"] for one in answers}) == 1
    assert ask(server, "demo").body["model"] == ask(server, "default").body["model"] == "demo"
    streamed = ask(server, "random", stream=True).events()
    assert streamed[-1] == "[DONE]" and '"model":"random"' in streamed[0]
    assert [text for text in caplog.messages if "is loaded" in text] == ["random is loaded"]


def test_models_that_are_open_or_here_are_listed_and_what_is_missing_besides(
    server: Server,
) -> None:
    ask(server, "random")
    listed = call(server.url, "/v1/models").body
    rows = {row["id"]: row for row in listed["data"]}
    assert listed["data"][0]["id"] == "demo"
    with pytest.MonkeyPatch.context() as patch:  # also while it is closed
        patch.delitem(server._house._residents, "demo")
        listed = call(server.url, "/v1/models").body
    assert (listed["data"][0]["id"], listed["data"][0]["status"]) == ("demo", "available")
    assert server._house._residents["random"].n_bytes and server._house._residents["demo"].n_bytes
    assert rows["demo"]["status"] == rows["random"]["status"] == "loaded"
    assert rows["demo-foreign"]["status"] == "available"
    absent = {row["id"]: row["why"] for row in listed["to_fetch"]}
    assert "edgespec models pull llama-3.1-8b" in absent["llama-3.1-8b"]
    assert not set(rows) & set(absent)
    assert call(server.url, "/v1/models/demo-foreign").body["id"] == "demo-foreign"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["gpt-4", "../random", "random.gguf", "/etc/passwd", "models/demo/target.gguf", "a/b:Q4_K_M"],
)
def test_unknown_names_and_paths_are_not_found(server: Server, name: str) -> None:
    for answered in (ask(server, name), ask(server, name, stream=True)):
        assert (answered.status, answered.error["code"]) == (404, "model_not_found")
        assert answered.error["param"] == "model"
    assert call(server.url, "/tokenize", {"content": "x", "model": name}).status == 404


def test_nothing_is_fetched_for_a_request(server: Server) -> None:
    refused = ask(server, "llama-3.1-8b")
    assert refused.status == 404 and "edgespec models pull" in refused.error["message"]
    refused = ask(server, "padded-q8_0")
    assert refused.status == 404 and "made first" in refused.error["message"]


def test_a_damaged_file_is_told_and_serving_goes_on(server: Server) -> None:
    folder = Path(server._house.choices.folder)  # type: ignore[attr-defined]
    file = folder / "torn.gguf"
    shutil.copy(folder / "random.gguf", file)
    file.write_bytes(file.read_bytes()[:5000])
    refused = ask(server, "torn")
    assert refused.status == 503 and "torn cannot be loaded" in refused.error["message"]
    assert ask(server, "demo").status == 200


def test_metrics_tell_models_apart(server: Server) -> None:
    ask(server, "random")
    text = call(server.url, "/metrics").data.decode()
    assert 'vllm:generation_tokens_total{engine="0",model_name="random"}' in text


def test_memory_is_foreseen(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._house, "_free", lambda: 1000)
    refused = ask(server, "demo-foreign")
    assert (refused.status, refused.error["code"]) == (400, "model_too_large")
    assert "of memory, 1.00 kB are free" in refused.error["message"]


def test_a_server_of_one_model_knows_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.serve(speculative="off", threads=1, parallel=1, limits=Limits()) as one:
        assert [row["id"] for row in call(one.url, "/v1/models").body["data"]] == ["demo"]
        assert ask(one, "demo-foreign").status == 404
