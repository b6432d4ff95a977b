"""Writes one ONNX model: nodes gathered in memory, weights straight into the file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from .data_file import DataFile

OPSET, CONTRIB = 21, "com.microsoft"
IR_VERSION = 10


class OnnxFile:
    """A graph being built, in a `with`. Names of nodes are those of their first output."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = DataFile(path.with_name(path.name + ".data"))
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __enter__(self) -> OnnxFile:
        return self

    def __exit__(self, *error: Any) -> None:
        self._data.__exit__(*error)

    def node(self, kind: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        """Add a node; an operator of ONNX Runtime's own is written "com.microsoft:Name"."""
        domain, _, name = kind.rpartition(":")
        outputs = [output] if isinstance(output, str) else output
        self._nodes.append(
            helper.make_node(name, inputs, outputs, name=outputs[0], domain=domain, **attributes)
        )
        return outputs[0]

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant."""
        self._weights.append(self._data.tensor(name, values))
        return name

    def input(self, name: str, dtype: Any, shape: list[int | str]) -> str:
        """Add an input of the graph."""
        self._inputs.append(_described(name, dtype, shape))
        return name

    def output(self, name: str, dtype: Any, shape: list[int | str]) -> str:
        """Make a value an output of the graph."""
        self._outputs.append(_described(name, dtype, shape))
        return name

    def close(self, name: str) -> None:
        """Write the graph, called `name`."""
        self._data.close()
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "edgespec"
        onnx.save(model, self._path)


def _described(name: str, dtype: Any, shape: list[int | str]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, shape)
