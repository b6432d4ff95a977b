"""Weights in blocks: what GGML stores is kept bit for bit, the rest is rounded at least as well."""

from __future__ import annotations

import gguf
import numpy as np
import onnx
import onnxruntime
import pytest
from edgespec.export.quant.blocks import EXACT, Blocks, blocks_of, joined, rounded, stored_blocks
from edgespec.export.read.checkpoint import Tensor
from gguf import GGMLQuantizationType as Kind
from onnx import TensorProto, helper


def weights(n_out: int = 24, n_in: int = 96, seed: int = 1) -> np.ndarray:
    """Values of very different size from block to block."""
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-4, 2, (n_out, 1))
    return (rng.standard_normal((n_out, n_in)) * scale).astype(np.float32)


def stored(kind: str, values: np.ndarray) -> Tensor:
    return Tensor(kind, values.shape, gguf.quantize(values, Kind[kind]))


def any_stored(kind: str) -> Tensor:
    """A matrix [24, 256]; K-quants, which gguf cannot write, of random bytes."""
    if not kind.endswith("_K"):
        return stored(kind, weights(24, 256) + np.float32(0.3))
    raw = np.random.default_rng(4).integers(0, 256, (24, gguf.GGML_QUANT_SIZES[Kind[kind]][1]))
    raw = raw.astype(np.uint8)
    if kind == "Q6_K":
        raw[:, 208:] = np.array([5e-5], np.float16).view(np.uint8)
    else:
        raw[:, :4] = np.array([4e-4, 3e-3], np.float16).view(np.uint8)
    return Tensor(kind, (24, 256), raw)


def product(blocks: Blocks, x: np.ndarray) -> np.ndarray:
    """x [T, n_in] times the blocks' rows by ONNX Runtime, sums in 32 bits (accuracy_level 1)."""
    if blocks.rests is not None:
        x = np.concatenate([x, x.reshape(len(x), -1, blocks.block).sum(axis=2)], axis=1)
        blocks = blocks.with_rests_behind()
    n_out, n_in = len(blocks.codes), x.shape[1]
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales", "zeros"], ["y"], domain="com.microsoft", K=n_in,
        N=n_out, bits=blocks.bits, block_size=blocks.block, accuracy_level=1,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", n_in])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", n_out])],
        [onnx.numpy_helper.from_array(blocks.packed(), "codes"),
         onnx.numpy_helper.from_array(blocks.scales, "scales"),
         onnx.numpy_helper.from_array(blocks.packed_zeros(), "zeros")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("kind", EXACT)
def test_stored_blocks_are_taken_as_they_are(kind: str) -> None:
    tensor = any_stored(kind)
    blocks = blocks_of(tensor, EXACT[kind], 32)
    assert (blocks.bits, blocks.block) == (EXACT[kind], 16 if kind == "Q6_K" else 32)
    expected = gguf.dequantize(tensor.data, Kind[kind])
    assert np.allclose(blocks.floats(), expected, rtol=1e-6, atol=1e-6 * abs(expected).max())
    assert (blocks.rests is None) == (kind in ("Q4_0", "Q5_0", "Q6_K", "Q8_0"))
    assert len(np.unique(blocks.codes)) > 12


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_a_block_of_one_value_is_that_value(value: float) -> None:
    tensor = stored("Q4_1", np.full((2, 64), value, np.float32))
    assert (stored_blocks(tensor).floats() == value).all()


def test_blocks_below_one_another_keep_their_zeros_and_rests() -> None:
    plain, shifted = stored_blocks(any_stored("Q4_0")), stored_blocks(any_stored("Q4_1"))
    both = joined([plain, shifted])
    expected = np.concatenate([plain.floats(), shifted.floats()])
    assert np.array_equal(both.floats(), expected)


@pytest.mark.parametrize(
    ("kind", "bits", "block"), [("Q8_0", 4, 32), ("Q4_0", 8, 32), ("Q4_0", 4, 128), ("F16", 4, 32)]
)
def test_whatever_is_no_such_block_is_rounded(kind: str, bits: int, block: int) -> None:
    values = weights(8, 128)
    tensor = Tensor("F16", values.shape, values.astype(np.float16))
    if kind != "F16":
        tensor = stored(kind, values)
    blocks, plain = blocks_of(tensor, bits, block), rounded(tensor.floats(), bits, block)
    assert (blocks.bits, blocks.block) == (bits, block)
    assert np.array_equal(blocks.codes, plain.codes)
    assert np.array_equal(blocks.scales, plain.scales)


@pytest.mark.parametrize(
    ("bits", "block", "n_in"),
    [(4, 32, 96), (8, 32, 96), (4, 32, 80), (8, 32, 80), (4, 128, 96), (8, 128, 300), (4, 32, 5)],
)
def test_onnx_runtime_multiplies_by_what_floats_says(bits: int, block: int, n_in: int) -> None:
    blocks = rounded(weights(24, n_in), bits, block)
    assert blocks.scales.shape == (24, -(-n_in // block))
    x = np.random.default_rng(2).standard_normal((3, n_in)).astype(np.float32)
    expected = x.astype(np.float64) @ blocks.floats()[:, :n_in].astype(np.float64).T
    assert product(blocks, x) == pytest.approx(expected, rel=1e-5, abs=1e-5 * abs(expected).max())


@pytest.mark.parametrize("kind", EXACT)
def test_onnx_runtime_multiplies_by_stored_blocks(kind: str) -> None:
    tensor = any_stored(kind)
    x = np.random.default_rng(3).standard_normal((4, 256)).astype(np.float32)
    expected = x.astype(np.float64) @ gguf.dequantize(tensor.data, Kind[kind]).T.astype(np.float64)
    blocks = stored_blocks(tensor)
    within = 1e-5 if blocks.rests is None else 3e-2  # rests are rounded to the blocks' own bits
    seen = product(blocks, x)
    assert seen == pytest.approx(expected, rel=1e-5, abs=within * abs(expected).max())


def by_ggml(values: np.ndarray, bits: int) -> np.ndarray:
    """Values [n_out, n_blocks, block] after GGML's rule for Q4_0, scales in 32 bits."""
    half = 1 << (bits - 1)
    at = np.abs(values).argmax(axis=2)[:, :, None]
    scales = np.take_along_axis(values, at, axis=2) / -half
    codes = np.clip(np.trunc(values / scales + (half + 0.5)), 0, 2 * half - 1)
    return (codes - half) * scales


@pytest.mark.parametrize("block", [32, 128])
def test_four_bits_round_no_block_worse_than_ggml(block: int) -> None:
    values = weights(200, 256).reshape(200, -1, block)
    seen = rounded(values.reshape(200, -1), 4, block).floats().reshape(values.shape)
    error, ggml = (np.square(v - values).sum(axis=2) for v in (seen, by_ggml(values, 4)))
    assert (error <= ggml * (1 + 1e-5)).all()
    assert error.sum() < 0.97 * ggml.sum()


def test_eight_bits_are_off_by_half_a_step_at_most_but_for_the_opposite_extreme() -> None:
    values = weights(50, 128).reshape(50, -1, 32)
    blocks = rounded(values.reshape(50, -1), 8, 32)
    steps = (
        np.abs(blocks.floats().reshape(values.shape) - values) / np.abs(blocks.scales)[..., None]
    )
    assert steps[blocks.codes < 255].max() < 0.5 + 1e-3
    assert steps.max() < 1 + 1e-3


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_zeros_stay_zeros(bits: int) -> None:
    values = weights(4, 96)
    values[1] = 0
    values[2, 32:64] = 0
    blocks = rounded(values, bits, 32)
    floats = blocks.floats()
    assert not floats[1].any()
    assert not floats[2, 32:64].any()
    assert floats[2, :32].any()
    assert (blocks.codes[1] == 1 << (bits - 1)).all()
    assert np.isfinite(product(blocks, np.ones((1, 96), np.float32))).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_too_small_for_a_float_become_zeros(bits: int) -> None:
    values = np.zeros((2, 32), np.float32)
    values[0, ::3] = 1e-42
    values[1] = np.linspace(-1, 1, 32)
    floats = rounded(values, bits, 32).floats()
    assert np.abs(floats[0]).max() < 1e-40
    assert np.abs(floats[1] - values[1]).max() < 0.13


def test_missing_columns_are_zeros() -> None:
    blocks = rounded(weights(3, 40), 4, 32)
    assert not blocks.floats()[:, 40:].any()
    assert blocks.floats().shape == (3, 64)


def test_pairs_share_a_byte_the_even_value_low() -> None:
    codes = np.arange(16, dtype=np.uint8).reshape(1, 1, 16)
    packed = Blocks(4, codes, np.ones((1, 1), np.float32)).packed()
    assert packed.tolist() == [[[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]]
    assert Blocks(8, codes, np.ones((1, 1), np.float32)).packed() is codes
