"""Writes one ONNX model: nodes gathered in memory, weights straight into the file beside it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

OPSET, CONTRIB = 21, "com.microsoft"
IR_VERSION = 10
ALIGN = 4096  # weights begin on a page, so that they can be mapped
SMALL = 1024  # bytes up to which a constant stays in the graph itself


class OnnxFile:
    """A graph being built, in a `with`. Names of nodes are those of their first output."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.with_name(path.name + ".data").open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __enter__(self) -> OnnxFile:
        return self

    def __exit__(self, *_: object) -> None:
        # What could not be written is tried again by close; a file left open cannot be removed on
        # some systems.
        with suppress(OSError):
            self._data.close()

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
        values = np.ascontiguousarray(values)
        tensor = TensorProto(name=name, dims=values.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        if values.nbytes <= SMALL:
            tensor.raw_data = values.tobytes()
        else:
            self._data.write(b"\0" * (-self._data.tell() % ALIGN))
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": self._path.name + ".data", "offset": self._data.tell()}
            for key, value in {**place, "length": values.nbytes}.items():
                tensor.external_data.add(key=key, value=str(value))
            self._data.write(values.data)
        self._weights.append(tensor)
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
