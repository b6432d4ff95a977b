"""4-bit weights fitted to text: the moments are the model's own, and both runtimes gain by them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gguf
import llama_reference
import model_maker
import numpy as np
import onnx
import pytest
from edgespec.export.onnx import export as onnx_export
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.pad import int4 as pad_int4
from edgespec.export.pad import model as pad
from edgespec.export.pad import own_text as own_text_module
from edgespec.export.pad.own_text import own_text
from edgespec.export.quant import moments as moments_module
from edgespec.export.quant import quantized
from edgespec.export.quant.blocks import Blocks, blocks_of, stored_blocks
from edgespec.export.quant.moments import matrices, moments, readers
from edgespec.export.read.gguf import open_gguf_checkpoint
from llama_reference import llama_cpp_logits, write_llama

from edgespec.cli.prompts import asked
from edgespec.errors import ModelFileError, UsageError

pytestmark = pytest.mark.slow

DEMO = model_maker.DEMO
STORY = (
    "Once upon a time there was a little fox who lived in a den under an old oak. One day she lost "
    "her red scarf in the wind. She looked behind the tree and under the stones, but it was not "
    'there. "Have you seen my scarf?" she asked the bird. The bird said, "I saw it fly over the '
    'hill." So the fox ran up the hill, and there was a small rabbit who was cold. '
)
PIECES = [[5, 300, 700, 42, 77, 900, 12], [2000, 31, 8, 9, 10]]


def quiet(what: str, share: float) -> None:
    """Progress that nobody wants to see."""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """What the demo drafter says."""
    return own_text(DEMO, n_tokens=1200, threads=1)


@pytest.fixture(scope="module")
def demo():
    return open_gguf_checkpoint(DEMO)


@pytest.fixture(scope="module")
def blocks(demo, texts) -> dict[str, Blocks]:
    return quantized.quantized(demo, texts, 32)


class Spy(np.ndarray):
    """A weight that writes down what it is multiplied with."""

    name, seen = "", {}

    def __array_finalize__(self, parent):
        self.name = getattr(parent, "name", "")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if ufunc is np.matmul:
            self.seen.setdefault(self.name, np.asarray(inputs[0]))
        plain = [np.asarray(i) if isinstance(i, Spy) else i for i in inputs]
        return getattr(ufunc, method)(*plain, **options)


def inputs_by_numpy(path: Path, tokens: list[int], monkeypatch) -> dict[str, np.ndarray]:
    """What each matrix is multiplied with, [n, n_in], by an implementation of its own."""
    weights = {}
    for name, tensor in llama_reference.stored(path).items():
        weights[name] = tensor.astype(np.float64).view(Spy)
        weights[name].name = name
    monkeypatch.setattr(llama_reference, "stored", lambda path: weights)
    monkeypatch.setattr(Spy, "seen", {})
    llama_reference.numpy_logits(path, tokens)
    return Spy.seen


def test_moments_are_those_of_the_models_own_inputs(tmp_path, monkeypatch):
    path = write_llama(tmp_path / "tiny.gguf", n_kv_heads=2)
    checkpoint, tokens = open_gguf_checkpoint(path), [3, 50, 17, 90, 4, 60]
    found = list(moments(checkpoint, matrices(checkpoint), [tokens], quiet))
    seen = inputs_by_numpy(path, tokens, monkeypatch)
    assert [name for names, _ in found for name in names] == matrices(checkpoint)
    assert set(matrices(checkpoint)) <= set(seen)
    for names, one in found:
        for name in names:
            expected = seen[name].T @ seen[name]
            assert np.abs(one.sums - expected).max() < 1e-4 * np.abs(expected).max(), name


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_every_matrix_of_a_layer_has_moments(tmp_path, architecture):
    path = model_maker.make(tmp_path / "tiny.gguf", architecture)
    checkpoint = open_gguf_checkpoint(path)
    found = list(moments(checkpoint, matrices(checkpoint), PIECES, quiet))
    assert sum(len(names) for names, _ in found) == 2 * 7
    for names, one in found:
        assert one.sums.shape == (checkpoint[names[0]].shape[1],) * 2
        assert (one.sums.diagonal() > 0).all()
        # No more independent inputs than tokens.
        assert np.linalg.matrix_rank(one.sums, tol=1e-4 * one.sums.max()) <= 12


def test_moments_in_little_memory_are_the_same(tmp_path, monkeypatch):
    checkpoint = open_gguf_checkpoint(model_maker.make(tmp_path / "tiny.gguf"))
    wanted = matrices(checkpoint)
    at_once = list(moments(checkpoint, wanted, PIECES, quiet))
    monkeypatch.setattr(moments_module, "SUMS_BYTES", 40000)
    told = []
    in_turn = list(moments(checkpoint, wanted, PIECES, lambda what, share: told.append(share)))
    assert len(told) > 2 * len(PIECES) and told[-1] == 1
    for (names, one), (names_too, other) in zip(at_once, in_turn, strict=True):
        assert names == names_too
        np.testing.assert_array_equal(one.sums, other.sums)


def test_only_wanted_matrices_and_columns_with_weights_are_looked_at(tmp_path):
    path = write_llama(tmp_path / "small.gguf")
    pad.pad(path, tmp_path / "wide.gguf", n_embd=512, n_layers=3, n_ff=512)
    checkpoint = open_gguf_checkpoint(tmp_path / "wide.gguf")
    [(names, one)] = moments(checkpoint, ["blk.0.ffn_down.weight"], [[3, 4, 5]], quiet)
    assert names == ["blk.0.ffn_down.weight"]
    np.testing.assert_array_equal(one.columns, np.arange(96))  # the neurons of the small model


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch, demo):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    quantized.quantized(demo, [STORY], 128)
    assert not list(tmp_path.iterdir())


def change(path: Path, rows: list[list[int]], original: np.ndarray) -> float:
    """Mean squared difference of the logits from the original's."""
    return float(np.square(llama_cpp_logits(path, rows) - original).mean())


def plain(checkpoint) -> dict[str, Blocks]:
    return {name: blocks_of(checkpoint[name], 4, 32) for name in matrices(checkpoint)}


def test_llama_cpp_says_more_nearly_the_same_with_fitted_weights(tmp_path, demo, blocks):
    rows = quantized.pieces_of([STORY], demo)
    original = llama_cpp_logits(DEMO, rows)
    changes = []
    for number, found in enumerate((plain(demo), blocks)):
        path = tmp_path / f"{number}.gguf"
        quantized.write_q4_0(demo, found, path)
        changes.append(change(path, rows, original))
    assert changes[1] < 0.7 * changes[0]


def test_the_q4_0_file_holds_these_blocks_and_all_else_as_it_was(tmp_path, demo, blocks):
    path = tmp_path / "model-q4_0.gguf"
    quantized.write_q4_0(demo, blocks, path)
    again = open_gguf_checkpoint(path)
    assert list(again.tensors) == list(demo.tensors)
    assert set(blocks) == set(matrices(demo))
    for name, found in blocks.items():
        back = stored_blocks(again[name])
        np.testing.assert_array_equal(back.codes, found.codes)
        np.testing.assert_array_equal(back.scales, found.scales)
        assert again[name].shape == demo[name].shape
    assert again["token_embd.weight"].kind == "Q8_0"
    for name in set(demo.tensors) - set(blocks) - {"token_embd.weight"}:
        np.testing.assert_array_equal(again[name].data, demo[name].data)
    assert llama_reference.value(path, "general.file_type") == gguf.LlamaFileType.MOSTLY_Q4_0
    tokens = "tokenizer.ggml.tokens"
    assert llama_reference.value(path, tokens) == llama_reference.value(DEMO, tokens)
    assert again.decoder == demo.decoder


def test_an_exported_graph_holds_the_fitted_codes(tmp_path, demo, texts, blocks):
    demands = onnx_export.Demands(calibration=texts, max_loss=0.5)
    folder = onnx_export.export(demo, tmp_path / "fitted", GraphOptions("int4"), demands).path
    model = onnx.load(folder / "model.onnx")
    held = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    down = blocks["blk.1.ffn_down.weight"]
    np.testing.assert_array_equal(held["blk.1.ffn_down.codes"], down.packed())
    np.testing.assert_array_equal(held["blk.1.ffn_down.scales"], down.scales)
    packed = np.concatenate([blocks[name].packed() for name in readers("blk.0.attn_norm")])
    np.testing.assert_array_equal(held["blk.0.attn_qkv.codes"], packed)
    assert (down.packed() != plain(demo)["blk.1.ffn_down.weight"].packed()).any()


def test_weights_that_lie_in_such_blocks_stay_as_they_are(tmp_path):
    checkpoint = open_gguf_checkpoint(model_maker.make(tmp_path / "tiny.gguf", kind="Q4_0"))
    assert quantized.quantized(checkpoint, [], 32) == {}
    with pytest.raises(UsageError, match="0 tokens: expected 64"):
        quantized.quantized(checkpoint, [], 128)


@pytest.mark.slow
def test_matrices_that_q4_0_cannot_hold_are_copied(tmp_path):
    sizes = model_maker.Sizes(n_ff=72)  # 72 columns of ffn_down
    path = model_maker.make(tmp_path / "tiny.gguf", sizes=sizes, tied=False)
    checkpoint = open_gguf_checkpoint(path)
    quantized.write_q4_0(
        checkpoint, quantized.quantized(checkpoint, [STORY], 32), tmp_path / "out.gguf"
    )
    found = open_gguf_checkpoint(tmp_path / "out.gguf")
    kinds = {name: found[name].kind for name in found.tensors if len(found[name].shape) == 2}
    assert kinds["blk.0.ffn_down.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == "Q4_0"
    assert kinds["output.weight"] == "Q8_0" and kinds["token_embd.weight"] == "F16"


@pytest.mark.slow
def test_inert_weights_stay_inert(tmp_path, demo):
    wide = tmp_path / "wide.gguf"
    pad.pad(DEMO, wide, n_embd=512, n_layers=3, n_ff=512)
    checkpoint = open_gguf_checkpoint(wide)
    found = quantized.quantized(checkpoint, [STORY], 32)
    for name in matrices(checkpoint):
        whole = checkpoint[name].floats()
        assert not found[name].floats()[:, ~whole.any(axis=0)].any(), name
        assert not found[name].floats()[~whole.any(axis=1)].any(), name
    quantized.write_q4_0(checkpoint, found, tmp_path / "q4_0.gguf")
    rows = [[5, 300, 700, 42, 1000, 77]]
    seen, original = (llama_cpp_logits(p, rows) for p in (tmp_path / "q4_0.gguf", DEMO))
    assert np.square(seen - original).mean() < 0.1 * original.var()


def test_long_text_is_read_in_pieces_from_all_over_it(demo, monkeypatch):
    numbers = " ".join(map(str, range(500)))
    monkeypatch.setattr(quantized, "LONGEST", 50)
    everything = quantized.pieces_of([numbers], demo)
    assert {len(piece) for piece in everything[:-1]} == {50}
    monkeypatch.setattr(quantized, "MOST_TOKENS", 200)
    kept = [everything.index(piece) for piece in quantized.pieces_of([numbers], demo)]
    steps = np.diff([*kept, len(everything)])
    assert kept[0] == 0 and len(kept) in (3, 4)
    assert steps.max() - steps.min() <= 1


def test_conversations_are_read_as_the_template_spells_them(demo, texts):
    first = quantized.pieces_of(texts, demo)[0]
    tokens = llama_reference.value(DEMO, "tokenizer.ggml.tokens")
    assert [tokens[token] for token in first[:2]] == ["<|begin|>", "<|user|>"]


@pytest.mark.slow
def test_own_text_is_the_same_again_and_no_two_answers_are(monkeypatch):
    monkeypatch.setattr(own_text_module, "interleaved", lambda _: [asked("Tell me a story.")])
    texts = own_text(DEMO, n_tokens=500, threads=1)
    assert texts == own_text(DEMO, n_tokens=500, threads=1)
    assert len(set(texts)) == len(texts) > 1  # the likeliest answer, then drawn ones
    assert all(text.startswith("<|begin|><|user|>Tell me a story.") for text in texts)
    assert all("<|assistant|>" in text for text in texts)


def test_what_cannot_be_done_is_said(tmp_path, demo):
    with pytest.raises(UsageError, match="has 2 tokens: expected 64 at least"):
        quantized.quantized(demo, ["."], 32)
    gemma = open_gguf_checkpoint(model_maker.make(tmp_path / "gemma.gguf", "gemma"))
    with pytest.raises(ModelFileError, match="'gemma': expected one of llama"):
        quantized.quantized(gemma, [STORY], 32)
    with pytest.raises(UsageError, match="4 bits in blocks of 128: expected 4 in blocks of 32"):
        found = {"blk.0.attn_q.weight": blocks_of(demo["blk.0.attn_q.weight"], 4, 128)}
        quantized.write_q4_0(demo, found, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    with pytest.raises(UsageError, match="block is 64: expected 32 or 128"):
        pad_int4.padded_int4(DEMO, tmp_path, 64)


@pytest.mark.slow
def test_a_padded_pair_is_made_once(tmp_path, monkeypatch, texts):
    for size, value in (("N_EMBD", 512), ("N_LAYERS", 2), ("N_FF", 512)):
        monkeypatch.setattr(pad, size, value)
    monkeypatch.setattr(pad_int4, "own_text", lambda path, progress: texts)
    folder = pad_int4.padded_int4(DEMO, tmp_path, 32)
    file = pad_int4.q4_0_of(folder)
    assert folder.name.startswith("padded-") and folder.name.endswith("-512x2x512-r1-int4-b32")
    assert file.name == folder.name.replace("-int4-b32", "-q4_0g.gguf")
    checkpoint, graph = open_gguf_checkpoint(file), onnx.load(folder / "model.onnx").graph
    held = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    down = stored_blocks(checkpoint["blk.0.ffn_down.weight"])
    np.testing.assert_array_equal(held["blk.0.ffn_down.codes"], down.packed())
    monkeypatch.setattr(pad_int4, "quantized", None)  # not called again
    assert pad_int4.padded_int4(DEMO, tmp_path, 32) == folder
    file.unlink()
    with pytest.raises(TypeError, match="not callable"):
        pad_int4.padded_int4(DEMO, tmp_path, 32)
