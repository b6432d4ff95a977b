"""An adapter in a GGUF file, as llama.cpp has it, read back to be merged."""

from __future__ import annotations

import math
import re
from pathlib import Path

import gguf
import numpy as np

from edgespec.errors import ModelFileError

from ..gguf.file import metadata, open_gguf
from ..lora import INTERLEAVED, TURNED, Adapted, Floats, Lora, check_shapes
from ..read.checkpoint import Checkpoint, Decoder

KINDS = ("F32", "F16", "BF16", "Q8_0")  # what adapters are stored as
PART = re.compile(r"(.+)\.weight\.lora_([ab])")


def open_gguf_lora(path: Path, base: Checkpoint) -> Lora:
    """The adapter in a GGUF file, each part fitting its matrix of `base`.

    Raises: ModelFileError for another file, or one of another model.
    """
    reader, decoder = open_gguf(path), base.decoder
    kind = metadata(reader, gguf.Keys.Adapter.TYPE, None)
    architecture = metadata(reader, gguf.Keys.General.ARCHITECTURE, None)
    if kind != "lora" or architecture != decoder.architecture:
        raise ModelFileError(
            f"{path} is {kind or 'no adapter'} of a {architecture!r:.40}: expected a LoRA of "
            f"{base.path.name}, a {decoder.architecture!r}; `edgespec adapt train` writes one"
        )
    alpha = metadata(reader, gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise ModelFileError(
            f"{path} says alpha = {alpha!r:.40}: expected a number; train it again"
        )
    n_layers = metadata(reader, f"{architecture}.block_count", decoder.n_layers)
    if n_layers != decoder.n_layers:
        raise ModelFileError(
            f"{path} is of a model of {n_layers!r:.40} layers: expected one of {base.path.name}, "
            f"which has {decoder.n_layers}; name the model it was trained on with -md"
        )
    parts: dict[str, dict[str, Floats]] = {}
    for tensor in reader.tensors:
        found = PART.fullmatch(tensor.name)
        if found is None or f"{found[1]}.weight" not in base.tensors:
            raise ModelFileError(
                f"{path} has {tensor.name}: expected lora_a and lora_b of matrices that "
                f"{base.path.name} has; name the model it was trained on with -md"
            )
        if tensor.tensor_type.name not in KINDS:
            raise ModelFileError(
                f"{path} has {tensor.name} as {tensor.tensor_type.name}: expected "
                f"{', '.join(KINDS)}; train it again"
            )
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        parts.setdefault(found[1], {})[found[2].upper()] = np.asarray(values, np.float32)
    if not parts:
        raise ModelFileError(f"{path} is empty: expected lora_a and lora_b of matrices")
    matrices = {}
    for name, both in parts.items():
        check_shapes(path, name, both, base)
        matrices[name] = adapted(name, both, alpha, decoder)
    return Lora(path, decoder, matrices)


def adapted(name: str, both: dict[str, Floats], alpha: float, decoder: Decoder) -> Adapted:
    """One matrix's part; llama.cpp multiplies by alpha / r, or by 1 where alpha is 0."""
    b = both["B"]
    if decoder.architecture in INTERLEAVED and name.endswith(TURNED):
        pairs = b.reshape(-1, decoder.head_dim // 2, 2, b.shape[1])
        b = pairs.swapaxes(1, 2).reshape(b.shape)
    return Adapted(both["A"], b, alpha / b.shape[1] if alpha else 1.0)
