"""data_file.py: where weights lie, and which error is told when a disk is full."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from edgespec.export.onnx.data_file import ALIGN, SMALL, DataFile
from onnx import TensorProto, external_data_helper, numpy_helper


def test_large_weights_lie_in_the_file_and_small_ones_in_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx.data"
    small = np.zeros(SMALL, np.int8)
    weights = {"a": np.arange(999.0).reshape(3, 333).T, "b": np.arange(SMALL + 1) % 7}
    with DataFile(path) as data:
        assert numpy_helper.to_array(data.tensor("small", small)).tolist() == small.tolist()
        assert numpy_helper.to_array(data.tensor("one", np.array(3))).shape == ()
        tensors = [data.tensor(name, values) for name, values in weights.items()]
    for number, (tensor, values) in enumerate(zip(tensors, weights.values(), strict=True)):
        assert tensor.data_location == TensorProto.EXTERNAL
        about = external_data_helper.ExternalDataInfo(tensor)
        assert (about.location, about.offset % ALIGN) == (path.name, 0)
        assert about.offset == number * 2 * ALIGN
        external_data_helper.load_external_data_for_tensor(tensor, str(tmp_path))
        assert np.array_equal(numpy_helper.to_array(tensor), values)


def test_an_error_while_closing_is_told_unless_another_came_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = DataFile.close

    def full(self: DataFile) -> None:
        closed(self)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DataFile, "close", full)
    with pytest.raises(OSError, match="No space left"), DataFile(tmp_path / "a"):
        pass
    with pytest.raises(ZeroDivisionError, match="first"), DataFile(tmp_path / "b"):
        raise ZeroDivisionError("first")
