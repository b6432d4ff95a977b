"""A safetensors file: its tensors by name, mapped and read when asked for.

Read here and not with the library of that name because that one has no bfloat16 without torch, and
a file cut short should be called so.
Source: the safetensors format: 8 bytes length, a JSON header of that length, the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.errors import ModelFileError

from .checkpoint import Tensor

MAX_HEADER_BYTES = 100 << 20  # the format's own limit
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


class SafeTensors(Mapping[str, Tensor]):
    """The tensors of one file. Matrices keep their kind, of BF16 too; vectors come as F32."""

    def __init__(self, path: Path) -> None:
        """Raises: ModelFileError unless the file is complete and holds float tensors."""
        self._path = path
        try:
            n_bytes = path.stat().st_size
            with open(path, "rb") as file:
                n_header = int.from_bytes(file.read(8), "little")
                if n_bytes < 8 or not 2 <= n_header <= min(MAX_HEADER_BYTES, n_bytes - 8):
                    raise self._refusal(f"has {n_bytes} bytes and no whole header")
                header = json.loads(file.read(n_header))
        except OSError as error:
            raise self._refusal(f"cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise self._refusal(f"has a damaged header ({error})") from error
        if not isinstance(header, dict):
            raise self._refusal("has a damaged header")
        header.pop("__metadata__", None)
        self._start = 8 + n_header
        self._found = {name: self._entry(name, entry) for name, entry in header.items()}
        needed = self._start + max((end for *_, end in self._found.values()), default=0)
        if n_bytes < needed:
            raise self._refusal(f"has {n_bytes} bytes of {needed}")

    def __getitem__(self, name: str) -> Tensor:
        kind, shape, begin, end = self._found[name]
        if begin == end:  # cannot be mapped
            return Tensor("F32", shape, np.empty(shape, np.float32))
        try:
            raw = np.memmap(self._path, np.uint8, "r", self._start + begin, (end - begin,))
        except OSError as error:
            raise self._refusal(f"cannot be read ({error.strerror or error})") from error
        if kind != "BF16":
            values = raw.view(FLOATS[kind]).reshape(shape)
            return Tensor(kind, shape, values) if len(shape) > 1 else exact(values)
        if len(shape) > 1:
            return Tensor("BF16", shape, raw.reshape(*shape[:-1], 2 * shape[-1]))
        widened = raw.view("<u2").astype(np.uint32) << 16
        return exact(widened.view(np.float32))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, without reading it."""
        return self._found[name][1]

    def _entry(self, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
        """Kind, shape, first and last byte of a tensor. Raises: ModelFileError."""
        try:
            kind, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise self._refusal(f"has a damaged entry {name!r}") from error
        if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
            raise self._refusal(f"has a damaged entry {name!r}")
        if kind not in WIDTHS:
            raise ModelFileError(
                f"{self._path} has {name} in {kind}: expected {', '.join(WIDTHS)}; "
                "take the checkpoint that was not quantized"
            )
        if end - begin != prod(shape) * WIDTHS[kind]:
            raise self._refusal(f"has {end - begin} bytes for {name} {list(shape)} in {kind}")
        return kind, shape, begin, end

    def _refusal(self, seen: str) -> ModelFileError:
        return ModelFileError(
            f"{self._path} {seen}: expected a complete safetensors file; fetch it again"
        )


def exact(values: Any) -> Tensor:
    """A vector as F32, which holds every value of the smaller kinds."""
    return Tensor("F32", values.shape, values.astype(np.float32))
