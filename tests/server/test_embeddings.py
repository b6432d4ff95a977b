"""/v1/embeddings, as OpenAI's client asks for it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from embedder_maker import make_bert, make_decoder
from serving import ASK, call

import edgespec
from edgespec.server.running import Others, Server

PATH = "/v1/embeddings"
HUB = "huggingface_hub.constants.HF_HUB_CACHE"
TEXTS = ["the fox runs", "a bear sleeps in the wood"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of a model like BERT, beside which a decoder with pooling and the demo pair are named."""
    folder = tmp_path_factory.mktemp("folder")
    make_decoder(folder / "decoder.gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(HUB, str(tmp_path_factory.mktemp("hub")))
        patch.delenv("EDGESPEC_REAL_MODELS", raising=False)
        others = Others(folder=str(folder))
        bert = make_bert(tmp_path_factory.mktemp("bert") / "bert.gguf")
        with edgespec.serve(bert, others=others, threads=1, parallel=1) as one:
            yield one


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    from openai import OpenAI

    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as one:
        yield one


@pytest.mark.slow
def test_openais_client_gets_vectors(client: Any, server: Server) -> None:
    found = client.embeddings.create(model="bert", input=TEXTS)  # it asks for base64
    vectors = np.array([one.embedding for one in found.data])
    assert vectors.shape == (2, 32) and [one.index for one in found.data] == [0, 1]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert found.model == "bert" and found.usage.prompt_tokens == found.usage.total_tokens == 13
    alone = client.embeddings.create(model="default", input=TEXTS[0], encoding_format="float")
    np.testing.assert_allclose(alone.data[0].embedding, vectors[0], atol=1e-5)


def test_texts_may_be_ids_and_vectors_shorter(server: Server) -> None:
    def vectors(**given: Any) -> Any:
        answered = call(server.url, PATH, given)
        assert answered.status == 200, answered.data
        return np.array([one["embedding"] for one in answered.body["data"]])

    by_text = vectors(input=TEXTS[0])
    ids = call(server.url, "/tokenize", {"content": TEXTS[0]}).body["tokens"]
    np.testing.assert_allclose(vectors(input=ids), by_text, atol=1e-5)
    np.testing.assert_allclose(vectors(input=[ids, ids]), np.tile(by_text, (2, 1)), atol=1e-5)
    cut = vectors(input=TEXTS[0], dimensions=8)
    np.testing.assert_allclose(cut[0], by_text[0, :8] / np.linalg.norm(by_text[0, :8]), atol=1e-5)
    coded = call(server.url, PATH, {"input": TEXTS[0], "encoding_format": "base64"}).body
    written = base64.b64decode(coded["data"][0]["embedding"])
    np.testing.assert_allclose(np.frombuffer(written, "<f4"), by_text[0], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "param", "expected"),
    [
        ({}, "input", "missing"),
        ({"input": []}, "input", "expected 1 to 2048"),
        ({"input": ["x"] * 2049}, "input", "2049 texts"),
        ({"input": [[]]}, "input", "has 0 tokens: expected 1 to 64"),
        ({"input": "fox " * 100}, "input", "has 102 tokens"),
        ({"input": [1 << 30]}, "input", "expected a whole number"),
        ({"input": [{"a": 1}]}, "input", "expected texts"),
        ({"input": "x", "dimensions": 33}, "dimensions", "expected 1 to 32"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format", "one of float, base64"),
        ({"input": "x", "modle": "x"}, "modle", "did you mean 'model'?"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    server: Server, given: dict[str, Any], param: str, expected: str
) -> None:
    refused = call(server.url, PATH, given)
    assert refused.status == 400
    assert refused.error["param"] == param
    if param == "input" and "tokens" in expected:
        code = "context_length_exceeded" if "102" in expected else "invalid_value"
        assert refused.error["code"] == code
    assert expected in refused.error["message"]


def test_too_many_are_refused_before_they_are_read(server: Server) -> None:
    bench, model = server._bench, server._house.open()["bert"]
    assert model.opened.n_slots == 1  # type: ignore[union-attr]
    waiting = [bench._work("bert") for _ in range(bench.limits.queue + 1)]
    try:
        assert call(server.url, PATH, {"input": "a fox"}).status == 429
        assert call(server.url, PATH, {"input": "a fox", "model": "decoder"}).status == 200
        assert call(server.url, "/tokenize", {"content": "a fox"}).status == 200
    finally:
        bench._live.difference_update(waiting)


def test_who_gets_vectors_does_not_wait(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder: Any = server._house.open()["bert"].opened._embedder  # type: ignore[union-attr]
    counts, embed = list[tuple[int, int]](), embedder.embed

    def counting(texts: Any) -> Any:
        counts.append(server._bench.counts("bert"))
        return embed(texts)

    monkeypatch.setattr(embedder, "embed", counting)
    assert call(server.url, PATH, {"input": "a fox"}).status == 200
    assert counts == [(1, 0)]  # one is answered, nobody waits


@pytest.mark.slow
def test_each_kind_of_model_does_its_own(server: Server) -> None:
    assert len(call(server.url, PATH, {"model": "decoder", "input": "a fox"}).body["data"]) == 1
    for path, given in (
        ("/v1/chat/completions", {"messages": ASK}),
        ("/v1/completions", {"prompt": "x", "stream": True}),
        ("/v1/responses", {"input": "x"}),
    ):
        refused = call(server.url, path, given)
        assert (refused.status, refused.error["code"]) == (400, "unsupported_model")
        assert "gives vectors and no text" in refused.error["message"]
    refused = call(server.url, PATH, {"model": "demo", "input": "x"})
    assert refused.status == 400 and "expected an embedding model" in refused.error["message"]
    assert call(server.url, "/").status == 200 and call(server.url, "/health").status == 200
