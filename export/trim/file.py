"""Writes a trimmed GGUF and its vocabulary file: rows taken as they are stored, the rest copied.

The trimmed file has K rows wherever the whole one has V, and no tokenizer; what it says about the
trim is under edgespec.trim.*. The vocabulary file has the tokenizer and the whole token_embd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from edgespec.backends.llamacpp.trimmed import (
    N_VOCAB,
    SOURCE,
    TOKEN_IDS,
    VOCABULARY,
    VOCABULARY_BYTES,
)
from edgespec.errors import ModelFileError
from edgespec.files import sha256_of

from ..gguf.file import copy_metadata, metadata, open_gguf
from ..read.checkpoint import HEAD, HEAD_BIAS, TOKENS

# Where nothing but the embedding and the head depends on the vocabulary, and vectors are taken
# in place of tokens.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "smollm3")
TRIMMED = (TOKENS, HEAD, HEAD_BIAS)
Ids = NDArray[np.int32]


@dataclass(frozen=True)
class TrimSource:
    """A model that can be trimmed. n_params: of all its tensors."""

    path: Path
    reader: gguf.GGUFReader
    architecture: str
    n_vocab: int
    n_embd: int
    n_params: int
    sha256: str

    @property
    def n_vocab_tensors(self) -> int:
        """Weights that each row of the vocabulary has, in all tensors that are cut."""
        return sum(int(t.n_elements) for t in self.reader.tensors if t.name in TRIMMED)

    def n_params_of(self, n_kept: int) -> int:
        """Parameters of the model trimmed to `n_kept` rows."""
        each = self.n_vocab_tensors // self.n_vocab
        return self.n_params - (self.n_vocab - n_kept) * each

    def n_bytes_of(self, n_kept: int) -> int:
        """Bytes of its tensors, trimmed to `n_kept` rows."""
        rows = sum(int(t.n_bytes) for t in self.reader.tensors if t.name in TRIMMED)
        whole = sum(int(t.n_bytes) for t in self.reader.tensors)
        return whole - rows + rows // self.n_vocab * n_kept


def open_source(path: Path) -> TrimSource:
    """The model in `path`. Raises: ModelFileError if it is not one that can be trimmed."""
    reader = open_gguf(path)

    def refusal(seen: str, expected: str) -> ModelFileError:
        return ModelFileError(f"{path} {seen}: expected {expected}")

    if (kept := reader.get_field(TOKEN_IDS)) is not None:
        n_vocab = metadata(reader, N_VOCAB, "?")
        seen = f"is trimmed already ({len(kept.data)} of {n_vocab} rows)"
        raise refusal(seen, "a whole model; trim the one it was made from")
    architecture = str(metadata(reader, "general.architecture", ""))
    if architecture not in ARCHITECTURES:
        seen = f"has architecture {architecture!r}, which cannot be trimmed"
        raise refusal(seen, f"one of {', '.join(ARCHITECTURES)}")
    if metadata(reader, "split.count", 0) > 1:
        raise refusal("is one of several parts", "one file; join the parts first")
    tokens, shapes = reader.get_field("tokenizer.ggml.tokens"), {}
    for tensor in reader.tensors:
        shapes[tensor.name] = tuple(int(n) for n in reversed(tensor.shape))
    if TOKENS not in shapes or tokens is None:
        raise refusal("has no vocabulary or no weights", "a language model with both")
    n_vocab, n_embd = shapes[TOKENS]
    if len(tokens.data) != n_vocab:
        raise refusal(f"has {len(tokens.data)} tokens and {n_vocab} rows", "as many of each")
    for name, shape in shapes.items():
        if name not in TRIMMED and not name.startswith("blk.") and n_vocab in shape:
            raise refusal(f"has {name} for each token", "embedding and head to be all of these")
    n_params = sum(int(tensor.n_elements) for tensor in reader.tensors)
    return TrimSource(path, reader, architecture, n_vocab, n_embd, n_params, sha256_of(path))


def write_vocabulary(path: Path, source: TrimSource) -> None:
    """The file with the tokenizer and the embedding of all tokens."""
    changed = {
        "general.name": (f"vocabulary of {name_of(source)}", GGUFValueType.STRING),
        SOURCE: (source.sha256, GGUFValueType.STRING),
    }
    with closing(gguf.GGUFWriter(str(path), source.architecture)) as writer:
        copy_metadata(source.reader, writer, changed)
        write_tensors(writer, [t for t in source.reader.tensors if t.name == TOKENS], None)


def write_model(
    path: Path, source: TrimSource, ids: Ids, vocabulary: str, vocabulary_bytes: int
) -> None:
    """The model with the rows `ids` alone. vocabulary: name of the file beside it."""
    about = {
        N_VOCAB: (source.n_vocab, GGUFValueType.UINT32),
        VOCABULARY: (vocabulary, GGUFValueType.STRING),
        VOCABULARY_BYTES: (vocabulary_bytes, GGUFValueType.UINT64),
        SOURCE: (source.sha256, GGUFValueType.STRING),
        "general.name": (f"{name_of(source)} trimmed to {len(ids)}", GGUFValueType.STRING),
        f"{source.architecture}.vocab_size": (len(ids), GGUFValueType.UINT32),
        "tokenizer.ggml.model": ("none", GGUFValueType.STRING),
    }
    for key in ("general.file_type", "general.quantization_version"):  # both are still right
        if (value := metadata(source.reader, key, None)) is not None:
            about[key] = (value, GGUFValueType.UINT32)
    with closing(gguf.GGUFWriter(str(path), source.architecture)) as writer:
        # First, so that a look at the beginning of the file finds it.
        writer.add_key_value(
            TOKEN_IDS, ids.tolist(), GGUFValueType.ARRAY, sub_type=GGUFValueType.INT32
        )
        copy_metadata(source.reader, writer, about, without=("tokenizer.",))
        write_tensors(writer, source.reader.tensors, ids)


def write_tensors(
    writer: gguf.GGUFWriter, tensors: Sequence[gguf.ReaderTensor], ids: Ids | None
) -> None:
    """Header, metadata and tensors; of those in TRIMMED the rows `ids` alone, unless None."""
    for tensor in tensors:
        shape = tensor.data.shape
        if ids is not None and tensor.name in TRIMMED:
            shape = (len(ids), *shape[1:])
        n_bytes = math.prod(shape) * tensor.data.itemsize
        writer.add_tensor_info(
            tensor.name, shape, tensor.data.dtype, n_bytes, raw_dtype=tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        cut = ids is not None and tensor.name in TRIMMED
        writer.write_tensor_data(tensor.data[ids] if cut else tensor.data)


def name_of(source: TrimSource) -> str:
    """What the model calls itself."""
    return str(metadata(source.reader, "general.name", source.path.stem))
