"""Rows that a trimmed head grows: the logits are those of the whole head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.trim.head import trim
from model_maker import make
from onnx_maker import ANY_LOSS, exported

from edgespec.adapt.grown import Grown
from edgespec.adapt.missed import Missed
from edgespec.backends import ModelOptions, open_model
from edgespec.protocols import OpenModel

OPTIONS = ModelOptions(n_context=96, n_threads=1, device="cpu", hidden_states=True)
V, K = 512, 192
KEPT = np.sort(np.random.default_rng(3).choice(V, K, replace=False)).astype(np.int32)
ABSENT = np.setdiff1d(np.arange(V), KEPT)
TOKENS = [1, 403, 407, 261, 378, 383, 286]


def grown(path: Path, tmp_path: Path, budget: int = 16) -> Grown:
    model = open_model(path, OPTIONS)
    assert model.token_ids is not None
    return Grown(model, Missed(model.token_ids, V, budget=budget, path=tmp_path / "pair.rows"))


def logits(model: OpenModel) -> np.ndarray:
    """Read at once, and one token more."""
    model.truncate(0)
    rows = [model.forward(TOKENS).copy(), model.forward([411], n_rows=1).copy()]
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, stories260k) -> dict[str, tuple[Path, Path]]:
    """The trained 260K model, and a random Gemma, whose vectors are scaled: whole and trimmed."""
    folder, found = tmp_path_factory.mktemp("trimmed"), {}
    gemma = make(folder / "gemma.gguf", "gemma", kind="Q8_0", tied=True, vocabulary=stories260k)
    for name, whole in {"llama": stories260k, "gemma": gemma}.items():
        small = folder / f"{name}-small.gguf"
        trim(whole, small, KEPT)
        found[name] = whole, small
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_grown_rows_have_the_whole_heads_logits(name: str, pair, tmp_path: Path) -> None:
    whole, small = pair[name]
    model = open_model(whole, OPTIONS)
    expected = logits(model)
    model.close()
    one = grown(small, tmp_path)
    assert one.token_ids is None and one.n_vocab == V
    before = logits(one)
    np.testing.assert_array_equal(before[:, KEPT], expected[:, KEPT])
    assert np.isneginf(before[:, ABSENT]).all()
    for token in ABSENT[:5].tolist():
        one.said(token)
    after, has = logits(one), np.append(KEPT, ABSENT[:5])
    off = np.abs(after[:, has] - expected[:, has]).max()
    assert off < 5e-3 * np.ptp(expected)  # kernels round the states they multiply to 8 bits
    assert np.isneginf(after[:, ABSENT[5:]]).all()
    assert one.has.sum() == K + 5
    one.missed.save()
    one.close()
    again = grown(small, tmp_path)  # in a new session
    np.testing.assert_array_equal(logits(again), after)
    again.close()


def test_rows_go_when_others_are_needed_more(pair, tmp_path: Path) -> None:
    whole, small = pair["llama"]
    model = open_model(whole, OPTIONS)
    expected = logits(model)
    model.close()
    one = grown(small, tmp_path, budget=3)
    logits(one)
    for place in (0, 1, 1, 2, 2, 3, 3):
        one.said(int(ABSENT[place]))
    rows, has = logits(one), ABSENT[1:4]  # the first was said once
    seen = np.isfinite(rows[0])
    assert np.flatnonzero(seen[ABSENT]).tolist() == [1, 2, 3]
    np.testing.assert_array_equal(one.has, seen)
    assert np.abs(rows[:, has] - expected[:, has]).max() < 5e-3 * np.ptp(expected)
    one.close()


@pytest.mark.slow
def test_a_head_that_is_not_the_table_stays(tmp_path: Path, stories260k, caplog) -> None:
    caplog.set_level("INFO")
    whole = make(tmp_path / "w.gguf", "llama", kind="F32", tied=False, vocabulary=stories260k)
    trim(whole, tmp_path / "small.gguf", KEPT)
    one = grown(tmp_path / "small.gguf", tmp_path)
    logits(one)
    one.said(int(ABSENT[0]))
    assert np.isneginf(logits(one)[:, ABSENT]).all()
    assert "the drafter's trimmed head stays" in caplog.text
    one.close()


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["fp32", "int8-channel", "int8"])
def test_a_graph_grows_rows_from_its_input(quant: str, tmp_path: Path, stories260k) -> None:
    source = make(tmp_path / "w.gguf", "llama", kind="F32", tied=True, vocabulary=stories260k)
    exported(source, tmp_path / "whole", GraphOptions(quant, hidden=True), ANY_LOSS)
    exported(source, tmp_path / "small", GraphOptions(quant, hidden=True), ANY_LOSS, token_ids=KEPT)
    model = open_model(tmp_path / "whole", OPTIONS)
    expected = logits(model)
    model.close()
    one = grown(tmp_path / "small", tmp_path)
    logits(one)
    for token in ABSENT[:5].tolist():
        one.said(token)
    after = logits(one)
    off = np.abs(after[:, ABSENT[:5]] - expected[:, ABSENT[:5]]).max()
    assert off < (1e-3 if quant == "fp32" else 0.1) * np.ptp(expected)
    one.close()
