"""OnnxModel on graphs of any length: stopping it, what it is opened from, what it holds on to."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from model_maker import DEMO
from onnx import TensorProto, helper
from onnx_maker import dynamic_folder, exported, opened

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.backends.onnx import providers
from edgespec.backends.onnx.dynamic import DynamicGraph
from edgespec.backends.onnx.model import OnnxModel
from edgespec.backends.preview import preview
from edgespec.backends.vocabulary import open_tokenizer
from edgespec.cli import main
from edgespec.errors import (
    BackendError,
    Cancelled,
    ContextError,
    EdgeSpecError,
    ModelFileError,
    ShapeError,
    TokenizerError,
    UsageError,
)

TOKENS = [1, 403, 407, 261, 378, 383, 286, 261, 376, 298, 315, 511]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The demo drafter as a graph of 32 bits."""
    return dynamic_folder(DEMO)


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[OnnxModel]:
    with closing(opened(folder, 1024)) as model:
        yield model


@pytest.fixture
def model(shared: OnnxModel) -> OnnxModel:
    shared.truncate(0)
    return shared


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.slow
def test_a_long_prompt_can_be_stopped_from_another_thread(model: OnnxModel) -> None:
    expected = model.forward(TOKENS).copy()
    prompt = (TOKENS * 84)[:1000]
    for delay_s in (0.02, 0.01, 0.005, 0.002, 0.001) * 8:  # it may come before or after the call
        timer = threading.Timer(delay_s, model.cancel)
        timer.start()
        try:
            model.extend(prompt)
            model.truncate(len(TOKENS))
            timer.join()
        except Cancelled as error:
            assert "\n" not in str(error)
            timer.join()
            break
    else:
        pytest.fail("was never stopped")
    assert model.length == len(TOKENS)
    model.truncate(0)
    assert np.array_equal(model.forward(TOKENS), expected)


def test_stopping_while_nothing_runs_stops_nothing(model: OnnxModel) -> None:
    model.cancel()
    assert model.forward(TOKENS).shape == (len(TOKENS), 4096)
    model.cancel()
    model.extend([5, 6])
    assert model.length == len(TOKENS) + 2


def test_a_stop_at_any_moment_is_told_as_one(
    model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag is the graph's own: no moment is between two of them."""
    go = model._graph.go

    def going() -> None:
        go()
        model._graph.stop()  # what `cancel` does first

    monkeypatch.setattr(model._graph, "go", going)
    with pytest.raises(Cancelled):
        model.forward(TOKENS)
    assert model.length == 0


def test_a_failure_of_the_graph_is_no_stop(
    model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.cancel()
    monkeypatch.setattr(model._graph, "_bias", lambda *_: np.zeros((1, 1, 1, 1), np.float32))
    with pytest.raises(BackendError, match="stopped .*: expected a result; try --device cpu"):
        model.forward(TOKENS)
    assert model.length == 0


def test_closing_ends_a_call_in_another_thread(folder: Path) -> None:
    model, seen = opened(folder, 1024), []

    def read() -> None:
        try:
            while True:
                model.extend([5] * 1000)
                model.truncate(0)
        except EdgeSpecError as error:
            seen.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    threading.Event().wait(0.03)
    model.close()
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(seen[0], Cancelled | BackendError)
    model.close()
    for call in (lambda: model.forward([1]), lambda: model.truncate(0), lambda: model.keep([])):
        with pytest.raises(BackendError, match="the model is closed: expected an open one"):
            call()
    model.cancel()


def test_logits_stay_until_the_next_call_and_no_longer(model: OnnxModel) -> None:
    for n in (1, 3, 40):  # a width with arrays of its own, and one without
        model.truncate(0)
        first = model.forward(TOKENS[:1] * n)
        kept = first.copy()
        model.keep([0])
        model.truncate(0)
        assert np.array_equal(first, kept)


def test_more_rows_than_a_run_has_come_together(model: OnnxModel) -> None:
    tokens = (TOKENS * 13)[:150]
    rows = model.forward(tokens)
    assert rows.shape == (150, 4096)
    assert model.length == 150
    for at in (149, 128, 127, 64, 63, 0):
        model.truncate(at)
        assert np.allclose(model.forward([tokens[at]])[0], rows[at], atol=1e-4)
    with pytest.raises(ShapeError, match="a tree of 65 nodes: expected at most 64"):
        model.forward([5] * 65, [-1] * 65)


def test_wrong_calls_are_refused(model: OnnxModel) -> None:
    for tokens in ([4096], [-1], [1 << 40], [3, 4096]):
        with pytest.raises(ShapeError, match=r"token(s| -?\d+) "):
            model.forward(tokens)
    with pytest.raises(ShapeError, match="cannot truncate 0 tokens to 1"):
        model.truncate(1)
    with pytest.raises(ShapeError, match="2 parents for 3 tokens"):
        model.forward([3, 4, 5], [-1, 0])
    model.forward([3, 4, 5], [-1, 0, 0])
    assert model.length == 0
    with pytest.raises(ShapeError, match=r"keep\(\) must follow a forking forward"):
        model.forward([3])
    with pytest.raises(ShapeError, match=r"rows \[0, 1, 2\] of 3: expected a path from the top"):
        model.keep([0, 1, 2])
    model.keep([0, 2])
    assert model.length == 2


def test_what_it_is_can_be_asked(model: OnnxModel, folder: Path) -> None:
    info = model.info()
    assert (info.backend, info.architecture, info.quant) == ("onnx", "llama", "fp32")
    assert info.path == str(folder)
    assert info.n_params == model.n_params
    assert info.n_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert len(info.sha256) == 64
    assert (
        model.kv_bytes == 4 * 1025 * 512
    )  # numbers of 4 bytes, slots, keys and values of all layers
    assert model.placement.get("CPUExecutionProvider", 1) >= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"kv_type": "q8_0"},
            "--kv-type q8_0: .* cache as it was exported.*leave it out",
        ),
        ({"n_gpu_layers": 3}, "-ngl 3: .* runs whole on one device.*choose with --device"),
    ],
)
def test_what_is_decided_at_the_export_is_no_option(
    folder: Path, options: dict[str, Any], said: str
) -> None:
    for look in (open_model, preview):
        with pytest.raises(UsageError, match=said):
            look(folder, ModelOptions(64, n_threads=1, **options))


def test_a_folder_and_the_files_in_it_name_the_model(folder: Path, copied: Path) -> None:
    options = ModelOptions(64, n_threads=1)
    for path in (folder, folder / "model.onnx", folder / "edgespec.json"):
        with closing(open_model(path, options)) as model:
            assert isinstance(model, OnnxModel)
            assert model.path == folder
    named = copied.rename(copied.with_name("a.model-v1.5"))
    open_model(named, options).close()


def test_a_context_larger_than_the_graph_s_is_told_and_capped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exported(DEMO, tmp_path / "small", token_ids=np.arange(0, 4096, 8, dtype=np.int32))
    most = json.loads((tmp_path / "small" / "edgespec.json").read_text())["n_context"]
    with caplog.at_level(logging.WARNING), closing(opened(tmp_path / "small", most + 5)) as model:
        assert model.n_context == most
        assert f"has positions for {most} tokens, fewer than the {most + 5} asked" in caplog.text
    caplog.clear()
    with closing(opened(tmp_path / "small", 7)) as model:
        assert model.n_context == 7
        assert not caplog.text
        with pytest.raises(ContextError, match=r"0 \+ 8 tokens: expected at most the 7"):
            model.extend([5] * 8)


def grown_by(model: OnnxModel, n_forwards: int) -> int:
    """Bytes of memory that so many forwards of all widths, and trees, take and do not give back."""
    process = psutil.Process()

    def work(rounds: int) -> None:
        for i in range(rounds):
            model.forward(TOKENS[: 1 + i % 5])
            if i % 3 == 0:
                model.forward([4, 5, 6], [-1, 0, 0])
                model.keep([0, 2])
            model.truncate(model.length % 40)

    work(300)
    before = process.memory_info().rss
    work(n_forwards)
    return process.memory_info().rss - before


@pytest.mark.slow
def test_memory_stays_flat(model: OnnxModel) -> None:
    assert grown_by(model, 2500) < 3e6


def changed(folder: Path, **values: Any) -> None:
    path = folder / "edgespec.json"
    about = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({k: v for k, v in about.items() if v != ...}), encoding="utf-8")


def with_ids(folder: Path, ids: Any) -> None:
    """A list of ids for a trimmed head, as a file."""
    np.save(folder / "token_ids.npy", ids)
    changed(folder, token_ids="token_ids.npy")


def foreign(folder: Path) -> None:
    """A graph that is no decoder."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "foreign", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), folder / "model.onnx")


def renamed(folder: Path, old: str, new: str) -> None:
    """Another name for one of the graph's inputs."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for one in model.graph.input:
        one.name = new if one.name == old else one.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    onnx.save(model, folder / "model.onnx")


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: (f / "edgespec.json").unlink(), "is no exported model .FileNotFound"),
    (lambda f: (f / "edgespec.json").write_text("{"), "is no exported model .JSONDecodeError"),
    (lambda f: (f / "edgespec.json").write_text("[1]"), "is no exported model .TypeError"),
    (lambda f: (f / "edgespec.json").write_bytes(b"\xff\xfe"), "is no exported model .Unicode"),
    (lambda f: changed(f, format=2), "ValueError: format 2"),
    (lambda f: changed(f, quant=..., n_embd=...), "ValueError: no n_embd, quant"),
    (lambda f: changed(f, n_vocab="many"), "n_vocab 'many'"),
    (lambda f: changed(f, n_context=0), "n_context 0"),
    (lambda f: changed(f, n_params=None), "n_params None"),
    (lambda f: changed(f, kind="frozen"), "kind 'frozen'"),
    (lambda f: changed(f, n_vocab=4095), r"gives logits \[1, M, 4096\] .*: expected floats for"),
    (lambda f: changed(f, tokenizer="tokenizer.model"), "names the tokenizer 'tokenizer.model'"),
    (lambda f: (f / "vocabulary.gguf").unlink(), "has no vocabulary.gguf: expected its tokenizer"),
    (lambda f: (f / "vocabulary.gguf").write_bytes(b"GGUF"), "vocabulary.gguf.*: expected"),
    (lambda f: (f / "model.onnx").unlink(), "model.onnx is not there: expected a model's graph"),
    (lambda f: (f / "model.onnx").write_bytes(b"no graph"), "is no complete ONNX graph"),
    (lambda f: (f / "model.onnx").write_bytes(b""), ": expected"),
    (lambda f: (f / "model.onnx.data").unlink(), "model.onnx"),
    (lambda f: (f / "model.onnx.data").write_bytes(b"short"), "model.onnx"),
    (foreign, "model.onnx takes x: expected a decoder with input_ids, past_key_values and logits"),
    (lambda f: renamed(f, "input_ids", "ids"), "takes .*ids.*: expected a decoder"),
    (lambda f: renamed(f, "attention_bias", "mask"), "takes .*mask.*: expected a decoder"),
    (lambda f: changed(f, token_ids="ids.npy"), "expected its token ids"),
    (lambda f: changed(f, token_ids="../ids.npy"), "'../ids.npy' is elsewhere: expected its tok"),
    (lambda f: changed(f, token_ids=7), "expected its token ids"),
    (lambda f: with_ids(f, np.arange(9, dtype=np.int32)), "expected floats for 9 tokens"),
    (lambda f: with_ids(f, np.arange(4090, 4100)), "ids 4090 to 4099, beyond the vocabulary"),
    (lambda f: with_ids(f, np.ones((2, 2), np.int32)), "an array .2, 2. of int32"),
    (lambda f: with_ids(f, np.ones(4)), "an array .4,. of float64"),
    (lambda f: (with_ids(f, [1]), (f / "token_ids.npy").write_bytes(b"")), "expected its token"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "line"), DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(
    damage: Callable[[Path], Any], line: str, copied: Path
) -> None:
    damage(copied)
    with pytest.raises((ModelFileError, BackendError), match=line) as caught:
        opened(copied)
    assert "\n" not in str(caught.value)
    assert ": expected" in str(caught.value)


def test_a_graph_that_does_not_open_leaves_no_tokenizer_open(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "model.onnx").write_bytes(b"no graph")
    seen = list[LlamaCppTokenizer]()

    def noted(*given: Any, **options: Any) -> LlamaCppTokenizer:
        seen.append(open_tokenizer(*given, **options))
        return seen[-1]

    monkeypatch.setattr("edgespec.backends.onnx.model.open_tokenizer", noted)
    with pytest.raises(ModelFileError, match="no complete ONNX graph"):
        opened(copied)
    with pytest.raises(TokenizerError, match="the model is closed"):
        _ = seen[0].vocab


def test_a_tokenizer_that_does_not_open_leaves_no_graph_open(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "vocabulary.gguf").write_bytes(b"no vocabulary")
    seen = list[DynamicGraph]()

    def noted(self: OnnxModel, *given: Any) -> DynamicGraph:
        seen.append(opens(self, *given))
        return seen[-1]

    opens = OnnxModel._open_graph
    monkeypatch.setattr(OnnxModel, "_open_graph", noted)
    with pytest.raises(ModelFileError, match="vocabulary.gguf"):
        opened(copied)
    assert [graph._session for graph in seen] == [None]


@pytest.mark.parametrize("ep", ["CPUExecutionProvider", "CUDAExecutionProvider"])
def test_another_model_may_open_while_a_cpu_loads_the_weights(
    ep: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, opens = list[tuple[int, int]](), OnnxModel._open_graph

    def noted(self: OnnxModel, *given: Any) -> Any:
        told.append((-1, -1))
        return opens(self, *given)

    provider = replace(providers.PROVIDERS["cpu"], ep=ep)
    monkeypatch.setattr(OnnxModel, "_open_graph", noted)
    monkeypatch.setattr(providers, "find", lambda device: (provider, ""))
    options = ModelOptions(64, n_threads=1, known=lambda *given: told.append(given))
    if ep != providers.CPU:
        with pytest.raises(BackendError):
            open_model(folder, options)
        assert told == [(-1, -1)]
        return
    with closing(open_model(folder, options)) as model:
        assert told == [(64, model.n_vocab), (-1, -1)]


def test_the_command_line_says_it_too(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "model.onnx").unlink()
    words = ["generate", "--raw", "-n", "2", "-p", "Once"]
    assert main([*words, "-m", str(copied)]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "model.onnx is not there: expected a model's graph" in said.err
    (copied / "edgespec.json").unlink()
    assert main([*words, "-m", str(copied / "edgespec.json")]) == 2
    assert "is no exported model" in capsys.readouterr().err


def test_weights_that_are_no_numbers_are_noticed(copied: Path) -> None:
    raw = np.fromfile(copied / "model.onnx.data", np.uint8)
    raw[len(raw) // 2 :] = 0xFF  # NaN
    raw.tofile(copied / "model.onnx.data")
    with closing(opened(copied)) as model:
        with pytest.raises(BackendError, match="logits that are not numbers: expected finite"):
            model.forward(TOKENS)
        assert model.length == 0


def as_the_builder_writes(folder: Path, *, positions: bool) -> None:
    """Turn the graph into one with the ends that onnxruntime-genai's model builder gives.

    An attention_mask in place of lengths and bias; logits of every token.
    """
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    graph, gone = model.graph, {"seqlens_k", "total_length", "attention_bias", "logit_rows"}
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            node.input[9] = node.input[9] if positions else ""
            node.input[10] = ""
        if "logit_rows" in node.input:
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    kept = [one for one in graph.input if one.name not in gone]
    kept = [one for one in kept if positions or one.name != "position_ids"]
    del graph.input[:]
    graph.input.extend(kept)
    graph.input.append(
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [1, "total"])
    )
    wholes = {"one": [1], "axis": [1]}
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, [1], value) for name, value in wholes.items()
    )
    graph.initializer.append(helper.make_tensor("at", TensorProto.INT64, [], [1]))
    made = [
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["sum"]),
        helper.make_node("Sub", ["sum", "one"], ["less"]),
        helper.make_node("Cast", ["less"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["shape"]),
        helper.make_node("Gather", ["shape", "at"], ["length"]),
        helper.make_node("Cast", ["length"], ["total_length"], to=TensorProto.INT32),
    ]
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, folder / "model.onnx")
    changed(folder, graph="genai")


@pytest.mark.parametrize("positions", [False, True])
def test_a_graph_of_the_model_builder_reads_chains(
    positions: bool, copied: Path, model: OnnxModel
) -> None:
    as_the_builder_writes(copied, positions=positions)
    prompt = (TOKENS * 13)[:140]
    with closing(opened(copied, 400)) as other:
        assert other.capabilities.n_leaves == 1
        for one in (model, other):
            one.extend(prompt)
            one.forward([7, 8, 9])
            one.truncate(133)
        assert np.allclose(other.forward(TOKENS), model.forward(TOKENS), atol=1e-4)
        other.keep([0, 1])
        model.keep([0, 1])
        assert np.allclose(other.forward([7]), model.forward([7]), atol=1e-4)
        assert other.length == model.length == 136
        with pytest.raises(ShapeError, match="reads no trees on this device: expected a chain"):
            other.forward([7, 8, 9], [-1, 0, 0])
        assert other.forward([7, 8], [-1, 0]).shape == (2, 4096)
