"""Splits a GGUF file into parts, as large models are published."""

from __future__ import annotations

import struct
from pathlib import Path

from gguf_maker import Gguf, Tensor

UINT16, INT32 = 2, 5


def split(source: Path, n_parts: int, folder: Path, stem: str) -> list[Path]:
    """Paths of the parts; the first has the metadata, each its share of the tensors."""
    whole = Gguf.read(source)
    names = sorted(whole.tensors, key=lambda name: whole.tensors[name].offset)
    ends = [whole.tensors[name].offset for name in names[1:]] + [len(whole.data)]
    paths = []
    for i in range(n_parts):
        part = Gguf(keys=dict(whole.keys) if i == 0 else {})
        part.keys["split.no"] = struct.pack("<IH", UINT16, i)
        part.keys["split.count"] = struct.pack("<IH", UINT16, n_parts)
        part.keys["split.tensors.count"] = struct.pack("<Ii", INT32, len(names))
        for name, end in list(zip(names, ends, strict=True))[i::n_parts]:
            tensor = whole.tensors[name]
            part.tensors[name] = Tensor(tensor.shape, tensor.kind, len(part.data))
            data = whole.data[tensor.offset : end]
            part.data += data + b"\0" * (-len(data) % 32)
        paths.append(folder / f"{stem}-{i + 1:05d}-of-{n_parts:05d}.gguf")
        paths[-1].write_bytes(part.bytes())
    return paths
