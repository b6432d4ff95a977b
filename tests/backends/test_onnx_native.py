"""ONNX Runtime by its C library alone: as the Python package has it, where that is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_maker import DEMO
from native_library import library, without_the_package
from npu_maker import static_folder
from onnx_maker import dynamic_folder
from test_onnx_providers import graph

import edgespec
from edgespec.backends import ModelOptions
from edgespec.backends.onnx import providers
from edgespec.backends.onnx.model import OnnxModel
from edgespec.backends.onnx.native import api, package
from edgespec.errors import BackendError, ModelFileError

PROMPT = [1, 403, 407, 261, 378]
AZURE = ("AzureExecutionProvider", {})  # takes no node, but is built into the wheel's library


@pytest.fixture(params=["static", "dynamic"])
def folder(request: pytest.FixtureRequest, data_folder: Path) -> Path:
    """An exported model."""
    return static_folder(data_folder) if request.param == "static" else dynamic_folder(DEMO)


def test_it_takes_the_packages_place_where_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(api.VARIABLE, str(library()))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert providers.runtime() is package
    assert package.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="bound without ModelCompiler"):
        package.ModelCompiler  # noqa: B018


def test_a_library_that_is_none_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none.so"):
        api.Api(str(tmp_path / "none.so"))


def test_inputs_and_outputs_are_told_as_the_package_tells_them(folder: Path) -> None:
    path = next(iter(sorted(folder.glob("*.onnx"))))
    theirs = providers.session(path, "cpu")
    with without_the_package():
        ours = providers.session(path, "cpu")

    def told(values: Any) -> list[Any]:
        fixed = [[n if isinstance(n, int) else None for n in value.shape] for value in values]
        return [(v.name, v.type, shape) for v, shape in zip(values, fixed, strict=True)]

    assert told(ours.get_inputs()) == told(theirs.get_inputs())
    assert told(ours.get_outputs()) == told(theirs.get_outputs())
    assert ours.get_overridable_initializers() == []


def test_logits_are_those_of_the_package(folder: Path) -> None:
    theirs = OnnxModel(folder, ModelOptions(96, n_threads=1))
    with without_the_package():
        ours = OnnxModel(folder, ModelOptions(96, n_threads=1))
    assert ours.device == "CPU"
    for tokens in (PROMPT, [5], [6, 7, 8]):
        assert np.array_equal(ours.forward(tokens), theirs.forward(tokens))
    theirs.close()
    ours.close()


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with without_the_package():
        with pytest.raises(ModelFileError, match="bad.onnx is no complete ONNX graph"):
            providers.session(tmp_path / "bad.onnx", "cpu")
        with pytest.raises(ModelFileError, match="none.onnx is not there"):
            providers.session(tmp_path / "none.onnx", "cpu")


def test_other_providers_are_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = graph(tmp_path / "small.onnx", 4)
    with without_the_package():
        assert "CPUExecutionProvider" in package.get_available_providers()
        package.InferenceSession(str(path), package.SessionOptions(), providers=[AZURE])
        # Qualcomm's is built into the library of its own Android package.
        monkeypatch.setattr(providers, "_source", lambda _: providers.BUILT_IN)
        with pytest.raises(BackendError, match="qnn cannot open small.onnx.*QNN.*not.*build"):
            providers.session(path, "qnn")


def test_a_tensor_lies_in_its_arrays_own_memory(tmp_path: Path) -> None:
    with without_the_package():
        session = providers.session(graph(tmp_path / "small.onnx", 4), "cpu")
        x, y = np.ones((4, 8), np.float32), np.zeros((4, 8), np.float32)
        binding = session.io_binding()
        for bind, name, array in (
            (binding.bind_ortvalue_input, "x", x),
            (binding.bind_ortvalue_output, "y", y),
        ):
            bind(name, package.OrtValue.ortvalue_from_numpy(array))
        for value in (1.0, 2.0):
            x[:] = value
            session.run_with_iobinding(binding)
            assert np.array_equal(y, 2 * x + 1)
        with pytest.raises(ValueError, match="not contiguous"):
            package.OrtValue.ortvalue_from_numpy(array.T)


@pytest.mark.slow
def test_the_drafter_of_an_npu_drafts_for_a_gguf_target(
    data_folder: Path, stories260k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with (
        without_the_package(),
        edgespec.load(
            stories260k, static_folder(data_folder), speculative="on", ctx_size=96, threads=1
        ) as session,
    ):
        text = "".join(p.text for p in session.generate("Once upon a time", max_tokens=40))
        assert session.stats.acceptance_rate > 0.95
        plain = session.generate("Once upon a time", max_tokens=40, speculative="off")
        assert text == "".join(p.text for p in plain)
