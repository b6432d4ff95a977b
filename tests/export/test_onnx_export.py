"""`edgespec export onnx`, graphs of any length: the original's logits, or one line and no files."""

from __future__ import annotations

import errno
import gc
import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from edgespec.export.onnx import check as onnx_check
from edgespec.export.onnx import export as export_onnx
from edgespec.export.onnx import graph as onnx_graph
from edgespec.export.onnx.export import Demands, n_params, room
from edgespec.export.onnx.file import OnnxFile
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.onnx.sample import CHATS, TEXTS
from edgespec.export.read.checkpoint import Checkpoint, Tensor
from edgespec.export.read.gguf import open_gguf_checkpoint
from letters import Letters
from llama_reference import stored
from model_maker import DEMO, WIDE, make
from onnx_maker import (
    ANY_LOSS,
    checkpoint_of,
    dynamic_folder,
    exported,
    llama_cpp_exact,
    opened,
    quick,
)

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.errors import BackendError, ContextError, ModelFileError, UsageError
from edgespec.text.template import ChatTemplate

ARCHITECTURES = ("llama", "qwen2", "qwen3")
TOKENS = [1, 403, 407, 261, 378, 383, 286, 261, 376, 298, 315, 511]
TREE = [10, 20, 30, 40, 50, 60]
PARENTS = [-1, 0, 0, 1, 3, -1]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stories260k: Path
) -> tuple[Path, Path]:
    """A random model as GGUF and as a graph, untied and with a bias of the head where there may be.

    Everything in 32 bits.
    """
    folder, name = tmp_path_factory.mktemp("pair"), request.param
    source = make(
        folder / f"{name}.gguf", name, kind="F32", vocabulary=stories260k, tied=name == "qwen3",
        head_bias=name == "qwen2",
    )  # fmt: skip
    exported(source, folder / name, GraphOptions("fp32", hidden=True), ANY_LOSS)
    return source, folder / name


def close(seen: np.ndarray, expected: np.ndarray) -> bool:
    """Within 1e-4 of the largest value."""
    assert seen.shape == expected.shape
    return float(np.abs(seen - expected).max()) < 1e-4 * float(np.abs(expected).max())


def rows_of(model: Any) -> dict[str, np.ndarray]:
    """Logits of chains and trees read in different ways."""
    found = {"at once": model.forward(TOKENS).copy()}
    model.truncate(0)
    found["singly"] = np.concatenate([model.forward([token]).copy() for token in TOKENS])
    model.truncate(0)
    model.extend(TOKENS[:7])
    found["behind a prompt"] = model.forward(TOKENS[7:]).copy()
    model.truncate(5)
    found["tree"] = model.forward(TREE, PARENTS).copy()
    model.keep([0, 1, 3])
    found["behind the tree"] = model.forward([7, 8]).copy()
    model.truncate(0)
    found["tree on nothing"] = model.forward(TREE, PARENTS).copy()
    model.keep([5])
    found["behind that"] = model.forward([7, 8]).copy()
    model.truncate(0)
    return found


@pytest.mark.slow
def test_logits_are_those_of_llama_cpp(pair: tuple[Path, Path]) -> None:
    source, folder = pair
    with llama_cpp_exact(source) as original, closing(opened(folder)) as model:
        expected, seen = rows_of(original), rows_of(model)
    assert np.ptp(expected["at once"].argmax(1)) > 0
    assert {name for name in expected if not close(seen[name], expected[name])} == set()
    assert close(seen["singly"], seen["at once"])


def test_hidden_states_are_those_of_llama_cpp(pair: tuple[Path, Path]) -> None:
    source, folder = pair
    with (
        llama_cpp_exact(source, hidden_states=True) as original,
        closing(opened(folder, hidden_states=True)) as model,
    ):
        assert close(model.forward(TOKENS), original.forward(TOKENS))
        assert model.hidden.shape == (len(TOKENS), 64)
        assert close(model.hidden, original.hidden)
        model.truncate(4)
        original.truncate(4)
        model.forward(TREE, PARENTS)
        original.forward(TREE, PARENTS)
        assert close(model.hidden, original.hidden)
        model.keep([])
        long = (TOKENS * 8)[:80]  # more rows than one run has
        model.truncate(0)
        original.truncate(0)
        assert close(model.forward(long), original.forward(long))
        assert close(model.hidden, original.hidden)


def test_states_that_nobody_asked_for_do_not_disturb(pair: tuple[Path, Path]) -> None:
    with closing(opened(pair[1])) as model, closing(opened(pair[1], hidden_states=True)) as other:
        for tokens in (TOKENS, TOKENS[:3], (TOKENS * 7)[:70], TOKENS[:1]):
            model.truncate(0)
            other.truncate(0)
            assert np.array_equal(model.forward(tokens), other.forward(tokens))
            assert model.hidden.size == 0


def test_states_that_are_not_there_are_refused(tiny: Path) -> None:
    with pytest.raises(UsageError, match="gives no hidden states: expected .* with --hidden"):
        opened(dynamic_folder(tiny), hidden_states=True)


def initializers(folder: Path) -> dict[str, np.ndarray]:
    """The graph's weights by name."""
    graph = onnx.load(folder / "model.onnx").graph
    return {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}


def unpacked(codes: np.ndarray, bits: int) -> np.ndarray:
    """[n_out, n_blocks, block] whole numbers around 0."""
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1)
    return codes.astype(np.float32) - (1 << (bits - 1))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "precision"), [("Q4_0", "int4"), ("Q8_0", "int8")])
def test_a_quantized_file_keeps_its_numbers(
    kind: str, precision: str, tmp_path: Path, out: Path, stories260k: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = make(tmp_path / "q.gguf", "qwen2", kind=kind, vocabulary=stories260k, tied=False)
    monkeypatch.setattr(onnx_graph, "ACCURACY", 1)  # sums in 32 bits, to compare exactly
    report = exported(source, out, GraphOptions(precision), ANY_LOSS)
    assert report.quant == f"{precision}-b32"
    exact = exported(source, out.with_name("exact"), GraphOptions("fp32"), ANY_LOSS)
    assert report.n_params == exact.n_params
    assert report.n_bytes < 0.7 * exact.n_bytes
    with closing(opened(out)) as model, closing(opened(exact.path)) as whole:
        expected, seen = rows_of(whole), rows_of(model)
    for name, rows in expected.items():  # the table of the tokens is rounded to 16 bits
        assert np.abs(seen[name] - rows).max() < 2e-3 * np.abs(rows).max()
    found, bits = initializers(out), int(precision[3:])
    tensors = stored(source)
    for name, parts in {
        "blk.0.attn_qkv": ["blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v"],
        "blk.1.ffn_gate_up": ["blk.1.ffn_gate", "blk.1.ffn_up"],
        "blk.1.ffn_down": ["blk.1.ffn_down"],
        "logits": ["output"],
    }.items():
        values = unpacked(found[f"{name}.codes"], bits) * found[f"{name}.scales"][:, :, None]
        expected_values = np.concatenate([tensors[f"{part}.weight"] for part in parts])
        assert np.array_equal(values.reshape(len(values), -1), expected_values), name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("kind", "within"),
    [("Q4_1", 0.03), ("Q5_0", 1e-3), ("Q5_1", 5e-3), ("Q5_K", 0.02), ("Q6_K", 1e-3)],
)
def test_other_quantized_files_lose_next_to_nothing_in_an_int4_graph(
    kind: str, within: float, architecture: str, tmp_path: Path, out: Path, stories260k: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = make(
        tmp_path / "q.gguf", architecture, kind=kind, vocabulary=stories260k, tied=False, sizes=WIDE
    )
    monkeypatch.setattr(onnx_graph, "ACCURACY", 1)
    exported(source, out, GraphOptions("int4"), ANY_LOSS)
    exact = exported(source, out.with_name("exact"), GraphOptions("fp32"), ANY_LOSS)
    with closing(opened(out)) as model, closing(opened(exact.path)) as whole:
        expected, seen = rows_of(whole), rows_of(model)
    for name, rows in expected.items():
        assert np.linalg.norm(seen[name] - rows) < within * np.linalg.norm(rows), name


@pytest.mark.parametrize(
    ("options", "tolerance", "least"),
    [
        pytest.param(GraphOptions("fp16"), 0.002, 0.97, marks=pytest.mark.slow),
        pytest.param(GraphOptions("int8"), 0.05, 0.95, marks=pytest.mark.slow),
        (GraphOptions("int8-channel"), 0.1, 0.95),
        (GraphOptions("int4"), 0.3, 0.8),
        pytest.param(GraphOptions("int4", block=128), 0.4, 0.75, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_precision_says_about_the_same(
    options: GraphOptions, tolerance: float, least: float, out: Path
) -> None:
    report = exported(DEMO, out, options, Demands(max_loss=0.1))
    assert report.check.n_tokens > 150
    assert least <= report.check.agreement <= 1
    assert report.check.loss < 0.03
    checkpoint = open_gguf_checkpoint(DEMO)
    asked = room(checkpoint, options, n_params(checkpoint)) - (64 << 20)
    assert report.n_bytes < asked + 600_000  # the tokenizer and the positions' factors
    with closing(opened(out)) as model, closing(opened(dynamic_folder(DEMO))) as exact:
        expected, seen = rows_of(exact), rows_of(model)
    for name, rows in expected.items():
        assert seen[name].dtype == np.float32
        assert np.abs(seen[name] - rows).max() < tolerance * np.abs(rows).max(), name


def test_the_folder_says_what_it_is(out: Path, tiny: Path) -> None:
    report = exported(tiny, out, GraphOptions("int4", block=128, context=100), ANY_LOSS)
    assert str(report).startswith(f"{out}: int4-b128, 0.1 M parameters, ")
    about = json.loads((out / "edgespec.json").read_text(encoding="utf-8"))
    assert about.pop("check")["agreement"] == report.check.agreement
    assert about == {
        "format": 1, "kind": "dynamic", "graph": "edgespec", "architecture": "llama",
        "name": "tiny", "n_vocab": 512, "n_embd": 64, "n_context": 100,
        "n_params": report.n_params, "quant": "int4-b128", "tokenizer": "vocabulary.gguf",
        "token_ids": None,
    }  # fmt: skip
    names = {"edgespec.json", "model.onnx", "model.onnx.data", "vocabulary.gguf"}
    assert {path.name for path in out.iterdir()} == names
    assert report.n_bytes == pytest.approx(sum(p.stat().st_size for p in out.iterdir()), abs=10)
    assert (out / "model.onnx").stat().st_size < 60_000


def test_a_trimmed_head_gives_the_columns_kept(out: Path, tiny: Path) -> None:
    kept = np.arange(1, 512, 3, dtype=np.int32)
    report = exported(tiny, out, GraphOptions("fp32"), token_ids=kept)
    assert report.check.perplexity == 0
    assert report.check.agreement > 0.99
    with closing(opened(out)) as model, closing(opened(dynamic_folder(tiny))) as whole:
        assert model.token_ids is not None
        assert np.array_equal(model.token_ids, kept)
        assert model.n_vocab == 512
        expected, seen = rows_of(whole), rows_of(model)
        assert model.forward([]).shape == (0, len(kept))
    for name, rows in expected.items():
        assert np.abs(seen[name] - rows[:, kept]).max() < 1e-4
    assert report.n_params - n_params(open_gguf_checkpoint(tiny)) == len(kept) * 64  # was tied


def test_a_trimmed_head_keeps_its_biases(tmp_path: Path, out: Path, stories260k: Path) -> None:
    source = make(
        tmp_path / "q.gguf", "qwen2", kind="F32", vocabulary=stories260k, tied=False,
        head_bias=True,
    )  # fmt: skip
    kept = np.array([0, 5, 100, 511], np.int32)
    exported(source, out, GraphOptions("fp32"), ANY_LOSS, token_ids=kept)
    with llama_cpp_exact(source) as original, closing(opened(out)) as model:
        assert close(model.forward(TOKENS), original.forward(TOKENS)[:, kept])


def test_heads_that_the_attention_cannot_take_are_refused(stories260k: Path, out: Path) -> None:
    with pytest.raises(ModelFileError, match="has heads of 8 numbers: expected a multiple of 16"):
        exported(stories260k, out)
    assert not list(out.parent.iterdir())


@pytest.mark.slow
def test_inputs_for_an_adapter_change_nothing_while_there_is_none(
    pair: tuple[Path, Path], out: Path
) -> None:
    exported(pair[0], out, GraphOptions("fp32", lora=True), ANY_LOSS)
    graph = onnx.load(out / "model.onnx", load_external_data=False).graph
    assert sum(one.name.endswith(("lora_A", "lora_B")) for one in graph.input) == 2 * 2 * 7
    with closing(opened(out)) as model, closing(opened(pair[1])) as plain:
        expected, seen = rows_of(plain), rows_of(model)
    assert {name for name in expected if not close(seen[name], expected[name])} == set()


def test_the_context_asked_for_can_be_filled_and_no_more(out: Path, tiny: Path) -> None:
    exported(tiny, out, GraphOptions("fp32", context=24))
    with closing(opened(out, 0)) as model, closing(opened(dynamic_folder(tiny))) as larger:
        assert model.n_context == 24
        tokens = (TOKENS * 2)[:24]
        model.extend(tokens[:20])
        assert np.allclose(model.forward(tokens[20:]), larger.forward(tokens)[20:], atol=1e-4)
        assert model.length == 24
        with pytest.raises(ContextError, match="24 \\+ 1 tokens: expected at most the 24"):
            model.forward([5])
        model.truncate(20)
        model.forward([5, 6, 7, 8], [-1, 0, 0, -1])
        model.keep([0, 2])
        assert model.length == 22


def damaged(checkpoint: Checkpoint, name: str, scale: float) -> Checkpoint:
    tensor = checkpoint[name]
    changed = Tensor("F32", tensor.shape, tensor.floats() * np.float32(scale))
    return replace(checkpoint, tensors={**checkpoint.tensors, name: changed})


def test_the_check_reads_a_thousand_tokens_and_chats_as_the_model_has_them() -> None:
    with closing(LlamaCppTokenizer.open(DEMO)) as tokenizer:
        told = onnx_check.chats(tokenizer)
        texts = [tokenizer.encode(text, bos=True) for text in TEXTS]
        assert sum(map(len, onnx_check.cut([*texts, *told], 256))) > 1000
        messages = [{"role": role, "content": said} for role, said in CHATS[0]]
        assert told[0] == ChatTemplate(tokenizer, own=True).tokens(messages, answer=False)
    plain = onnx_check.chats(Letters())[0]
    assert "".join(map(chr, plain[1:])).startswith(CHATS[0][0][1] + "\n\nWeather is")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8-channel", "int8"])
@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "blk.0.attn_k.weight"])
def test_a_graph_that_computes_something_else_is_refused(
    precision: str, name: str, out: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    write = export_onnx.write_graph
    monkeypatch.setattr(
        export_onnx, "write_graph", lambda source, *rest: write(damaged(source, name, 1.7), *rest)
    )
    with pytest.raises(BackendError, match="the exported graph differs too much .*: expected"):
        exported(tiny, out, GraphOptions(precision))
    assert not list(out.parent.iterdir())


def test_a_graph_without_numbers_is_refused(
    out: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    write = export_onnx.write_graph
    bad = float("inf")
    monkeypatch.setattr(
        export_onnx, "write_graph",
        lambda source, *rest: write(damaged(source, "output_norm.weight", bad), *rest),
    )  # fmt: skip
    with pytest.raises(BackendError, match="logits that are not numbers: expected finite"):
        exported(tiny, out, GraphOptions("fp32"))
    assert not list(out.parent.iterdir())


def test_a_loss_can_be_allowed(out: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    write = export_onnx.write_graph
    monkeypatch.setattr(
        export_onnx, "write_graph",
        lambda source, *rest: write(damaged(source, "blk.1.ffn_down.weight", 1.7), *rest),
    )  # fmt: skip
    text = Demands(texts=["The fox ran home and told her mother about the river. " * 4])
    with pytest.raises(BackendError, match="or allow it with --max-loss"):
        exported(tiny, out, GraphOptions("fp32"), text)
    report = exported(tiny, out, GraphOptions("fp32"), replace(text, max_loss=5.0))
    assert report.check.loss > 0.002
    assert report.check.n_tokens == 98
    with pytest.raises(BackendError, match="differs too much"):  # there is no loss to allow
        exported(
            tiny, out, GraphOptions("fp32"), replace(text, max_loss=5.0),
            np.arange(0, 512, 2, dtype=np.int32),
        )  # fmt: skip


def test_a_failed_export_leaves_the_one_before(
    out: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    exported(tiny, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(export_onnx, "check_graph", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exported(tiny, out, GraphOptions("int4"), ANY_LOSS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(out.parent.iterdir()) == [out]
    monkeypatch.undo()
    exported(tiny, out, GraphOptions("int4"), ANY_LOSS)
    assert json.loads((out / "edgespec.json").read_text())["quant"] == "int4-b32"
    assert list(out.parent.iterdir()) == [out]


def test_a_full_disk_is_found_before_writing(
    out: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=9_000_000))
    with pytest.raises(UsageError, match="has 0.01 GB free, model needs 0.07 GB: free some space"):
        exported(tiny, out)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("method", ["weight", "close"])
def test_a_disk_that_fills_while_writing_leaves_nothing(
    method: str, out: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    write, n_calls = getattr(OnnxFile, method), []

    def full(self: OnnxFile, *given: Any) -> Any:
        n_calls.append(given)
        if len(n_calls) > 4 or method == "close":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *given)

    monkeypatch.setattr(OnnxFile, method, full)
    with pytest.raises(UsageError, match="cannot be written .No space left on device.: choose an"):
        exported(tiny, out)
    assert not list(out.parent.iterdir())
    gc.collect()  # a file left open would be a warning, which is an error here


def test_an_export_tells_how_far_it_is(out: Path, tiny: Path) -> None:
    said: list[tuple[str, float]] = []
    with quick():
        export_onnx.export(
            checkpoint_of(tiny),
            out,
            GraphOptions("int4"),
            ANY_LOSS,
            lambda *told: said.append(told),
        )
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(set(shares)) > 8
    assert list(dict.fromkeys(what for what, _ in said)) == [
        "writing tiny.gguf as a graph", "comparing it with tiny.gguf", "wrote model",
    ]  # fmt: skip


def test_what_is_no_model_is_never_overwritten(out: Path, tiny: Path) -> None:
    out.mkdir()
    (out / "letter.txt").write_text("keep me")
    with pytest.raises(UsageError, match="model is there and is no exported model: choose another"):
        exported(tiny, out)
    file = out.with_name("file")
    file.write_text("keep me too")
    with pytest.raises(UsageError, match="file is there and is no exported model"):
        exported(tiny, file)
    with pytest.raises(UsageError, match="nowhere is not a folder: create it"):
        exported(tiny, out.parent / "nowhere" / "model")
    assert (out / "letter.txt").read_text() == file.read_text()[:7] == "keep me"
    assert sorted(path.name for path in out.parent.iterdir()) == ["file", "model"]
