"""A public model as a graph of 4 bits: what its GGUF says, and a folder that needs nothing else."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from edgespec.export.onnx.export import OnnxReport
from edgespec.export.onnx.graph import GraphOptions
from onnx_maker import exported

from edgespec.backends import ModelOptions, open_model
from edgespec.text.template import ChatTemplate

pytestmark = pytest.mark.real

SMOL = "smollm2-135m-instruct-q4_1.gguf"


@pytest.fixture(scope="module")
def report(real_models: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxReport:
    folder = tmp_path_factory.mktemp("graph") / "smol-int4"
    return exported(real_models / SMOL, folder, GraphOptions("int4", context=2048))


def test_minima_survive_in_four_bits(report: OnnxReport) -> None:
    assert report.check.n_tokens > 1000
    assert report.check.loss < 0.01
    assert report.check.agreement > 0.95


def test_the_folder_alone_formats_a_chat(report: OnnxReport, real_models: Path) -> None:
    asked = [{"role": "user", "content": "Which <|im_start|> is it?"}]
    seen = []
    for path in (report.path, real_models / SMOL):
        with closing(open_model(path, ModelOptions(64, device="cpu"))) as model:
            assert model.tokenizer.chat_template
            seen.append(ChatTemplate(model.tokenizer, own=True).tokens(asked))
    assert seen[0] == seen[1]
