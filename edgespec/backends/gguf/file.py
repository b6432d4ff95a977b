"""The header of a GGUF file: metadata and where each tensor lies, read without the weights.

Every length is checked against the file before it is followed, so a truncated or damaged file
ends in one ModelFileError. Long arrays stay in the file until asked for: a vocabulary of 128k
tokens takes about 50 ms. Knows nothing of language models; check.py does.
Source: the GGUF specification, versions 2 and 3 (ggml, docs/gguf.md).
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

MAX_NAME = 64  # ggml's GGML_MAX_NAME, with the closing zero
MAX_KEY = 65535
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32

STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}

# ggml type: (name, weights per block, bytes per block)
BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies; `shape` in ggml's order (the fastest dimension first)."""

    name: str
    shape: tuple[int, ...]
    kind: str
    offset: int  # from the start of the file
    n_bytes: int


@dataclass(frozen=True)
class Array:
    """A metadata array left in the file: element type, count and where it lies."""

    kind: int
    count: int
    offset: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself before the weights."""

    path: Path
    n_bytes: int
    metadata: Mapping[str, Any]  # str, int, float, bool or Array
    tensors: Mapping[str, Tensor]

    def numbers(self, key: str) -> NDArray[Any]:
        """The values of an array of numbers, or of one number as an array of one."""
        value = self.metadata[key]
        if not isinstance(value, Array):
            return np.array([value])
        with self.path.open("rb") as file:
            file.seek(value.offset)
            dtype = np.dtype(SCALARS[value.kind]).newbyteorder("<")
            return np.frombuffer(file.read(value.count * dtype.itemsize), dtype)

    def strings(self, key: str) -> list[bytes]:
        """The elements of an array of strings."""
        value = self.metadata[key]
        with self.path.open("rb") as file:
            file.seek(value.offset)
            raw = file.read(value.end - value.offset)
        unpack, at, found = struct.Struct("<Q").unpack_from, 0, list[bytes]()
        for _ in range(value.count):
            start = at + 8
            at = start + unpack(raw, at)[0]
            found.append(raw[start:at])
        return found


def refusal(path: Path, seen: str, expected: str, do: str = "") -> ModelFileError:
    """The one line for a file that cannot be used: what was seen, expected, and what to do.

    Names come from the file, so control characters are written out: a line stays a line.
    """
    do = do or "fetch or convert the file again"
    line = f"{path.name} {seen}: expected {expected}; {do}"
    return ModelFileError(re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "?", line))


def read_header(path: Path) -> Header:
    """The header of the GGUF file at `path`. Raises: ModelFileError."""
    try:
        if path.is_dir():
            raise refusal(path, "is a folder", "a GGUF file", "name the file inside it")
        if path.exists() and not path.is_file():
            raise refusal(path, "is not a file", "a GGUF file", "name a file")
        with path.open("rb") as file:
            if file.seek(0, 2) < 24:
                raise refusal(path, f"has {file.tell()} bytes", "a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).header()
    except FileNotFoundError:
        raise ModelFileError(
            f"{path} does not exist: expected a model file; see `edgespec models list`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read ({error}): expected a GGUF file") from error


class _Reader:
    """Walks the header from front to back; `at` never leaves the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.end = path, data, 0, len(data)

    def header(self) -> Header:
        if self.data[:4] != b"GGUF":
            raise self.bad(f"begins with {bytes(self.data[:4])!r}", "b'GGUF'", "is it a GGUF file?")
        self.at = 4
        version = self.scalar("I")
        if version not in (2, 3):
            big = version in (0x2000000, 0x3000000)
            seen = "is big-endian" if big else f"has GGUF version {version}"
            raise self.bad(seen, "little-endian version 2 or 3", "convert the model again")
        n_tensors, n_keys = self.scalar("Q"), self.scalar("Q")
        # A key takes at least 14 bytes, a tensor at least 33.
        if n_keys * 14 + n_tensors * 33 > self.end:
            raise self.bad(
                f"claims {n_tensors} tensors and {n_keys} keys", f"what fits its {self.end} bytes"
            )
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key, value = self.entry()
            if key in metadata:
                raise self.bad(f"has {key} twice", "each key once")
            metadata[key] = value
        return Header(self.path, self.end, metadata, self.tensors(n_tensors, metadata))

    def entry(self) -> tuple[str, Any]:
        raw = self.string("a key")
        try:
            key = raw.decode()
        except UnicodeDecodeError:
            raise self.bad(f"has a key {raw[:40]!r}", "UTF-8") from None
        if not 0 < len(raw) <= MAX_KEY or "\0" in key:
            raise self.bad(f"has a key {key[:40]!r}", "a short name")
        return key, self.value(key, self.scalar("I"))

    def value(self, key: str, kind: int) -> Any:
        if kind == STRING:
            return self.string(key).decode("utf-8", "replace")
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind != ARRAY:
            raise self.bad(f"has type {kind} for {key}", "a GGUF value type (0 to 12)")
        element, count = self.scalar("I"), self.scalar("Q")
        start = self.at
        if element == STRING:
            self.skip_strings(key, count)
        elif element in SCALARS:
            self.skip(key, count * struct.calcsize("<" + SCALARS[element]))
        else:
            raise self.bad(f"has an array of type {element} for {key}", "numbers or strings")
        return Array(element, count, start, self.at)

    def tensors(self, count: int, metadata: Mapping[str, Any]) -> dict[str, Tensor]:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        whole = isinstance(alignment, int) and 0 < alignment <= MAX_ALIGNMENT
        if not whole or alignment & (alignment - 1):
            raise self.bad(f"has alignment {alignment}", "a power of two")
        found: list[Tensor] = []
        for _ in range(count):
            found.append(self.tensor())
        names = {tensor.name for tensor in found}
        if len(names) < len(found):
            raise self.bad("names a tensor twice", "each name once")
        begin = self.at + -self.at % alignment
        return {t.name: self.placed(t, at, begin) for t, at in _with_offsets(found, alignment)}

    def tensor(self) -> Tensor:
        raw = self.string("a tensor name")
        name = raw.decode("utf-8", "replace")
        if not 0 < len(raw) < MAX_NAME or b"\0" in raw:
            raise self.bad(f"has a tensor named {name[:40]!r}", f"1 to {MAX_NAME - 1} bytes")
        n_dims = self.scalar("I")
        if not 1 <= n_dims <= 4:
            raise self.bad(f"has {n_dims} dimensions for {name}", "1 to 4")
        shape = tuple(self.scalar("Q") for _ in range(n_dims))
        kind, offset = self.scalar("I"), self.scalar("Q")
        if kind not in BLOCKS:
            raise self.bad(f"has type {kind} for {name}", "a known tensor type")
        label, per_block, block_bytes = BLOCKS[kind]
        size = prod(shape)
        if not 0 < size < 1 << 48 or shape[0] % per_block:
            expected = f"{label} rows of a multiple of {per_block}"
            raise self.bad(f"has shape {shape} for {name}", expected)
        return Tensor(name, shape, label, offset, size // per_block * block_bytes)

    def placed(self, tensor: Tensor, expected: int, begin: int) -> Tensor:
        """The tensor with its offset counted from the start of the file."""
        if tensor.offset != expected:
            raise self.bad(f"has {tensor.name} at offset {tensor.offset}", str(expected))
        offset = begin + tensor.offset
        if offset + tensor.n_bytes > self.end:
            missing = offset + tensor.n_bytes - self.end
            raise self.bad(
                f"ends {missing} bytes before the end of {tensor.name}", "the whole file"
            )
        return Tensor(tensor.name, tensor.shape, tensor.kind, offset, tensor.n_bytes)

    def scalar(self, form: str) -> Any:
        layout = struct.Struct("<" + form)
        start = self.skip("a number", layout.size)
        return layout.unpack_from(self.data, start)[0]

    def string(self, what: str) -> bytes:
        length = self.scalar("Q")
        start = self.skip(what, length)
        return self.data[start : self.at]

    def skip(self, what: str, n_bytes: int) -> int:
        """Where the next `n_bytes` begin, having stepped over them."""
        if n_bytes > self.end - self.at:
            raise self.bad(f"ends inside {what}", "the whole file")
        start = self.at
        self.at += n_bytes
        return start

    def skip_strings(self, what: str, count: int) -> None:
        # The only long loop here: a vocabulary and its merges are 400k strings.
        unpack, at, end = struct.Struct("<Q").unpack_from, self.at, self.end - 8
        for _ in range(count):
            if at > end:
                raise self.bad(f"ends inside {what}", "the whole file")
            at += 8 + unpack(self.data, at)[0]
        if at > self.end:
            raise self.bad(f"ends inside {what}", "the whole file")
        self.at = at

    def bad(self, seen: str, expected: str, do: str = "") -> ModelFileError:
        return refusal(self.path, seen, expected, do)


def _with_offsets(tensors: list[Tensor], alignment: int) -> Iterator[tuple[Tensor, int]]:
    """Each tensor with the offset it must have: llama.cpp accepts no gaps but the alignment's."""
    at = 0
    for tensor in tensors:
        yield tensor, at
        at += tensor.n_bytes + -tensor.n_bytes % alignment
