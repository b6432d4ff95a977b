"""Products in whole numbers: near the exact ones, and the same in whatever company."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from edgespec.export.onnx.channels import WIDEST, ZERO, Channels
from edgespec.export.onnx.file import OnnxFile
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.read.checkpoint import Tensor
from model_maker import make
from onnx_maker import ANY_LOSS, exported, opened

from edgespec.backends import ModelOptions
from edgespec.backends.onnx.preview import ROWS, preview_of
from edgespec.errors import ModelFileError
from edgespec.store import pairs

N_IN, N_OUT = 320, 96


def written(path: Path, *matrices: np.ndarray) -> Any:
    """A session that gives y, x times all rows of the matrices, and the codes of x."""
    with OnnxFile(path) as file:
        file.input("x", np.float32, [1, "T", matrices[0].shape[1]])
        tensors = {f"w{i}": Tensor("F32", one.shape, one) for i, one in enumerate(matrices)}
        Channels(file).product("y", tensors, "x")
        file.output("y", np.float32, [1, "T", sum(len(one) for one in matrices)])
        file.output("x.codes", np.uint8, [1, "rows", matrices[0].shape[1]])
        file.close("product")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def product(session: Any, x: np.ndarray) -> np.ndarray:
    """[T, n_out] of x [T, n_in]."""
    return session.run(["y"], {"x": x[None].astype(np.float32)})[0][0]


@pytest.fixture
def weights() -> np.ndarray:
    """Codes from -127 to 127 times a scale for each row, so that nothing is lost of them."""
    draw = np.random.default_rng(0)
    codes = draw.integers(-WIDEST, WIDEST + 1, (N_OUT, N_IN))
    codes[:, 0] = WIDEST
    return (codes * draw.uniform(0.001, 0.1, (N_OUT, 1))).astype(np.float32)


def test_an_input_counts_to_one_part_in_sixteen_thousand_of_the_largest(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((5, N_IN)).astype(np.float32)
    x[1] *= 1e6
    x[2] *= 1e-6
    x[3, 7] = 300  # beside which the others are small
    found = product(written(tmp_path / "m.onnx", np.eye(N_IN, dtype=np.float32)), x)
    off = np.abs(found - x).max(axis=1) / np.abs(x).max(axis=1)
    assert (off < 1.01 / (2 * 63 * 128)).all()
    assert (off > 0.8 / (2 * 63 * 128)).all()  # some input lies in the middle of two codes


def test_a_row_of_zeros_gives_zeros(weights: np.ndarray, tmp_path: Path) -> None:
    x = np.zeros((2, N_IN))
    x[1] = 1
    found = product(written(tmp_path / "m.onnx", weights), x)
    assert not found[0].any()
    assert found[1] == pytest.approx(weights.sum(axis=1), rel=1e-4, abs=1e-3)


def test_several_matrices_stand_one_below_the_other(weights: np.ndarray, tmp_path: Path) -> None:
    x = np.random.default_rng(2).standard_normal((3, N_IN))
    none = np.zeros((4, N_IN), np.float32)
    together = product(written(tmp_path / "m.onnx", weights[:60], none, weights[60:]), x)
    alone = product(written(tmp_path / "n.onnx", weights), x)
    assert np.array_equal(np.delete(together, slice(60, 64), axis=1), alone)
    assert not together[:, 60:64].any()


def test_neighbouring_products_fit_16_bits(weights: np.ndarray, tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((64, N_IN)).astype(np.float32)
    x[::2] = np.sign(x[::2])
    codes = written(tmp_path / "m.onnx", weights).run(["x.codes"], {"x": x[None]})[0][0]
    assert codes.shape == (2 * len(x), N_IN)
    assert codes.min() >= 0 and codes.max() <= 2 * ZERO
    assert 2 * (2 * ZERO) * WIDEST < 1 << 15


@pytest.mark.parametrize("n", [2, 3, 8, 17, 40])
def test_a_row_is_the_same_in_whatever_company(n: int, weights: np.ndarray, tmp_path: Path) -> None:
    x = np.random.default_rng(n).standard_normal((n, N_IN))
    session = written(tmp_path / "m.onnx", weights)
    together = product(session, x)
    for one, row in zip(x, together, strict=True):
        assert np.array_equal(product(session, one[None])[0], row)


def test_weights_that_are_no_numbers_are_refused(weights: np.ndarray, tmp_path: Path) -> None:
    weights[3, 4] = np.nan
    with pytest.raises(ModelFileError, match="a weight is no number: expected finite ones"):
        written(tmp_path / "m.onnx", weights)


def test_rows_too_small_to_scale_count_as_zeros(weights: np.ndarray, tmp_path: Path) -> None:
    weights[3] = 1e-44
    found = product(written(tmp_path / "m.onnx", weights), np.ones((1, N_IN)))[0]
    assert found[3] == 0
    assert found[4] == pytest.approx(weights[4].sum(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_graph_with_inputs_for_adapters_says_the_same(
    architecture: str, tmp_path: Path, stories260k: Path
) -> None:
    source = make(tmp_path / "w.gguf", architecture, kind="F32", tied=False, vocabulary=stories260k)
    options = GraphOptions("int8-channel", hidden=True)
    exported(source, tmp_path / "whole", replace(options, precision="fp32"), ANY_LOSS)
    exported(source, tmp_path / "plain", options, ANY_LOSS)
    exported(source, tmp_path / "lora", replace(options, lora=True), ANY_LOSS)
    rows = {}
    for name in ("whole", "plain", "lora"):
        with closing(opened(tmp_path / name)) as model:
            rows[name] = model.forward([5, 70, 12, 300, 9]).copy()
    assert np.abs(rows["lora"] - rows["plain"]).max() < 0.01 * np.abs(rows["plain"]).max()
    assert np.linalg.norm(rows["plain"] - rows["whole"]) < 0.05 * np.linalg.norm(rows["whole"])


def test_a_token_read_alone_or_with_others_says_nearly_the_same(tmp_path: Path) -> None:
    demo = pairs.folder() / "demo" / "foreign.gguf"
    exported(demo, tmp_path / "graph", GraphOptions("int8-channel"))
    tokens = [5, 700, 12, 300, 9, 41, 8, 77]
    with closing(opened(tmp_path / "graph")) as model:
        assert model.info().quant == "int8-channel"
        together = model.forward(tokens).copy()
        model.truncate(0)
        alone = np.concatenate([model.forward([one]).copy() for one in tokens])
    assert preview_of(tmp_path / "graph", ModelOptions()).logits_bytes > 4 * 4 * ROWS * 1024
    # Attention rounds otherwise, by which a code of the next product may differ.
    assert np.abs(together - alone).max() < 1e-3 * np.abs(alone).max()
