"""The demo drafter, trimmed and exported, on Qualcomm's HTP simulator: all of it there, and right.

The simulator computes as the chip does, and slowly; times mean nothing.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from edgespec.export.npu.export import StaticOptions, export_static
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.models import corpus
from npu_maker import quiet
from test_onnx_providers import graph

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel, LlamaCppTokenizer
from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.model import OnnxModel
from edgespec.decode.engine import Engine
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import UsageError
from edgespec.pace.controller import FixedController
from edgespec.store import pairs
from edgespec.text.template import ChatTemplate
from edgespec.types import SamplingParams

pytestmark = pytest.mark.slow

CONTEXT, N_KEPT = 256, 1024
QNN = "QNNExecutionProvider"
ASKED = (
    "Tell me a story about a fox who lost her kite.",
    "I want to hear a story about a big red ball.",
    "Write a short story.",
)
# Of the likeliest token: against 32-bit floats on the CPU, and against the same graph there.
LEAST = {"int8": (0.97, 0.97), "fp16": (0.995, 0.995)}


@pytest.fixture(scope="module", autouse=True)
def simulator() -> None:
    """Skips where the package is not installed or its library does not load."""
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed")
    if "qnn" not in [device.name for device in onnx_providers.devices()]:
        pytest.skip("onnxruntime-qnn is installed, but its library does not load here")


@pytest.fixture(scope="module")
def text(data_folder: Path) -> str:
    """Stories to choose rows by and to calibrate with."""
    found = (story for story in corpus.stories(data_folder / "text") if not corpus.held_out(story))
    return "\n".join(islice(found, 400))


@pytest.fixture(scope="module")
def unseen(drafter_file: Path, data_folder: Path) -> list[list[int]]:
    """Beginnings of stories that nothing was trained on or calibrated with."""
    found = (story for story in corpus.stories(data_folder / "text") if corpus.held_out(story))
    with closing(LlamaCppTokenizer.open(drafter_file)) as tokenizer:
        return [tokenizer.encode(story, bos=True)[:125] for story in islice(found, 8)]


@pytest.fixture(scope="module")
def drafter_file() -> Path:
    return pairs.bundled(pairs.find("demo").drafter)


@pytest.fixture(scope="module")
def kept(drafter_file: Path, text: str) -> np.ndarray:
    """The ids the text needs most, and all that end a turn."""
    with closing(LlamaCppTokenizer.open(drafter_file)) as tokenizer:
        counts = Counter(tokenizer.encode(text))
        most = [token for token, _ in counts.most_common(N_KEPT - len(tokenizer.stop_tokens))]
        return np.array(sorted({*most, *tokenizer.stop_tokens}), np.int32)


@pytest.fixture(scope="module")
def folders(
    drafter_file: Path, kept: np.ndarray, text: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The exports: floats for the CPU, the others compiled for the simulator."""
    parent = tmp_path_factory.mktemp("qnn")
    checkpoint = open_gguf_checkpoint(drafter_file).with_head(kept)
    for precision, device in (("fp32", ""), ("fp16", "qnn"), ("int8", "qnn")):
        options = StaticOptions(CONTEXT, 4, precision, device)
        export_static(checkpoint, parent / precision, options, text, quiet)
    return {path.name: path for path in parent.iterdir()}


@pytest.fixture(scope="module", params=["int8", "fp16"])
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[OnnxModel]:
    with closing(open_on(folders[request.param], "qnn")) as opened:
        yield opened


def open_on(folder: Path, device: str) -> OnnxModel:
    return OnnxModel(folder, ModelOptions(device=device, n_threads=1))


def likeliest(model: OnnxModel, rows: list[list[int]]) -> np.ndarray:
    """The likeliest column after every token of each row."""
    found = []
    for row in rows:
        model.truncate(0)
        found.append(model.forward(row).argmax(axis=1))
    model.truncate(0)
    return np.concatenate(found)


def test_the_compiled_graphs_are_one_node_each_on_the_npu(model: OnnxModel) -> None:
    assert model.placement == {QNN: 2}


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_every_node_of_the_plain_graphs_is_on_the_npu(
    precision: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(folders[precision], folder)
    about = json.loads((folder / "edgespec.json").read_text(encoding="utf-8"))
    del about["compiled"]
    (folder / "edgespec.json").write_text(json.dumps(about), encoding="utf-8")
    with closing(open_on(folder, "qnn")) as model:
        assert list(model.placement) == [QNN]
        assert model.placement[QNN] > 150
        plain = model.forward(list(range(10, 17))).copy()
    with closing(open_on(folders[precision], "qnn")) as compiled:
        assert np.array_equal(compiled.forward(list(range(10, 17))), plain)


def test_the_npu_finds_the_tokens_that_the_cpu_finds(
    model: OnnxModel, folders: dict[str, Path], unseen: list[list[int]]
) -> None:
    precision = {"F16": "fp16", "W8A16": "int8"}[model.info().quant]
    found = likeliest(model, unseen)
    assert len(found) >= 500
    shares = []
    for folder in (folders["fp32"], folders[precision]):
        with closing(open_on(folder, "cpu")) as cpu:
            shares.append(float((found == likeliest(cpu, unseen)).mean()))
    print(f"{precision}: {shares[0]:.2%} of {len(found)} as floats, {shares[1]:.2%} as the CPU")
    for share, least in zip(shares, LEAST[precision], strict=True):
        assert share >= least


def test_rollback_is_step_by_step_reading(model: OnnxModel, unseen: list[list[int]]) -> None:
    tokens = unseen[0]
    model.truncate(0)
    model.extend(tokens[:20])
    singly = np.concatenate([model.forward([token]).copy() for token in tokens[20:25]])
    model.truncate(20)
    model.forward(tokens[40:45])
    model.truncate(20)
    assert np.array_equal(
        singly, np.concatenate([model.forward([token]).copy() for token in tokens[20:25]])
    )
    model.truncate(20)
    at_once = model.forward(tokens[20:25])
    assert np.abs(at_once - singly).max() < 0.1
    assert np.array_equal(at_once.argmax(1), singly.argmax(1))


def test_a_tree_on_the_npu_is_its_paths(model: OnnxModel, unseen: list[list[int]]) -> None:
    tokens = unseen[0]
    model.truncate(0)
    model.extend(tokens[:15])
    rows = model.forward([10, 20, 30, 40, 50], [-1, 0, 0, 2, 3])[[0, 2, 3, 4]].copy()
    model.keep([])
    plain = model.forward([10, 30, 40, 50])
    assert np.abs(rows - plain).max() < 0.2
    model.truncate(0)


def test_text_drafted_on_the_npu_is_the_targets_own(model: OnnxModel) -> None:
    path = pairs.bundled(pairs.find("demo").target)
    with closing(LlamaCppModel(path, ModelOptions(n_context=CONTEXT, n_threads=1))) as target:
        template = ChatTemplate(target.tokenizer)
        params = SamplingParams(max_tokens=48, stop_tokens=target.tokenizer.stop_tokens)
        n_accepted = 0
        for asked in ASKED:
            tokens = template.tokens([{"role": "user", "content": asked}])
            said = []
            for drafter in (None, ModelDrafter(model)):
                speculator = Paced(drafter, FixedController(4)) if drafter else Plain()
                engine = Engine(target, speculator)
                steps = list(engine.stream(tokens, params))
                said.append([token for step in steps for token in step.verdict.tokens])
                n_accepted += engine.stats.n_accepted
                target.truncate(0)
            assert said[1] == said[0]
            assert len(said[0]) > 30
    assert n_accepted > 40  # the drafter does help


def test_a_graph_without_fixed_shapes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nodes that qnn does not take: expected fixed shapes"):
        onnx_providers.session(graph(tmp_path / "dynamic.onnx", "n"), "qnn")
    assert onnx_providers.session(graph(tmp_path / "static.onnx", 4), "qnn")
