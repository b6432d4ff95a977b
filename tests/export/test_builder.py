"""The model builder's child process: what it is asked, what becomes of its graph, what can fail.

A package made here stands in for the real one, which tests/slow/test_builder_full.py runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from edgespec.export.onnx.builder import write_built
from edgespec.export.onnx.builder_child import FlatConfig
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.read.checkpoint import Checkpoint
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.export.read.hf import open_hf
from hf_maker import write_checkpoint
from llama_reference import write_llama

from edgespec.errors import BackendError, EdgeSpecError, UsageError

FAKE = """
import json, os, sys
import onnx
from onnx import TensorProto, helper
AutoConfig = object()

def parse_extra_options(name, source, out, precision, device, cache, extra):
    return {"asked": [source, precision, device, *extra]}

def create_model(name, source, out, precision, device, cache, asked):
    exec(os.environ.get("FAKE_BUILDER", ""))
    cache = [1, 2, "past", "kv_cache_dim"]
    value = helper.make_tensor_value_info
    inputs = [value("input_ids", TensorProto.INT64, [1, "T"])]
    inputs += [value(NAME, TensorProto.INT64, [1, "total"])]
    pasts = [f"past_key_values.0.{w}" for w in ("key", "value")]
    presents = [f"present.0.{w}" for w in ("key", "value")]
    inputs += [value(p, TensorProto.FLOAT, cache) for p in pasts]
    outputs = [value(p, TensorProto.FLOAT, cache) for p in presents]
    given = ["q", "k", "v", *pasts, "seqlens", "total", "cos", "sin"]
    nodes = [helper.make_node("GroupQueryAttention", given, ["o", *presents], do_rotary=1)]
    weight = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="model.onnx.data")
    graph = helper.make_graph(nodes, json.dumps(asked), inputs, outputs, [weight])
    os.makedirs(out)
    onnx.save(helper.make_model(graph), out + "/model.onnx")
    open(out + "/model.onnx.data", "wb").write(bytes(16))

NAME = "attention_mask"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A package that writes a small graph, found by the children of this process."""
    folder = tmp_path / "site" / "onnxruntime_genai" / "models"
    folder.mkdir(parents=True)
    for path in (folder.parent / "__init__.py", folder / "__init__.py"):
        path.touch()
    (folder / "builder.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return monkeypatch


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return open_hf(write_checkpoint(tmp_path / "phi", "phi3"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model.onnx"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (GraphOptions("fp32"), []),
        (GraphOptions("int8", block=128, hidden=True),
         ["block_size=128", "accuracy_level=4", "include_hidden_states=true"]),
        (GraphOptions("int4"),
         ["block_size=32", "accuracy_level=4", "matmul_mixed_precision=last_matmul:int8",
          "shared_embeddings=false"]),
    ],
)  # fmt: skip
def test_the_builder_is_asked_for_what_was_chosen(
    fake: pytest.MonkeyPatch,
    checkpoint: Checkpoint,
    out: Path,
    options: GraphOptions,
    asked: list[str],
) -> None:
    write_built(checkpoint, out, options)
    model = onnx.load(out, load_external_data=False)
    start = [str(checkpoint.path), options.precision, "cpu", "windowed_kv_cache=false"]
    assert json.loads(model.graph.name) == [*start, *asked]


def test_the_graph_states_the_sizes_of_its_caches(
    fake: pytest.MonkeyPatch, checkpoint: Checkpoint, out: Path
) -> None:
    write_built(checkpoint, out, GraphOptions("fp32"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    model = onnx.load(out, load_external_data=False)
    for value in (*model.graph.input[2:], *model.graph.output):
        sizes = value.type.tensor_type.shape.dim
        assert (sizes[2].dim_param, sizes[3].dim_value) == ("S", 16)
    onnx.load(out)  # finds the weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "error", "line"),
    [
        ("raise KeyError('rope_type')", BackendError, r"stopped \(KeyError: 'rope_type'\): exp"),
        ("os._exit(9)", BackendError, r"stopped \(exit code 9\): expected a graph; update onnxru"),
        ("globals().update(NAME='mask')", BackendError, "graph takes input_ids, mask, past.*: exp"),
        ("os.makedirs(out); sys.exit(0)", BackendError, "wrote no model.onnx: update onnxruntime"),
    ],
)
def test_a_builder_that_fails_leaves_one_line_and_no_files(
    fake: pytest.MonkeyPatch,
    checkpoint: Checkpoint,
    out: Path,
    does: str,
    error: type[EdgeSpecError],
    line: str,
) -> None:
    fake.setenv("FAKE_BUILDER", does)
    with pytest.raises(error, match=line) as caught:
        write_built(checkpoint, out, GraphOptions("fp32"))
    assert "\n" not in str(caught.value)
    assert not list(out.parent.iterdir())


def test_a_missing_package_is_named_and_where_to_put_it(
    fake: pytest.MonkeyPatch, checkpoint: Checkpoint, out: Path, tmp_path: Path
) -> None:
    builder = tmp_path / "site" / "onnxruntime_genai" / "models" / "builder.py"
    builder.write_text("import no_such_package", encoding="utf-8")
    with pytest.raises(UsageError, match="has no no_such_package: expected one with onnx.*--build"):
        write_built(checkpoint, out, GraphOptions("fp32"), Path(sys.executable))


def test_a_python_that_is_none_is_refused(checkpoint: Checkpoint, out: Path) -> None:
    with pytest.raises(UsageError, match="cannot be run .* expected a Python for --builder-python"):
        write_built(checkpoint, out, GraphOptions("fp32"), out.parent / "python")


def test_what_the_builder_cannot_do_is_refused_before_it_starts(
    checkpoint: Checkpoint, out: Path, tmp_path: Path
) -> None:
    import numpy as np

    source = open_gguf_checkpoint(write_llama(tmp_path / "a.gguf"))
    with pytest.raises(UsageError, match="is a GGUF of architecture 'llama', .*: expected a Hugg"):
        write_built(source, out, GraphOptions("fp32"))
    with pytest.raises(UsageError, match="precision 'fp16' for a phi3: expected one of fp32, int8"):
        write_built(checkpoint, out, GraphOptions("fp16"))
    trimmed = checkpoint.with_head(np.array([1, 2], np.int32))
    with pytest.raises(UsageError, match="head of a phi3 cannot be trimmed in ONNX: .* to a GGUF"):
        write_built(trimmed, out, GraphOptions("fp32"))


@pytest.mark.slow
@pytest.mark.parametrize("turns", [0, 1])
def test_a_layer_without_rotation_loses_it_in_the_graph(
    fake: pytest.MonkeyPatch, out: Path, tmp_path: Path, turns: int
) -> None:
    folder = write_checkpoint(tmp_path / "a", "smollm3", changed={"no_rope_layers": [turns, 1]})
    write_built(open_hf(folder), out, GraphOptions("fp32"))
    (node,) = onnx.load(out, load_external_data=False).graph.node
    assert node.attribute[0].i == turns
    assert list(node.input[7:9]) == (["cos", "sin"] if turns else ["", ""])
    assert node.input[6] == "total"


def test_a_layer_that_is_not_found_is_an_error(
    fake: pytest.MonkeyPatch, out: Path, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "a", "smollm3", changed={"no_rope_layers": [1, 0]})
    with pytest.raises(BackendError, match="has no attention for layer 1: expected one; use onnx"):
        write_built(open_hf(folder), out, GraphOptions("fp32"))


class Config:
    """What transformers 5 gives out for Gemma-3, and for SmolLM3."""

    def __init__(self) -> None:
        self.rope_parameters: dict[str, dict[str, object]] = {
            "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        }
        self.no_rope_layers = [1, 1, 1, 0]

    @classmethod
    def from_pretrained(cls, name: str, *, token: str) -> Config:
        assert (name, token) == ("x", "y")
        return cls()


def test_two_sets_of_angles_are_told_as_the_builder_reads_them() -> None:
    config = FlatConfig(Config).from_pretrained("x", token="y")
    assert (config.rope_theta, config.rope_local_base_freq) == (1e6, 1e4)
    assert config.rope_parameters == {"rope_theta": 1e6, "rope_type": "default"}
    assert config.no_rope_layers == [1, 1, 1, 1]
