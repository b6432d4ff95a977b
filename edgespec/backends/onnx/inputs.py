"""The inputs that an ONNX graph declares, read from its file without ONNX Runtime or its weights.

A walk over the protocol buffer's fields; what is not on the way to an input is stepped over.
Source: onnx.proto of the ONNX specification, for the field numbers.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from edgespec.errors import ModelFileError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
# Field numbers, each within the one before it.
GRAPH, INPUT, NAME, TYPE, TENSOR, ELEMENT, SHAPE, DIM, DIM_VALUE = 7, 11, 1, 2, 1, 1, 2, 1, 1
ELEMENT_BYTES = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}
Extent = tuple[int, int]


def inputs_of(path: Path) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Bytes of an element and the shape of each input, 0 for a size that is open.

    Raises: ModelFileError for a file that is no ONNX graph.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = {}
            for graph in _spans(data, (0, len(data)), GRAPH):
                for value in _spans(data, graph, INPUT):
                    name, element_bytes, shape = _value(data, value)
                    found[name] = element_bytes, shape
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelFileError(
            f"{path} is no complete ONNX graph ({error}): expected one; export it again"
        ) from error
    return found


def _value(data: mmap.mmap, span: Extent) -> tuple[str, int, tuple[int, ...]]:
    """Name, bytes of an element and shape of one input."""
    (name,) = _spans(data, span, NAME)
    element, shape = 1, list[int]()
    for kind in _spans(data, span, TYPE):
        for tensor in _spans(data, kind, TENSOR):
            element = next(_numbers(data, tensor, ELEMENT), 1)
            for sizes in _spans(data, tensor, SHAPE):
                for dim in _spans(data, sizes, DIM):
                    shape.append(next(_numbers(data, dim, DIM_VALUE), 0))
    return data[slice(*name)].decode(), ELEMENT_BYTES[element], tuple(shape)


def _spans(data: mmap.mmap, span: Extent, number: int) -> Iterator[Extent]:
    """Where the messages or texts with this field number lie."""
    for found, wire, start, end in _fields(data, span):
        if found == number and wire == BYTES:
            yield start, end


def _numbers(data: mmap.mmap, span: Extent, number: int) -> Iterator[int]:
    for found, wire, start, _ in _fields(data, span):
        if found == number and wire == VARINT:
            yield _varint(data, start)[0]


def _fields(data: mmap.mmap, span: Extent) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, start and end of each field's value. Raises: ValueError, IndexError."""
    at, end = span
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire == VARINT:
            size = _varint(data, at)[1] - at
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if size > end - at:
            raise ValueError(f"ends {size - (end - at)} bytes early")
        yield tag >> 3, wire, at, at + size
        at += size


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends. Raises: ValueError, IndexError."""
    number = 0
    for i in range(10):
        byte = data[at + i]
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, at + i + 1
    raise ValueError("a number of more than 10 bytes")
