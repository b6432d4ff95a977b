"""Embedding models: what counts as one, and vectors against others' arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from embedder_maker import CLS, LAST, MEAN, RANK, make_bert, make_decoder
from gguf_splitter import split
from model_maker import make

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.gguf.file import read_header
from edgespec.backends.llamacpp.embedder import (
    MOST_TEXTS,
    Embedder,
    batches,
    gives_vectors,
    size_of,
)
from edgespec.errors import BackendError, ContextError, ModelFileError

TEXTS = ("the fox runs in the wood.", "a bear sleeps", "the lake and the fox")
OPTIONS = ModelOptions(n_threads=1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(make_bert(tmp_path_factory.mktemp("bert") / "bert.gguf"), OPTIONS)


def ids_of(model: Embedder, *texts: str) -> list[list[int]]:
    return [model.tokenizer.framed(text) for text in texts]


@pytest.mark.slow
def test_which_files_are_embedding_models(tmp_path: Path) -> None:
    assert gives_vectors(make_bert(tmp_path / "bert.gguf"))
    assert gives_vectors(make_bert(tmp_path / "silent.gguf", pooling=None))
    assert gives_vectors(make_decoder(tmp_path / "decoder.gguf"))
    assert not gives_vectors(make(tmp_path / "llama.gguf"))


def test_keys_and_values_and_all_parts_count_as_memory(tmp_path: Path) -> None:
    bert, decoder = make_bert(tmp_path / "b.gguf"), make_decoder(tmp_path / "d.gguf")
    weights = read_header(bert).n_bytes, read_header(decoder).n_bytes
    assert size_of(bert, OPTIONS) == weights[0]
    # 2 layers, keys and values, 2 heads of 16 numbers of 2 bytes, the 256 tokens it was trained for
    assert size_of(decoder, OPTIONS) == weights[1] + 2 * 2 * 2 * 16 * 2 * 256
    parts = split(bert, 2, tmp_path, "parts")
    assert size_of(parts[0], OPTIONS) == sum(read_header(part).n_bytes for part in parts)


def test_texts_stand_within_the_models_own_tokens(bert: Embedder) -> None:
    (ids,) = ids_of(bert, "the fox")
    assert [bert.tokenizer.text(token) for token in ids] == [
        "[CLS]",
        "\u2581the",
        "\u2581fox",
        "[SEP]",
    ]


def test_a_vector_does_not_depend_on_what_it_is_read_with(bert: Embedder) -> None:
    ids = ids_of(bert, *TEXTS)
    together = bert.embed(ids)
    assert together.shape == (3, bert.n_embd)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for one, expected in zip(ids, together, strict=True):
        np.testing.assert_allclose(bert.embed([one])[0], expected, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.05
    many = bert.embed(ids * 20)  # more than a batch holds
    np.testing.assert_allclose(many, np.tile(together, (20, 1)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [MEAN, LAST])
def test_a_decoders_states_are_pooled_as_its_file_says(tmp_path: Path, pooling: int) -> None:
    """Against the states that the same weights give where they write text."""
    plain = open_model(
        make(tmp_path / "plain.gguf"), ModelOptions(n_threads=1, hidden_states=True, loading="map")
    )
    ids = plain.tokenizer.encode("Once upon a time there was a fox.")
    plain.forward(ids)
    states = plain.hidden.copy()
    plain.close()
    model = Embedder(make_decoder(tmp_path / "pooled.gguf", pooling=pooling), OPTIONS)
    expected = states.mean(axis=0) if pooling == MEAN else states[-1]
    found = model.embed([ids])[0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=2e-3)
    model.close()


def test_what_cannot_be_read_is_refused(bert: Embedder, tmp_path: Path) -> None:
    for ids in ([], [5] * (bert.n_context + 1)):
        with pytest.raises(ContextError, match=f"has {len(ids)} tokens: expected 1 to 64"):
            bert.embed([[5, 6], ids])
    with pytest.raises(ModelFileError, match="ranks texts: expected a model that gives vectors"):
        Embedder(make_bert(tmp_path / "ranks.gguf", pooling=RANK), OPTIONS)
    torn = make_bert(tmp_path / "torn.gguf", pooling=CLS)
    torn.write_bytes(torn.read_bytes()[:20_000])
    with pytest.raises(ModelFileError):
        Embedder(torn, OPTIONS)


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    model = Embedder(make_bert(tmp_path / "bert.gguf", pooling=CLS), OPTIONS)
    assert model.embed([[5, 6]]).shape == (1, model.n_embd)
    model.close()
    model.close()
    with pytest.raises(BackendError, match="is closed"):
        model.embed([[5, 6]])


def test_batches_hold_whole_texts() -> None:
    assert list(batches([3, 3, 3], 6)) == [(0, 2), (2, 3)]
    assert list(batches([6, 1, 6], 6)) == [(0, 1), (1, 2), (2, 3)]
    assert list(batches([], 6)) == []
    assert [end - start for start, end in batches([1] * 70, 1000)] == [MOST_TEXTS, MOST_TEXTS, 6]
