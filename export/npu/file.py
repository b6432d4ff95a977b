"""Writes graphs of fixed shapes as ONNX files that share one file of weights, and opens one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.folder import GRAPH

from ..onnx.data_file import DataFile
from .graph import Graph

OPSET, IR_VERSION = 21, 10  # the first with 16-bit QuantizeLinear; onnxruntime 1.23 knows it
DATA = f"{GRAPH}.data"


def write_graphs(folder: Path, graphs: Mapping[str, Graph]) -> None:
    """Write each graph under its file name, and the weights once. Same name, same weight."""
    with DataFile(folder / DATA) as data:
        written: dict[str, TensorProto] = {}
        weights = {name: weights_of(graph, data, written) for name, graph in graphs.items()}
    for name, graph in graphs.items():
        onnx.save(model_of(graph, weights[name]), folder / name)


@contextmanager
def opened(graph: Graph) -> Iterator[Any]:
    """A session of the graph on the CPU."""
    # A mapped file cannot be deleted on Windows; the system clears its temporary folder itself.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_graphs(Path(folder), {GRAPH: graph})
        yield onnx_providers.session(Path(folder) / GRAPH, "cpu")


def weights_of(graph: Graph, data: DataFile, written: dict[str, TensorProto]) -> list[TensorProto]:
    """All weights of `graph`; what goes to `data` goes there once, and is added to `written`."""
    found = []
    for name, make in graph.weights.items():
        tensor = written.get(name) or data.tensor(name, make())
        # A small one stays in its graph: shapes have one name and another value for each width.
        if tensor.data_location == TensorProto.EXTERNAL:
            written[name] = tensor
        found.append(tensor)
    return found


def model_of(graph: Graph, weights: list[TensorProto]) -> onnx.ModelProto:
    """The graph in ONNX's own words."""
    nodes = [
        helper.make_node(n.kind, n.inputs, n.outputs, name=n.outputs[0], **n.attributes)
        for n in graph.nodes
    ]
    parts = nodes, graph.name, _described(graph.inputs), _described(graph.outputs)
    model = helper.make_model(
        helper.make_graph(*parts, weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    model.producer_name = "edgespec"
    return model


def _described(values: Mapping[str, tuple[Any, tuple[int, ...]]]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
        for name, (kind, shape) in values.items()
    ]
