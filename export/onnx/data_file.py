"""The file of weights beside ONNX graphs, written as the graphs are built."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

ALIGN = 4096  # weights begin on a page, so that they can be mapped
SMALL = 1024  # bytes up to which a weight stays in the graph itself


class DataFile:
    """Takes weights, in a `with`, and gives each as a graph beside it states it."""

    def __init__(self, path: Path) -> None:
        self._name, self._file = path.name, path.open("wb")

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What could not be written is tried again by close, and must not hide the first error; a
        # file left open cannot be removed on some systems.
        with suppress(*[OSError] if kind else []):
            self.close()

    def tensor(self, name: str, values: NDArray[Any]) -> TensorProto:
        """The weight, its values in this file unless it is small."""
        values = np.asarray(values, order="C")
        tensor = TensorProto(name=name, dims=values.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        if values.nbytes <= SMALL:
            tensor.raw_data = values.tobytes()
            return tensor
        self._file.write(b"\0" * (-self._file.tell() % ALIGN))
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self._name, "offset": self._file.tell(), "length": values.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(values.data)
        return tensor

    def close(self) -> None:
        """Finish the file. Raises: OSError if the last of it cannot be written."""
        self._file.close()
