"""Writes graphs of fixed shapes as ONNX files that share one file of weights, and opens one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgespec.backends import onnx_providers

from .static_graph import Array, Graph

OPSET, IR_VERSION = 21, 10  # the first with 16-bit QuantizeLinear; onnxruntime 1.23 knows it
DATA = "model.onnx.data"
ALIGN = 4096  # weights begin on a page, so that they can be mapped
SMALL = 1024  # bytes up to which a weight stays in the graph itself


def write_graphs(folder: Path, graphs: Mapping[str, Graph]) -> None:
    """Write each graph under its file name, and the weights once. Same name, same weight."""
    with open(folder / DATA, "wb") as data:
        weights = Weights(data)
        models = {name: model_of(graph, weights) for name, graph in graphs.items()}
    for name, model in models.items():
        onnx.save(model, folder / name)


@contextmanager
def opened(graph: Graph) -> Iterator[Any]:
    """A session of the graph on the CPU."""
    # A mapped file cannot be deleted on Windows; the system clears its temporary folder itself.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write_graphs(Path(folder), {"model.onnx": graph})
        yield onnx_providers.session(Path(folder) / "model.onnx", "cpu")


class Weights:
    """The weights written to `file` so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stored: dict[str, TensorProto] = {}

    def tensor(self, name: str, values: Array) -> TensorProto:
        """The weight as a graph states it, its values in the file unless it is small."""
        values = np.asarray(values, order="C")
        tensor = TensorProto(name=name, dims=values.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        if values.nbytes <= SMALL:
            tensor.raw_data = values.tobytes()
            return tensor
        self._file.write(b"\0" * (-self._file.tell() % ALIGN))
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": DATA, "offset": self._file.tell(), "length": values.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(values.data)
        self._stored[name] = tensor
        return tensor

    def of(self, graph: Graph) -> list[TensorProto]:
        """All weights of `graph`, written unless another graph had them."""
        return [
            self._stored.get(name) or self.tensor(name, make())
            for name, make in graph.weights.items()
        ]


def model_of(graph: Graph, weights: Weights) -> onnx.ModelProto:
    """The graph in ONNX's own words."""
    nodes = [
        helper.make_node(n.kind, n.inputs, n.outputs, name=n.outputs[0], **n.attributes)
        for n in graph.nodes
    ]
    parts = nodes, graph.name, _described(graph.inputs), _described(graph.outputs)
    model = helper.make_model(
        helper.make_graph(*parts, weights.of(graph)),
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
