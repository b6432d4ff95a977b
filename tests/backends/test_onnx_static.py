"""The static model's folder, exported and opened: precision, rollback, trees, refusals."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgespec.export.npu.check import StaticReport, judge
from edgespec.export.npu.export import StaticOptions, export_static, pieces_of
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.export.read.hf import open_hf
from hf_maker import llama_of, write_tokenizer
from npu_maker import CONTEXT, quiet, some_text, static_folder

from edgespec.backends import ModelOptions
from edgespec.backends.onnx import folder as onnx_folder
from edgespec.backends.onnx.model import OnnxModel
from edgespec.backends.onnx.static_folder import StaticFolder
from edgespec.errors import (
    BackendError,
    Cancelled,
    ContextError,
    ModelFileError,
    ShapeError,
    UsageError,
)

STORY = "Once upon a time there was a little girl named Lily. She liked to play with her ball"
PRECISIONS = ("fp32", "fp16", "int8")
# Largest difference of logits, which span +-30, from the model of 32-bit floats.
NEAR = {"fp32": 0.0, "fp16": 0.1, "int8": 1.5}
Model = OnnxModel


@pytest.fixture(scope="module")
def models(data_folder: Path) -> Any:
    """An open model of each precision."""
    options = ModelOptions(n_threads=1)
    found = {kind: Model(static_folder(data_folder, kind), options) for kind in PRECISIONS}
    yield found
    for model in found.values():
        model.close()


@pytest.fixture(params=PRECISIONS)
def model(models: dict[str, Model], request: pytest.FixtureRequest) -> Model:
    models[request.param].truncate(0)
    return models[request.param]


@pytest.fixture
def exact(models: dict[str, Model]) -> Model:
    models["fp32"].truncate(0)
    return models["fp32"]


@pytest.fixture(scope="module")
def checkpoint(data_folder: Path) -> Any:
    return open_gguf_checkpoint(data_folder / "models" / "stories260K-f32.gguf")


def story(model: Model) -> list[int]:
    return model.tokenizer.encode(STORY, bos=True)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_says_the_same(models: dict[str, Model], precision: str) -> None:
    exact, model = models["fp32"], models[precision]
    tokens = story(exact)
    exact.truncate(0)
    expected = exact.forward(tokens)
    model.truncate(0)
    found = model.forward(tokens)
    assert np.abs(found - expected).max() <= NEAR[precision]
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9
    assert found.dtype == np.float32


def test_rollback_is_exact_in_every_precision(model: Model) -> None:
    tokens = story(model)
    model.extend(tokens[:10])
    expected = np.concatenate([model.forward([token]).copy() for token in tokens[10:14]])
    model.truncate(10)
    model.forward([5, 6, 7, 8, 9])
    model.truncate(10)
    again = np.concatenate([model.forward([token]).copy() for token in tokens[10:14]])
    assert np.array_equal(expected, again)


def test_a_tree_wider_than_the_graph_is_read_in_pieces(model: Model) -> None:
    tokens, kept = [10, 20, 30, 40, 50, 60, 70, 80], [0, 3, 6, 7]
    model.extend(story(model)[:7])
    rows = model.forward(tokens, [-1, 0, 0, 0, 2, 1, 3, 6])[kept].copy()
    model.keep(kept)
    after = model.forward([90]).copy()
    model.truncate(7)
    plain = model.forward([10, 40, 70, 80, 90])
    scale = 1e-4 if model.kv_bytes > 200_000 else 0.5  # whole numbers and halves round
    assert np.abs(np.concatenate([rows, after]) - plain).max() < scale


def test_the_cache_is_as_small_as_its_numbers(models: dict[str, Model]) -> None:
    numbers = 5 * 2 * 4 * 8 * CONTEXT  # layers, keys and values, heads, head_dim
    sizes = {name: model.kv_bytes for name, model in models.items()}
    assert sizes == {"fp32": 4 * numbers, "fp16": 2 * numbers, "int8": 2 * numbers}


def test_the_nodes_of_both_graphs_are_counted(exact: Model) -> None:
    if exact.placement:  # an onnxruntime before 1.24 does not tell
        assert list(exact.placement) == ["CPUExecutionProvider"]
        assert exact.placement["CPUExecutionProvider"] > 2 * 5 * 15  # widths, layers, operators


def test_a_trimmed_model_gives_the_columns_kept(
    checkpoint: Any, exact: Model, tmp_path: Path, data_folder: Path
) -> None:
    kept = np.arange(3, 512, 2, dtype=np.int32)
    options = StaticOptions(CONTEXT, 4, "fp32")
    text = some_text(data_folder, 6000)
    report = export_static(checkpoint.with_head(kept), tmp_path / "t", options, text, quiet)
    assert report.agreement > 0.99
    model = Model(tmp_path / "t", ModelOptions(n_threads=1))
    tokens = story(exact)
    found = model.forward(tokens)
    assert model.token_ids is not None
    assert np.array_equal(model.token_ids, kept)
    assert model.n_vocab == 512
    assert np.allclose(found, exact.forward(tokens)[:, kept], atol=1e-4)
    model.close()


def test_the_folder_says_what_it_is(exact: Model, data_folder: Path) -> None:
    info = exact.info()
    assert (info.backend, info.architecture, info.quant) == ("onnx", "llama", "F32")
    assert 200_000 < info.n_params < 300_000
    assert info.n_bytes > 4 * info.n_params
    assert len(info.sha256) == 64
    about = json.loads((static_folder(data_folder) / "edgespec.json").read_text(encoding="utf-8"))
    assert (about["kind"], about["n_context"]) == ("static", CONTEXT)


def test_a_smaller_context_limits_and_a_larger_one_cannot_be_had(
    data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = Model(static_folder(data_folder), ModelOptions(n_context=20, n_threads=1))
    with pytest.raises(ContextError, match="0 \\+ 21 tokens: expected at most the 20"):
        small.extend([5] * 21)
    small.close()
    large = Model(static_folder(data_folder), ModelOptions(n_context=4096, n_threads=1))
    assert large.n_context == CONTEXT
    assert "has positions for 96 tokens, fewer than the 4096" in caplog.text
    large.close()


def test_an_error_says_whether_a_flag_or_the_export_limits_the_context(data_folder: Path) -> None:
    small = Model(static_folder(data_folder), ModelOptions(n_context=20, n_threads=1))
    small.extend([5] * 15)
    with pytest.raises(ContextError, match="shorten the prompt, or raise it with -c 21$"):
        small.extend([5] * 6)
    with pytest.raises(ContextError, match=f"raise it with -c {CONTEXT}$"):
        small.forward([5] * (CONTEXT - 15))
    with pytest.raises(ContextError, match="shorten the prompt, or export with a larger one$"):
        small.extend([5] * (CONTEXT - 14))
    small.close()


def test_a_model_can_be_stopped_from_another_thread(exact: Model) -> None:
    exact.extend([5] * 10)
    with pytest.raises(Cancelled):
        for _ in range(500):
            threading.Timer(0.001, exact.cancel).start()
            exact.extend([5] * 80)
            exact.truncate(10)
    assert exact.length == 10


def test_wrong_calls_are_refused(exact: Model, data_folder: Path) -> None:
    with pytest.raises(ShapeError, match="token 512 is unknown: expected 0 to 511"):
        exact.forward([3, 512])
    with pytest.raises(ShapeError, match="cannot truncate 0 tokens to 1"):
        exact.truncate(1)
    exact.forward([3, 4, 5], [-1, 0, 0])
    assert exact.length == 0  # until some are kept
    with pytest.raises(ShapeError, match=r"keep\(\) must follow"):
        exact.forward([3])
    with pytest.raises(ShapeError, match=r"rows \[1\] of 3: expected a path from the top"):
        exact.keep([1])
    exact.keep([])
    with pytest.raises(UsageError, match="no hidden states"):
        Model(static_folder(data_folder), ModelOptions(hidden_states=True))
    closed = Model(static_folder(data_folder), ModelOptions(n_threads=1))
    closed.close()
    with pytest.raises(BackendError, match="the model is closed"):
        closed.forward([3])


def broken(folder: Path, **changed: Any) -> None:
    about = json.loads((folder / "edgespec.json").read_text(encoding="utf-8"))
    (folder / "edgespec.json").write_text(json.dumps({**about, **changed}), encoding="utf-8")


@pytest.mark.parametrize(
    "break_it",
    [
        lambda folder: (folder / "edgespec.json").write_text("{"),
        lambda folder: (folder / "edgespec.json").unlink(),
        lambda folder: (folder / "table.npy").write_bytes(b"no array"),
        lambda folder: (folder / "table.npy").write_bytes(b""),
        lambda folder: (folder / "wide.onnx").write_bytes(b"no graph"),
        lambda folder: (folder / "model.onnx").unlink(),
        lambda folder: (folder / "model.onnx.data").write_bytes(b"short"),
        lambda folder: (folder / "vocabulary.gguf").unlink(),
        lambda folder: broken(folder, kind="dynamic"),
        lambda folder: broken(folder, format=2),
        lambda folder: broken(folder, n_vocab=511),
        lambda folder: broken(folder, n_context=97),
        lambda folder: broken(folder, graphs={"1": "model.onnx"}),
        lambda folder: broken(folder, mask="deep"),
    ],
)
def test_a_broken_folder_is_refused(break_it: Any, data_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(static_folder(data_folder), folder)
    break_it(folder)
    with pytest.raises((ModelFileError, BackendError), match=": expected") as caught:
        Model(folder, ModelOptions())
    assert "\n" not in str(caught.value)


def test_compiled_graphs_are_taken_on_their_device_alone(data_folder: Path) -> None:
    folder = static_folder(data_folder)
    found = StaticFolder.read(folder, onnx_folder.description(folder))
    found.about["compiled"] = {"qnn": {"1": "model.qnn.onnx", "5": "wide.qnn.onnx"}}
    assert found.widths == [1, 5]
    assert found.graph(5, "qnn").name == "wide.qnn.onnx"
    assert found.graph(5, "cpu").name == "wide.onnx"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (StaticOptions(CONTEXT, 4, "int3"), "precision 'int3' is unknown: expected one of fp32"),
        (StaticOptions(16, 4, "fp32"), "a context of 16 tokens: expected 32 to 512"),
        (StaticOptions(513, 4, "fp32"), "a context of 513 tokens: expected 32 to 512"),
        (StaticOptions(40, 24, "fp32"), "a context of 40 tokens: expected 50 to 512"),
        (StaticOptions(CONTEXT, 0, "fp32"), "0 draft tokens: expected 1 to 64"),
        (StaticOptions(CONTEXT, 4, "fp32", "cpu"), "cpu compiles nothing ahead of time"),
        (StaticOptions(CONTEXT, 4, "fp32", "tpu"), "device 'tpu' is not here"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(
    options: StaticOptions, complaint: str, checkpoint: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=complaint):
        export_static(checkpoint, tmp_path / "model", options, "text", quiet)
    assert not list(tmp_path.iterdir())


def test_a_short_text_is_refused_and_leaves_nothing(checkpoint: Any, tmp_path: Path) -> None:
    for text in ("", "Once upon a time."):
        with pytest.raises(UsageError, match=f"text has {len(text)} characters: expected a page"):
            export_static(checkpoint, tmp_path / "model", StaticOptions(CONTEXT), text, quiet)
        assert not list(tmp_path.iterdir())


def test_another_folder_is_never_overwritten(
    checkpoint: Any, tmp_path: Path, data_folder: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="is there and is no exported model"):
        export_static(checkpoint, tmp_path / "mine", StaticOptions(CONTEXT), "text", quiet)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"
    shutil.copytree(static_folder(data_folder), tmp_path / "old")
    (tmp_path / "old" / "left.over").touch()
    text = some_text(data_folder, 6000)
    export_static(checkpoint, tmp_path / "old", StaticOptions(64, 4, "fp32"), text, quiet)
    assert not (tmp_path / "old" / "left.over").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "old"}


def test_a_full_disk_is_found_before_writing(
    checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(UsageError, match="has 0.00 GB free, model needs 0.02 GB: free some space"):
        export_static(checkpoint, tmp_path / "model", StaticOptions(CONTEXT), "text", quiet)
    assert not list(tmp_path.iterdir())


def test_an_export_that_differs_from_its_original_is_refused(checkpoint: Any) -> None:
    good = StaticReport(1000, 0.5, 0.95, 8.02, 8.0)
    judge(good, "int8", checkpoint)
    for bad in (
        StaticReport(1000, 0.5, 0.89, 8.02, 8.0),
        StaticReport(1000, 0.5, 0.95, 8.5, 8.0),
        StaticReport(1000, float("nan"), 0.95, float("nan"), 8.0),
    ):
        with pytest.raises(ModelFileError, match="in int8 is not the original"):
            judge(bad, "int8", checkpoint)
    with pytest.raises(ModelFileError, match="in fp32 is not the original"):
        judge(good, "fp32", checkpoint)


def test_pieces_are_spread_over_the_text(models: dict[str, Model]) -> None:
    tokenizer = models["fp32"].tokenizer
    text = "The cat sat. " * 2000 + "A dog ran. " * 2000
    pieces = pieces_of(text, tokenizer, 50)
    assert len(pieces) == len(text) // 2048
    assert {len(piece) for piece in pieces} == {50}
    assert b"cat" in b"".join(tokenizer.piece(token) for token in pieces[0])
    assert b"dog" in b"".join(tokenizer.piece(token) for token in pieces[-1])


def test_a_hugging_face_folder_gives_the_same_model(
    exact: Model, data_folder: Path, tmp_path: Path
) -> None:
    source = llama_of(data_folder / "models" / "stories260K-f32.gguf", tmp_path / "hf")
    write_tokenizer(source, data_folder / "models" / "stories260K-f32.gguf")
    options, text = StaticOptions(CONTEXT, 4, "fp32"), some_text(data_folder, 6000)
    report = export_static(open_hf(source), tmp_path / "model", options, text, quiet)
    assert report.agreement > 0.99
    model = Model(tmp_path / "model", ModelOptions(n_threads=1))
    assert model.tokenizer.encode(STORY, bos=True) == story(exact)
    assert np.allclose(model.forward(story(exact)), exact.forward(story(exact)), atol=1e-3)
    model.close()
