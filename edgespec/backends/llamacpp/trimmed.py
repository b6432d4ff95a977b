"""GGUF drafters whose head was cut to K rows: vectors in, logits of K tokens out.

llama.cpp knows only the K rows, so input comes as vectors, taken from a second file that holds the
whole vocabulary: its tokenizer and all rows of token_embd. `edgespec export trim` writes both.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.check import check_vocabulary
from edgespec.backends.gguf.file import BLOCKS, Array, Header, read_header, refusal
from edgespec.backends.gguf.mark import marked
from edgespec.backends.gguf.trial import can_try
from edgespec.backends.llamacpp.layout import MAP
from edgespec.backends.llamacpp.library import library
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.opening import is_bundled
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.backends.llamacpp.trial import run_few
from edgespec.backends.tokens import tree_of
from edgespec.errors import BackendError, ShapeError
from edgespec.types import Capabilities, FloatArray, ModelInfo

# Metadata of the trimmed file; the vocabulary file has SOURCE too, the same in both.
TOKEN_IDS = "edgespec.trim.token_ids"  # [K] int32, ascending
N_VOCAB = "edgespec.trim.vocab_size"  # V
VOCABULARY = "edgespec.trim.vocabulary"  # name of the file beside it
VOCABULARY_BYTES = "edgespec.trim.vocabulary_bytes"
SOURCE = "edgespec.trim.source"  # SHA-256 of the model that was trimmed
LOOK_BYTES = 1 << 20  # a header without tokenizer is smaller
AGAIN = "copy both, or export again"
EMBEDDING = "token_embd.weight"
NOISE = 1e-3  # of the range of the logits: a GPU may take ids and vectors by different kernels


@dataclass(frozen=True)
class Trim:
    """What a trimmed file says about itself."""

    token_ids: NDArray[np.int32]  # [K]
    n_vocab: int
    vocabulary: str
    vocabulary_bytes: int
    source: str


def open_gguf(path: Path, options: ModelOptions) -> LlamaCppModel | LlamaCppTrimmedModel:
    """The model in a GGUF file, trimmed or whole. Raises: as LlamaCppModel."""
    if can_try() or not path.is_file() or is_bundled(path):
        return _opened(path, options)
    way = MAP if options.loading == "auto" else options.loading
    with marked([path], way, library().version):
        model = _opened(path, options)
        try:
            run_few(model)
        except BaseException:
            model.close()
            raise
    return model


def _opened(path: Path, options: ModelOptions) -> LlamaCppModel | LlamaCppTrimmedModel:
    if is_trimmed(path):
        return LlamaCppTrimmedModel(path, options)
    return LlamaCppModel(path, options)


def is_trimmed(path: Path) -> bool:
    """Whether the file is a trimmed model; False for one that cannot be read.

    A look at its beginning: reading the header of a whole model walks its vocabulary, 50 ms.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(TOKEN_IDS.encode(), 0, LOOK_BYTES) < 0:
                return False
    except (OSError, ValueError):
        return False
    return TOKEN_IDS in read_header(path).metadata


def trim_of(header: Header) -> Trim:
    """What the header of a trimmed file says. Raises: ModelFileError if that is incomplete."""
    metadata = header.metadata
    values = [metadata.get(key) for key in (N_VOCAB, VOCABULARY, VOCABULARY_BYTES, SOURCE)]
    kept = metadata.get(TOKEN_IDS)
    sound = isinstance(kept, Array) and [type(value) for value in values] == [int, str, int, str]
    n_vocab, vocabulary, n_bytes, source = values
    # A bare name: a file must not be able to have another one read, wherever that lies.
    if not sound or Path(str(vocabulary)).name != vocabulary:
        raise refusal(header.path, "has damaged keys of a trim", "all five", "export it again")
    assert isinstance(n_vocab, int) and isinstance(n_bytes, int)
    ids = header.numbers(TOKEN_IDS).astype(np.int32)
    embedding = header.tensors.get(EMBEDDING)
    rows = embedding.shape[-1] if embedding else 0
    if len(ids) != rows or (np.diff(ids) <= 0).any() or ids[0] < 0 or ids[-1] >= n_vocab:
        raise refusal(
            header.path, f"says it has {len(ids)} tokens of {n_vocab}",
            f"the ids of its {rows} rows", "export it again",
        )  # fmt: skip
    return Trim(ids, n_vocab, str(vocabulary), n_bytes, str(source))


class LlamaCppTrimmedModel:
    """Implements protocols.LanguageModel with `token_ids`; a drafter only, chains only."""

    def __init__(
        self,
        path: Path,
        options: ModelOptions,
        *,
        loading: str | None = None,
        vocabulary: Path | None = None,
    ) -> None:
        """Open the model and its vocabulary file, the one it names unless `vocabulary` is given.

        Raises: as LlamaCppModel; ModelFileError for a vocabulary of another model.
        """
        header = read_header(path)
        trim = trim_of(header)
        self._table = Table(vocabulary or path.with_name(trim.vocabulary), trim, header)
        # The K rows are no vocabulary of their own.
        own = replace(options, counted_by=0) if options.counted_by == trim.n_vocab else options
        self._model = LlamaCppModel(path, own, loading=loading)
        self.device = self._model.device
        try:
            self.tokenizer = LlamaCppTokenizer.open(self._table.path)
            self.token_ids, self.n_vocab = trim.token_ids, trim.n_vocab
            self.n_context, self.kv_bytes = self._model.n_context, self._model.kv_bytes
            self.n_embd, self.n_params = self._model.n_embd, self._model.n_params
            self.capabilities = Capabilities(hidden_width=self._model.capabilities.hidden_width)
            self._scale = self._input_scale()
        except BaseException:
            self.close()
            raise

    def _input_scale(self) -> np.float32:
        """What vectors are multiplied by before they enter, found by trying.

        Gemma's tokens are scaled by sqrt(n_embd); of its vectors llama.cpp scales those of some
        generations and not of others, and that has changed between its versions.
        Raises: ModelFileError if vectors do not lead where the tokens themselves lead.
        """
        model, n = self._model, min(len(self.token_ids), 4, self.n_context)
        vectors = self._table.rows(self.token_ids[:n].tolist())
        expected = model.forward(range(n)).copy()
        model.truncate(0)
        differences = {}
        for scale in (np.float32(1), np.float32(sqrt(vectors.shape[1]))):
            seen = model.forward_embeddings(vectors * scale)
            differences[scale] = float(np.abs(seen - expected).max())
            model.truncate(0)
            if differences[scale] == 0:
                break
        best = min(differences, key=lambda scale: differences[scale])
        if differences[best] > NOISE * float(np.ptp(expected)):
            raise refusal(
                self._table.path, "has other vectors than the trimmed model", "the file it was "
                "exported with", "export it again",
            )  # fmt: skip
        return best

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._model.length

    @property
    def hidden(self) -> FloatArray:
        """See LlamaCppModel."""
        return self._model.hidden

    def head_rows(self, tokens: Sequence[int]) -> FloatArray:
        """See adapt.grown.WithTable; the head's where it is the embedding."""
        return self._table.rows(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        self._model.extend_embeddings(self._vectors(tokens))

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """Logits [n, K]; see protocols.LanguageModel. Raises: ShapeError for a forking tree."""
        if parents is not None and tree_of(parents, len(tokens)) is not None:
            raise ShapeError(
                "a trimmed model was given a tree: expected a chain; it can only be a drafter"
            )
        return self._model.forward_embeddings(self._vectors(tokens), n_rows=n_rows)

    def keep(self, rows: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        self._model.keep(rows)

    def truncate(self, n: int) -> None:
        """See protocols.LanguageModel."""
        self._model.truncate(n)

    def cancel(self) -> None:
        """See LlamaCppModel."""
        self._model.cancel()

    def use_threads(self, n: int) -> None:
        """See LlamaCppModel."""
        self._model.use_threads(n)

    def info(self) -> ModelInfo:
        """What the model is; n_bytes counts the vocabulary file too."""
        info = self._model.info()
        return replace(info, n_bytes=info.n_bytes + self._table.path.stat().st_size)

    def close(self) -> None:
        """Free everything; closing twice is not an error."""
        self._model.close()
        self._table.close()
        if hasattr(self, "tokenizer"):
            self.tokenizer.close()

    def _vectors(self, tokens: Sequence[int]) -> FloatArray:
        """Input vectors [n, n_embd]. Raises: ShapeError for an id outside the vocabulary."""
        vectors = self._table.rows(tokens)
        if self._scale != 1:
            vectors *= self._scale
        return vectors


class Table:
    """All rows of token_embd, mapped; made floats row by row by ggml itself, as it does inside."""

    def __init__(self, path: Path, trim: Trim, model: Header) -> None:
        """Raises: ModelFileError unless `path` is the vocabulary file of this trim of a model."""
        self.path = path
        if not path.is_file():
            raise refusal(
                model.path,
                f"needs {path.name}",
                "that file beside it",
                "copy both, or export again",
            )
        header = check_vocabulary(path)
        seen = (header.metadata.get(SOURCE), header.n_bytes)
        if seen != (trim.source, trim.vocabulary_bytes) or EMBEDDING not in header.tensors:
            what = f"is not the vocabulary of {model.path.name}"
            raise refusal(path, what, "the file it was exported with", AGAIN)
        tensor = header.tensors[EMBEDDING]
        self._n_embd, n_rows = tensor.shape
        self._n_rows = n_rows
        if n_rows != trim.n_vocab or self._n_embd != model.tensors[EMBEDDING].shape[0]:
            raise refusal(
                path, f"has {EMBEDDING} of shape {tensor.shape}", f"{trim.n_vocab} rows",
                "export it again",
            )  # fmt: skip
        shape = (n_rows, tensor.n_bytes // n_rows)
        self._bytes: Any = np.memmap(path, np.uint8, "r", tensor.offset, shape)
        number = next(n for n, (kind, *_) in BLOCKS.items() if kind == tensor.kind)
        self._to_float = library().to_float(tensor.kind, number)
        self._row_bytes, self._at = shape[1], self._bytes.ctypes.data

    def rows(self, tokens: Sequence[int]) -> FloatArray:
        """[n, n_embd] float32, a copy. Raises: ShapeError for an id outside the vocabulary."""
        if self._bytes is None:
            raise BackendError("the model is closed: expected an open one; open it again")
        out = np.empty((len(tokens), self._n_embd), np.float32)
        at, step = out.ctypes.data, out.strides[0]
        # Plain numbers: for one token a step this is quicker than any call of numpy.
        for token in map(int, tokens):
            if not 0 <= token < self._n_rows:
                raise ShapeError(f"token {token} is unknown: expected 0 to {self._n_rows - 1}")
            self._to_float(self._at + token * self._row_bytes, at, self._n_embd)
            at += step
        return out

    def close(self) -> None:
        """Let go of the file, which some systems do not replace while it is mapped."""
        self._bytes = None
