"""A model's matrices in 4 bits, fitted to text, and the same as a Q4_0 file for llama.cpp.

blocks = quantized(checkpoint, texts, 32, progress)    # by GGUF name; for onnx_graph too
write_q4_0(checkpoint, blocks, Path("model-q4_0.gguf"))
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType
from numpy.typing import NDArray

from edgespec.backends.vocabulary import open_tokenizer
from edgespec.errors import ModelFileError, UsageError
from edgespec.text.control import encode_rendered
from edgespec.types import Progress

from ..gguf.file import copy_metadata, open_gguf, replacing
from ..onnx.folder import write_vocabulary
from ..read.checkpoint import HEAD, TOKENS, Checkpoint, Tensor
from .blocks import EXACT, GGML_BLOCK, Blocks
from .gptq import calibrated
from .moments import matrices, moments

BITS = 4
FACTS = {
    "general.file_type": (int(gguf.LlamaFileType.MOSTLY_Q4_0), GGUFValueType.UINT32),
    "general.quantization_version": (gguf.GGML_QUANT_VERSION, GGUFValueType.UINT32),
}
MOST_TOKENS, LONGEST, LEAST_TOKENS = 8192, 512, 64  # of all text; of a piece of it; of all again


def quantized(
    checkpoint: Checkpoint, texts: Sequence[str], block: int, progress: Progress | None = None
) -> dict[str, Blocks]:
    """The layers' matrices by name, rounded so that their outputs on the texts change least.

    Those that are stored in such blocks already are left out: there is nothing to round.
    texts: conversations may be spelled as the model's chat template has them.
    Raises: UsageError for too little text, ModelFileError for architectures it does not know.
    """
    tell = progress or (lambda what, share: None)
    names = [name for name in matrices(checkpoint) if not is_exact(checkpoint[name], block)]
    found: dict[str, Blocks] = {}
    if not names:
        return found
    pieces = pieces_of(texts, checkpoint)
    for shared, seen in moments(checkpoint, names, pieces, tell):
        for name in shared:
            found[name] = calibrated(checkpoint[name].floats(), seen, BITS, block)
            tell("fitting 4-bit weights", len(found) / len(names))
    return found


def is_exact(tensor: Tensor, block: int) -> bool:
    """Whether the tensor lies in 4-bit blocks of that size."""
    return EXACT.get(tensor.kind) == BITS and block == GGML_BLOCK


def pieces_of(texts: Sequence[str], checkpoint: Checkpoint) -> list[list[int]]:
    """Token ids of the texts, at most LONGEST together; of too many pieces, some all over them.

    Raises: UsageError for less than LEAST_TOKENS.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = write_vocabulary(checkpoint.vocabulary, Path(folder))
        n_vocab = checkpoint.decoder.n_vocab
        with closing(open_tokenizer(Path(folder), name, n_vocab=n_vocab)) as tokenizer:
            ids = [encode_rendered(tokenizer, text) for text in texts]
    longest = min(LONGEST, checkpoint.decoder.n_context)
    pieces = [one[at : at + longest] for one in ids for at in range(0, len(one), longest)]
    n_tokens = sum(map(len, pieces))
    if n_tokens < LEAST_TOKENS:
        raise UsageError(
            f"the calibration text has {n_tokens} tokens: expected {LEAST_TOKENS} at least, "
            "better some thousands; give more text"
        )
    kept = min(len(pieces), max(1, len(pieces) * MOST_TOKENS // n_tokens))
    return [pieces[i * len(pieces) // kept] for i in range(kept)]


def write_q4_0(checkpoint: Checkpoint, blocks: Mapping[str, Blocks], out: Path) -> None:
    """Write the GGUF model again as `out`, with these matrices as Q4_0, bit for bit.

    An F16 or F32 head, or embedding that serves as one, becomes Q8_0; all else is copied, also
    matrices whose rows are no multiple of 32.
    Raises: ModelFileError if the checkpoint is no GGUF file, UsageError for blocks that Q4_0 has
    not, or without room.
    """
    if checkpoint.path.is_dir():
        raise ModelFileError(
            f"{checkpoint.path} is a folder: expected a GGUF file to write again; convert it first"
        )
    for name, found in blocks.items():
        if (found.bits, found.block) != (BITS, GGML_BLOCK):
            raise UsageError(
                f"{name} has {found.bits} bits in blocks of {found.block}: expected 4 in blocks "
                "of 32 for Q4_0; quantize it so"
            )
    kinds = {name: kind_of(checkpoint, name, blocks) for name in checkpoint.tensors}
    with replacing(out, checkpoint.path.stat().st_size) as partial:
        writer = gguf.GGUFWriter(str(partial), checkpoint.decoder.architecture)
        with closing(writer):
            copy_metadata(open_gguf(checkpoint.path), writer, FACTS)
            for name, kind in kinds.items():
                shape, dtype, n_bytes = layout(checkpoint.tensors[name], kind)
                writer.add_tensor_info(name, shape, dtype, n_bytes, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, kind in kinds.items():
                writer.write_tensor_data(stored(checkpoint.tensors[name], kind, blocks.get(name)))


def kind_of(checkpoint: Checkpoint, name: str, blocks: Mapping[str, Blocks]) -> Kind:
    """How the new file holds a tensor."""
    tensor = checkpoint.tensors[name]
    head = HEAD if HEAD in checkpoint.tensors else TOKENS
    if tensor.shape[-1] % GGML_BLOCK == 0:
        if name in blocks:
            return Kind.Q4_0
        if name == head and tensor.kind in ("F16", "F32"):
            return Kind.Q8_0
    return Kind[tensor.kind]


def layout(tensor: Tensor, kind: Kind) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and number of bytes of a tensor as `stored`."""
    if kind.name == tensor.kind:
        return tensor.data.shape, tensor.data.dtype, tensor.n_bytes
    shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
    return shape, np.dtype(np.uint8), math.prod(shape)


def stored(tensor: Tensor, kind: Kind, blocks: Blocks | None) -> NDArray[Any]:
    """What the new file holds of a tensor."""
    if kind.name == tensor.kind:
        return tensor.data
    if kind == Kind.Q4_0 and blocks is not None:
        return q4_0(blocks)
    return gguf.quants.quantize(tensor.floats(), kind)


def q4_0(blocks: Blocks) -> NDArray[np.uint8]:
    """[n_out, row_bytes]: each block's float16 scale, then its first half in the low halves."""
    n_out, n_blocks, block = blocks.codes.shape
    raw = np.empty((n_out, n_blocks, 2 + block // 2), np.uint8)
    raw[:, :, :2] = blocks.scales.astype(np.float16)[:, :, None].view(np.uint8)
    raw[:, :, 2:] = blocks.codes[:, :, : block // 2] | blocks.codes[:, :, block // 2 :] << 4
    return raw.reshape(n_out, -1)
