"""A model with an adapter inside: W + scale B A in place of W, each such matrix rounded again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

from ..gguf.file import copy_metadata, open_gguf, replacing
from ..lora import Adapted, Lora, turned
from ..read.checkpoint import Checkpoint, Tensor

KINDS = ("q8_0", "q4_1", "f16")
MERGED = 4  # times the size of the base, at most: Q4 to F16
BLOCK = 32  # weights with one scale


def merge(base: Checkpoint, lora: Lora, out: Path, kind: str = "q8_0") -> Path:
    """Write `out`, the GGUF model `base` with `lora` inside; the path.

    kind: of KINDS, what the changed matrices are stored as; F16 those whose rows are no multiple
    of 32. Tensors without an adapter are copied.
    Raises: ModelFileError if the base is no GGUF file, UsageError without room.
    """
    if base.path.is_dir():
        raise ModelFileError(
            f"{base.path} is a folder: expected a GGUF file to merge an adapter into; convert it"
        )
    changed = {f"{name}.weight": one for name, one in lora.matrices.items()}
    stored_as = Kind[kind.upper()]
    kinds = {
        name: kind_of(tensor, stored_as if name in changed else None)
        for name, tensor in base.tensors.items()
    }
    with replacing(out, MERGED * base.path.stat().st_size) as partial:
        writer = gguf.GGUFWriter(str(partial), base.decoder.architecture)
        with closing(writer):
            n_layers = f"{base.decoder.architecture}.block_count"
            facts = {
                "general.file_type": int(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"]),
                "general.quantization_version": gguf.GGML_QUANT_VERSION,
                n_layers: base.decoder.n_layers,
            }
            numbers = {name: (value, GGUFValueType.UINT32) for name, value in facts.items()}
            copy_metadata(open_gguf(base.path), writer, numbers)
            for name, kind in kinds.items():
                add_info(writer, name, base.tensors[name], kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, kind in kinds.items():
                one = changed.get(name)
                tensor = base.tensors[name]
                writer.write_tensor_data(
                    tensor.data if one is None else stored(with_inside(base, name, one), kind)
                )
    return out


def kind_of(tensor: Tensor, changed: Kind | None) -> Kind:
    """How the new file holds a tensor. changed: what it is to be stored as, if it is changed."""
    if changed is None:
        return Kind[tensor.kind]
    return changed if tensor.shape[-1] % BLOCK == 0 else Kind.F16


def add_info(writer: gguf.GGUFWriter, name: str, tensor: Tensor, kind: Kind) -> None:
    """Announce a tensor as `stored` will give it."""
    if kind.name == tensor.kind:
        data = tensor.data
        writer.add_tensor_info(name, data.shape, data.dtype, tensor.n_bytes, raw_dtype=kind)
    elif kind == Kind.F16:
        n_bytes = 2 * int(np.prod(tensor.shape))
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float16), n_bytes, raw_dtype=kind)
    else:
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
        writer.add_tensor_info(name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind)


def with_inside(base: Checkpoint, name: str, one: Adapted) -> NDArray[np.float32]:
    """The matrix [n_out, n_in] with its adapter added, in the base's order of rows."""
    b = one.b * np.float32(one.scale)
    if base.decoder.rope_interleaved:
        b = turned(name.removesuffix(".weight"), b, base.decoder)
    return np.asarray(base.tensors[name].floats() + b @ one.a, np.float32)


def stored(values: NDArray[np.float32], kind: Kind) -> NDArray[Any]:
    """What the new file holds of a changed matrix."""
    if kind == Kind.F16:
        return values.astype(np.float16)
    return np.asarray(gguf.quants.quantize(values, kind))
