"""GGUF drafters with a trimmed head: the same logits, fewer of them, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from edgespec.export.trim.head import trim, vocabulary_path
from gguf_maker import Gguf, string, u32s
from model_maker import ARCHITECTURES, DEMO, TIED_ONLY, make

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.trimmed import LlamaCppTrimmedModel, is_trimmed
from edgespec.decode.sampling import law_of
from edgespec.decode.uniforms import Uniforms
from edgespec.drafters.model import ModelDrafter
from edgespec.errors import (
    BackendError,
    ContextError,
    EdgeSpecError,
    ModelFileError,
    ShapeError,
    UsageError,
)
from edgespec.protocols import Drawing
from edgespec.session.load import load
from edgespec.types import SamplingParams

OPTIONS = ModelOptions(n_context=96, n_threads=1, device="cpu")
TOKENS = [1, 403, 407, 261, 378, 383, 286, 261, 376, 298, 315, 511]
V, K = 512, 192
KEPT = np.sort(np.random.default_rng(3).choice(V, K, replace=False)).astype(np.int32)
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K")
# Each architecture tied and untied in some kinds; all of them: slow/test_trim_full.py.
CASES = [
    (architecture, KINDS[(2 * i + j) % len(KINDS)], bool(j))
    for i, architecture in enumerate(ARCHITECTURES)
    for j in (1, 0)
    if j or architecture not in TIED_ONLY
]
CASES += [("gemma", "Q4_K", True), ("gemma2", "Q4_0", True), ("llama", "Q6_K", False)]


def whole(path: Path) -> LlamaCppModel:
    return LlamaCppModel(path, OPTIONS, loading="map")


def trimmed(path: Path, **changes: Path) -> LlamaCppTrimmedModel:
    return LlamaCppTrimmedModel(path, OPTIONS, loading="map", **changes)


def logits(model, tokens=TOKENS):
    """After each token, read at once, then in two pieces, then singly."""
    rows = [model.forward(tokens).copy()]
    model.truncate(0)
    model.extend(tokens[:7])
    rows.append(model.forward(tokens[7:]).copy())
    model.truncate(5)
    rows += [model.forward([token]).copy() for token in tokens[5:]]
    model.close()
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def small(tmp_path_factory, stories260k):
    """The trained 260K model with 192 of its 512 rows."""
    path = tmp_path_factory.mktemp("trimmed") / "small.gguf"
    trim(stories260k, path, KEPT)
    return path


@pytest.fixture
def copied(small, tmp_path):
    """The same in a folder of its own, to be damaged."""
    for path in (small, vocabulary_path(small)):
        shutil.copy(path, tmp_path)
    return tmp_path / small.name


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "kind", "tied"), CASES)
def test_logits_of_kept_rows_are_the_whole_models_bit_for_bit(
    architecture, kind, tied, stories260k, tmp_path
):
    source = make(
        tmp_path / "whole.gguf", architecture, kind=kind, tied=tied, vocabulary=stories260k,
        head_bias=architecture == "qwen2" and not tied,
    )  # fmt: skip
    trim(source, tmp_path / "small.gguf", KEPT)
    expected, seen = logits(whole(source)), logits(trimmed(tmp_path / "small.gguf"))
    assert seen.shape == (len(expected), K)
    assert np.array_equal(seen, expected[:, KEPT])
    assert len(np.unique(expected.argmax(axis=1))) > 3  # the model is no constant


def test_a_trained_model_keeps_its_logits(small, stories260k):
    assert np.array_equal(logits(trimmed(small)), logits(whole(stories260k))[:, KEPT])


def test_it_is_opened_by_its_name_and_knows_the_whole_vocabulary(small, stories260k):
    assert is_trimmed(small)
    assert not is_trimmed(stories260k)
    assert not is_trimmed(small.with_name("absent.gguf"))
    model = open_model(small, OPTIONS)
    assert isinstance(model, LlamaCppTrimmedModel)
    assert model.token_ids.dtype == np.int32
    assert model.token_ids.tolist() == KEPT.tolist()
    assert model.n_vocab == V
    assert model.tokenizer.n_vocab == V
    text = "Once upon a time, there was a zebra."
    ids = model.tokenizer.encode(text)
    assert b"".join(map(model.tokenizer.piece, ids)).decode().strip() == text
    info, other = model.info(), whole(stories260k)
    assert info.n_params == other.n_params - 2 * (V - K) * 64  # embedding and head
    other.close()
    assert info.n_bytes == small.stat().st_size + vocabulary_path(small).stat().st_size
    model.close()
    model.close()
    with pytest.raises(BackendError, match="the model is closed"):
        model.forward([1])
    other = open_model(stories260k, OPTIONS)
    assert isinstance(other, LlamaCppModel)
    other.close()


def test_tokens_without_a_row_can_be_read_but_not_unknown_ones(small):
    model = trimmed(small)
    absent = next(token for token in range(V) if token not in KEPT)
    assert model.forward([absent]).shape == (1, K)
    for tokens in ([V], [-1], [1 << 40], [3, V]):
        with pytest.raises(ShapeError, match=r"token -?\d+ is unknown: expected 0 to 511"):
            model.forward(tokens)
    assert model.length == 1
    with pytest.raises(ShapeError, match="given a tree: expected a chain"):
        model.forward([1, 2, 3], [-1, 0, 0])
    with pytest.raises(ContextError, match="expected at most the 96"):
        model.extend([5] * 200)
    assert model.forward([], []).shape == (0, K)
    model.close()


def test_a_drafter_proposes_kept_tokens_by_their_ids(small, stories260k):
    drafter, full = ModelDrafter(trimmed(small)), ModelDrafter(whole(stories260k))
    draft = drafter.draft(TOKENS, 8)
    assert len(draft) == 8
    assert set(draft.tokens) <= set(KEPT.tolist())
    rows = logits(whole(stories260k), [*TOKENS, *draft.tokens])[len(TOKENS) - 1 :]
    assert draft.tokens[0] == KEPT[rows[0, KEPT].argmax()]
    assert 0 < draft.confidence[0] <= 1
    assert full.draft(TOKENS, 8).tokens  # both kinds go through one class
    drafter.close()
    full.close()


def test_a_drawn_draft_has_a_law_of_all_tokens_with_nothing_on_absent_ones(small):
    drafter = ModelDrafter(trimmed(small))
    law = law_of(SamplingParams(temperature=1.3, top_k=300, repeat_penalty=1.3))
    absent = np.setdiff1d(np.arange(V), KEPT)
    for seed in range(4):
        u = np.random.default_rng(seed).random(5)
        draft = drafter.draft([*TOKENS, seed], 5, Drawing(law, Uniforms(*u)))
        assert draft.probs.shape == (5, V)
        assert draft.probs.sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert not draft.probs[:, absent].any()
        assert all(draft.probs[i, token] > 0 for i, token in enumerate(draft.tokens))
    drafter.close()


@pytest.mark.slow
def test_text_with_a_trimmed_drafter_is_the_plain_text(tmp_path):
    target, small = DEMO.with_name("target.gguf"), tmp_path / "small.gguf"
    trim(DEMO, small, range(0, 4096, 4))
    options = {"threads": 1, "max_tokens": 40, "ctx_size": 256, "device": "cpu"}
    messages = [{"role": "user", "content": "Tell me a story about a fox who lost a kite."}]
    said = []
    for how in ({"speculative": "off"}, {"draft_model": small, "speculative": "on"}):
        with load(target, drafter="auto", **options, **how) as session:
            list(session.chat(messages))
            said.append(session.turns.output)
            stats = session.stats
    assert said[0] == said[1]
    assert stats.n_accepted > 0


def test_it_cannot_be_a_target(small):
    with pytest.raises(
        UsageError, match=r"small.gguf has a trimmed head \(192 rows\): .* with -md"
    ):
        load(small, speculative="off")


def refused(path: Path) -> str:
    with pytest.raises(EdgeSpecError, match="expected") as caught:
        trimmed(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_vocabulary_file_is_named(copied):
    vocabulary_path(copied).unlink()
    assert "small.gguf needs small.vocab.gguf: expected that file beside it" in refused(copied)


def test_the_vocabulary_of_another_model_is_refused_though_of_equal_size(
    copied, tmp_path, stories260k
):
    raw = bytearray(stories260k.read_bytes())
    raw[-1] ^= 1
    (tmp_path / "other.gguf").write_bytes(raw)
    trim(tmp_path / "other.gguf", tmp_path / "b.gguf", KEPT)
    shutil.copy(tmp_path / "b.vocab.gguf", vocabulary_path(copied))
    assert "small.vocab.gguf is not the vocabulary of small.gguf" in refused(copied)


def test_a_vocabulary_cut_short_or_without_the_table_is_refused(copied, stories260k):
    vocabulary = vocabulary_path(copied)
    raw = vocabulary.read_bytes()
    vocabulary.write_bytes(raw[:-100])
    assert "ends 100 bytes before the end" in refused(copied)
    vocabulary.write_bytes(raw + bytes(64))
    assert "is not the vocabulary of small.gguf" in refused(copied)


def test_vectors_of_another_table_are_noticed(copied):
    vocabulary = vocabulary_path(copied)
    made = Gguf.read(vocabulary)
    made.data = np.random.default_rng(1).normal(size=len(made.data) // 4).astype("<f4").tobytes()
    vocabulary.write_bytes(made.bytes())
    assert "small.vocab.gguf has other vectors than the trimmed model" in refused(copied)


ROWS = f"says it has {K} tokens of {V}"
DAMAGED = "has damaged keys of a trim"


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("edgespec.trim.token_ids", u32s(*range(K - 1)), f"says it has {K - 1} tokens of {V}"),
        ("edgespec.trim.token_ids", u32s(*range(K, 0, -1)), ROWS),
        ("edgespec.trim.token_ids", u32s(*range(V - K + 1, V + 1)), ROWS),
        ("edgespec.trim.token_ids", u32s(*[5] * K), ROWS),
        ("edgespec.trim.token_ids", string("all"), DAMAGED),
        ("edgespec.trim.vocab_size", string("many"), DAMAGED),
        ("edgespec.trim.vocabulary", None, DAMAGED),
        ("edgespec.trim.source", None, DAMAGED),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(copied, key, value, why):
    made = Gguf.read(copied)
    if value is None:
        del made.keys[key]
    else:
        made.keys[key] = value
    copied.write_bytes(made.bytes())
    assert why in refused(copied)


def test_a_name_that_leaves_the_folder_is_not_followed(copied, tmp_path):
    made = Gguf.read(copied)
    made.keys["edgespec.trim.vocabulary"] = string("../small.vocab.gguf")
    copied.write_bytes(made.bytes())
    assert "export it again" in refused(copied)


def test_opening_a_cut_file_is_one_line(copied):
    copied.write_bytes(copied.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="before the end of"):
        open_model(copied, OPTIONS)
