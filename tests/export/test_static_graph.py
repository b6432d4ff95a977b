"""Graphs of fixed shapes: their logits against llama.cpp's, their encodings, their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from edgespec.export.npu import file as static_file
from edgespec.export.npu import qdq
from edgespec.export.npu import ranges as npu_ranges
from edgespec.export.npu.graph import Graph, rotation, static_graph
from edgespec.export.onnx import data_file
from edgespec.export.read.gguf import open_gguf_checkpoint
from llama_reference import llama_cpp_logits, write_llama
from npu_maker import quiet

from edgespec.errors import ModelFileError

TOKENS = [1, 17, 40, 3, 88, 17, 5, 60, 61, 62, 9]
SIZES = {"n_embd": 64, "n_heads": 4, "head_dim": 16}
# llama.cpp keeps keys and values in 16 bits; these logits span +-4.
TOLERANCE = 0.01


def extra(architecture: str) -> dict[str, np.ndarray]:
    """Weights that only some architectures have, far from what leaves logits as they are."""
    rng = np.random.default_rng(3)
    found = {}
    for layer in range(2):
        for part, size in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32)):
            if architecture == "qwen2":
                found[f"blk.{layer}.{part}.bias"] = rng.normal(0, 1, size).astype(np.float32)
            elif part != "attn_v" and architecture == "qwen3":
                name = f"blk.{layer}.{part}_norm.weight"
                found[name] = rng.uniform(0.5, 2, 16).astype(np.float32)
    return found


def model(folder: Path, architecture: str = "llama", **options: object) -> Path:
    return write_llama(
        folder / f"{architecture}.gguf", architecture=architecture, extra=extra(architecture),
        dtype=np.float32, n_kv_heads=2, **{**SIZES, **options},
    )  # fmt: skip


def read(graph: Graph, path: Path, tokens: list[int]) -> np.ndarray:
    """Logits of a wide graph that reads all tokens at once."""
    checkpoint = open_gguf_checkpoint(path)
    table = checkpoint["token_embd.weight"].floats()
    cos, sin = rotation(checkpoint.decoder, 128)
    with static_file.opened(graph) as session:
        feeds = npu_ranges.inputs(graph, table[tokens], cos, sin)
        return session.run(["logits"], feeds)[0][0, : len(tokens)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_logits_are_those_of_llama_cpp(architecture: str, tmp_path: Path) -> None:
    path = model(tmp_path, architecture)
    found = read(static_graph(open_gguf_checkpoint(path), 12, 1), path, TOKENS)
    expected = llama_cpp_logits(path, [TOKENS])
    assert np.abs(found - expected).max() < TOLERANCE
    assert np.abs(expected).max() > 1


def test_a_trimmed_head_gives_the_columns_kept(tmp_path: Path) -> None:
    path = model(tmp_path)
    kept = np.array([2, 3, 50, 95], np.int32)
    whole = open_gguf_checkpoint(path)
    found = read(static_graph(whole.with_head(kept), 12, 1), path, TOKENS)
    assert found.shape == (len(TOKENS), 4)
    assert np.allclose(found, read(static_graph(whole, 12, 1), path, TOKENS)[:, kept], atol=1e-5)


def test_biases_of_the_head_are_added(tmp_path: Path) -> None:
    bias = np.random.default_rng(5).normal(0, 3, 96).astype(np.float32)
    path = write_llama(
        tmp_path / "biased.gguf", architecture="qwen2", dtype=np.float32, n_kv_heads=2,
        extra={**extra("qwen2"), "output.bias": bias}, **SIZES,
    )  # fmt: skip
    expected = llama_cpp_logits(path, [TOKENS])
    checkpoint = open_gguf_checkpoint(path)
    graph = static_graph(checkpoint, 12, 20)
    assert np.abs(read(graph, path, TOKENS) - expected).max() < TOLERANCE
    kept = np.array([2, 3, 50, 95], np.int32)
    found = read(static_graph(checkpoint.with_head(kept), 12, 1), path, TOKENS)
    assert np.abs(found - expected[:, kept]).max() < TOLERANCE
    ranges = npu_ranges.seen_ranges(checkpoint, [TOKENS, TOKENS[::-1]], 64, quiet)
    whole = qdq.quantized(graph, qdq.encodings(graph, ranges))
    assert np.abs(read(whole, path, TOKENS) - expected).max() < 0.5


def test_shapes_are_fixed_and_operators_plain(tmp_path: Path) -> None:
    checkpoint = open_gguf_checkpoint(model(tmp_path))
    static_file.write_graphs(tmp_path, {"model.onnx": static_graph(checkpoint, 3, 20)})
    written = onnx.load(tmp_path / "model.onnx")
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*written.graph.input, *written.graph.output)
    }
    assert shapes["x"] == [1, 3, 64]
    assert shapes["mask"] == [1, 1, 2 * 3, 23]  # two query heads for each key head
    assert shapes["key.1"] == [1, 2, 16, 20]
    assert shapes["value.1"] == [1, 2, 20, 16]
    assert shapes["key.1.new"] == shapes["value.0.new"] == [1, 3, 2, 16]
    assert shapes["logits"] == [1, 3, 96]
    plain = {
        "Add",
        "Concat",
        "MatMul",
        "Mul",
        "Reshape",
        "Sigmoid",
        "Softmax",
        "Split",
        "Transpose",
    }
    used = {node.op_type for node in written.graph.node}
    assert used == plain | {"SimplifiedLayerNormalization"}


def test_both_widths_share_one_copy_of_the_weights(tmp_path: Path) -> None:
    checkpoint = open_gguf_checkpoint(model(tmp_path))
    graphs = {f"{width}.onnx": static_graph(checkpoint, width, 20) for width in (1, 5)}
    static_file.write_graphs(tmp_path, graphs)
    once = sum(t.nbytes for make in graphs["1.onnx"].weights.values() if (t := make()).size > 256)
    written = (tmp_path / static_file.DATA).stat().st_size
    assert once <= written < once + len(graphs["1.onnx"].weights) * data_file.ALIGN
    assert (tmp_path / "5.onnx").stat().st_size < 40_000


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf", architecture="gemma")
    with pytest.raises(ModelFileError, match="'gemma': expected one of llama, qwen2, qwen3"):
        static_graph(open_gguf_checkpoint(path), 1, 20)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Graph, dict]:
    """A model, its graph of floats and the encodings from a few random texts."""
    path = model(tmp_path_factory.mktemp("qdq"))
    checkpoint = open_gguf_checkpoint(path)
    rng = np.random.default_rng(0)
    pieces = [rng.integers(0, 96, 40).tolist() for _ in range(6)]
    graph = static_graph(checkpoint, 12, 20)
    return path, graph, qdq.encodings(graph, npu_ranges.seen_ranges(checkpoint, pieces, 64, quiet))


def test_every_value_has_an_encoding_and_moved_ones_the_same(quantized) -> None:
    _, graph, found = quantized
    values = {*graph.inputs, *(out for node in graph.nodes for out in node.outputs)}
    assert values == found.keys()
    for layer in (0, 1):
        for state in ("key", "value"):
            assert found[f"{state}.{layer}"] is found[f"{state}.{layer}.new"]
        assert found[f"blk.{layer}.scores_old"] is found[f"blk.{layer}.scores_new"]
        assert float(found[f"blk.{layer}.probs"].scale) == 1 / 65536
    assert found["key.0"] is not found["key.1"]


def test_vectors_of_tokens_no_text_named_fit_their_encoding(quantized) -> None:
    path, _, found = quantized
    table = open_gguf_checkpoint(path)["token_embd.weight"].floats()
    ends = found["x"].quantized(np.array([table.min(), table.max()]))
    assert ends.tolist() == [0, 65535]


def test_a_masked_score_is_below_all_others_by_a_gap(quantized) -> None:
    _, _, found = quantized
    for layer in (0, 1):
        scores, masked = found[f"blk.{layer}.scores"], found[f"blk.{layer}.masked"]
        low, high = (scores.scale * (np.array([0, 65535]) - np.float32(scores.zero))).tolist()
        floor = float(masked.scale * (0 - np.float32(masked.zero)))
        mask = -float(found["mask"].scale * 65535)
        assert mask + high <= low - qdq.MASK_GAP + 0.1
        assert floor <= mask + low + 0.1  # nothing masked is cut off


def test_whole_numbers_stay_near_the_floats(quantized) -> None:
    path, graph, found = quantized
    whole = qdq.quantized(graph, found)
    assert whole.inputs["key.0"][0] == whole.outputs["key.0.new"][0] == np.uint16
    assert whole.inputs["x"][0] == whole.outputs["logits"][0] == np.float32
    assert whole.weights["head.q"]().dtype == np.int8
    assert whole.weights["head.scale"]().shape == (96,)
    assert whole.weights["output_norm.weight.q"]().dtype == np.uint16
    tokens = TOKENS[:10]
    exact = read(static_graph(open_gguf_checkpoint(path), 12, 1), path, tokens)
    near = read(whole, path, tokens)
    assert 0 < np.abs(near - exact).max() < 0.25
    assert (near.argmax(1) == exact.argmax(1)).mean() >= 0.8


def test_numbers_round_to_the_nearest_and_stop_at_the_ends() -> None:
    encoding = qdq.from_range(-1.0, 3.0)
    step = 4 / 65535
    stored = encoding.quantized(np.array([0, 0.4 * step, 0.6 * step, 9, -9], np.float32))
    zero = int(encoding.zero)
    assert stored.tolist() == [zero, zero, zero + 1, 65535, 0]
    matrix = np.array([[1.0, -0.5], [-2.0, 0.25]], np.float32)
    by_column = qdq.by_column(matrix)
    assert by_column.quantized(matrix).tolist() == [[64, -127], [-127, 64]]
    assert np.allclose(by_column.scale, [2 / 127, 0.5 / 127])
