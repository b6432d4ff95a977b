"""Embedding models on llama.cpp: texts to one vector each, pooled as the model's file says.

A model is one if its file names a way to pool, or it reads texts in both directions; it writes
nothing. Texts are packed into batches, each whole within one, as pooling over parts is not defined.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.check import check_model, parts
from edgespec.backends.gguf.file import Header, read_header
from edgespec.backends.llamacpp import opening
from edgespec.backends.llamacpp.batch import Batch, Part
from edgespec.backends.llamacpp.interrupts import held_interrupts
from edgespec.backends.llamacpp.layout import MAP
from edgespec.backends.llamacpp.library import library
from edgespec.backends.llamacpp.preview import preview_of
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer, Weights
from edgespec.backends.tokens import ids_of
from edgespec.device import n_cores
from edgespec.errors import BackendError, Cancelled, ContextError, ModelFileError
from edgespec.types import FloatArray

NONE, MEAN, LAST, RANK = 0, 1, 3, 4  # LLAMA_POOLING_TYPE_*
LONGEST = 2048  # tokens of a text, unless more is asked for with -c
MOST_TEXTS = 32  # of a batch
CAUSAL, POOLING = "attention.causal", "pooling_type"


def fact(header: Header, name: str) -> Any:
    """A value of the architecture's own in the metadata, None if it is not there."""
    return header.metadata.get(f"{header.metadata.get('general.architecture')}.{name}")


def gives_vectors(path: Path) -> bool:
    """Whether the file is an embedding model. Raises: ModelFileError for what is no GGUF file."""
    header = read_header(path)
    return fact(header, CAUSAL) is False or fact(header, POOLING) not in (None, NONE)


def size_of(path: Path, options: ModelOptions) -> int:
    """Bytes of memory that the model takes: weights of all parts; keys and values, if it has any.

    Raises: ModelFileError.
    """
    header = read_header(path)
    weights = header.n_bytes + sum(read_header(part).n_bytes for part in parts(header)[1:])
    if fact(header, CAUSAL) is False:
        return weights
    seen = preview_of(path, replace(options, kv_type=ModelOptions().kv_type))
    seen.close()
    return weights + (0 if seen.cache is None else seen.cache.n_bytes(longest(header, options)))


def longest(header: Header, options: ModelOptions) -> int:
    """Tokens of a text at most."""
    return min(options.n_context or LONGEST, int(fact(header, "context_length")))


class Embedder:
    """One model; texts one call after another, `cancel` from any thread.

    n_embd: width of a vector. n_context: tokens of a text at most.
    """

    def __init__(self, path: Path, options: ModelOptions) -> None:
        """Raises: ModelFileError, UsageError, BackendError."""
        self._context: Any = None
        self._weights: Weights | None = None
        self._lib, self._lock = library(), threading.Lock()
        self._stop_flag = ctypes.create_string_buffer(2)
        self._header = checked(path)
        try:
            self._open(options)
        except BaseException:
            self.close()
            raise

    def _open(self, options: ModelOptions) -> None:
        api, header = self._lib.api, self._header
        with held_interrupts() as held:
            told = opening.Loading(options.progress, held)
            params, kept = opening.model_params(self._lib, options, header, MAP, told)
            try:
                self._weights = Weights(header.path, params)
            except ModelFileError:
                if told.stopped is not None:
                    raise told.stopped from None
                raise
            del kept
        self.tokenizer = LlamaCppTokenizer(self._weights)
        self.n_vocab, self.device = self.tokenizer.n_vocab, opening.placed(self._lib, options, MAP)
        self.n_embd = int(api.llama_model_n_embd_out(self._weights.handle))
        self.n_context = longest(header, options)
        self._lib.forget_errors()
        self._context = api.llama_init_from_model(self._weights.handle, self._params(options))
        if not self._context:
            why = self._lib.last_error() or "llama.cpp gave no reason"
            raise BackendError(f"no context for {header.path.name} ({why}): try a smaller -c")
        self._memory = api.llama_get_memory(self._context)
        self._batch = Batch(api, self.n_context, 1)

    def _params(self, options: ModelOptions) -> Any:
        """llama_context_params: all of a batch in one piece, a sequence for each text."""
        params = self._lib.api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = self.n_context
        params.n_seq_max = MOST_TEXTS
        params.n_threads = params.n_threads_batch = options.n_threads or n_cores()
        params.embeddings = params.kv_unified = params.no_perf = True
        if fact(self._header, POOLING) in (None, NONE):
            params.pooling_type = MEAN
        params.abort_callback = self._lib.abort_callback
        params.abort_callback_data = ctypes.addressof(self._stop_flag)
        return params

    def embed(self, texts: Sequence[Sequence[int]]) -> FloatArray:
        """[n, n_embd] a vector of length 1 for each text's ids.

        Raises: ContextError for an empty text or one that is too long; Cancelled; BackendError.
        """
        self.check(texts)
        out = np.empty((len(texts), self.n_embd), np.float32)
        with self._lock:
            if not self._context:
                raise BackendError("the model is closed: expected an open one; open it again")
            self._stop_flag[0] = b"\0"
            for start, end in batches([len(ids) for ids in texts], self.n_context):
                self._read(texts[start:end], out[start:end])
        return of_length_1(out)

    def check(self, texts: Sequence[Sequence[int]]) -> None:
        """Raises: ContextError for an empty text or one that is too long."""
        for ids in texts:
            if not 0 < len(ids) <= self.n_context:
                raise ContextError(
                    f"a text has {len(ids)} tokens: expected 1 to {self.n_context}; shorten it"
                )

    def _read(self, texts: Sequence[Sequence[int]], out: FloatArray) -> None:
        """Fill `out` [n, n_embd] with the vectors of one batch."""
        api = self._lib.api
        read = [Part(i, 0, ids_of(ids, self.n_vocab), len(ids)) for i, ids in enumerate(texts)]
        batch = self._batch.several(read)
        self._lib.forget_errors()
        if self._memory:
            api.llama_memory_clear(self._memory, True)
            status = api.llama_decode(self._context, batch)
        else:
            status = api.llama_encode(self._context, batch)
        if self._stop_flag[0] != b"\0":
            raise Cancelled("stopped: ask again")
        if status:
            why = self._lib.last_error()
            raise BackendError(f"llama.cpp returned {status} ({why}): expected 0; report it")
        for i in range(len(texts)):
            found = api.llama_get_embeddings_seq(self._context, i)
            if not found:
                raise BackendError(f"{self._header.path.name} gave no vector: expected one a text")
            out[i] = np.ctypeslib.as_array(found, (self.n_embd,))

    def cancel(self) -> None:
        """Make the call in flight raise Cancelled."""
        self._stop_flag[0] = b"\1"

    def close(self) -> None:
        """Free context and weights; ends a call in flight. Closing twice is no error."""
        self.cancel()
        with self._lock:
            context, self._context = self._context, None
            if context:
                self._lib.api.llama_free(context)
            if self._weights is not None:
                self._weights.close()


def checked(path: Path) -> Header:
    """The header of a sound embedding model. Raises: ModelFileError."""
    header = read_header(path)
    if fact(header, POOLING) == RANK:
        raise ModelFileError(f"{path.name} ranks texts: expected a model that gives vectors")
    name = f"{header.metadata.get('general.architecture')}.{CAUSAL}"
    check_model(replace(header, metadata={**header.metadata, name: True}))
    return header


def of_length_1(vectors: FloatArray) -> FloatArray:
    """[n, width] the vectors, scaled; one that is zero stays it."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def batches(lengths: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Where batches of texts begin and end, none with more tokens than `most`."""
    start, n_tokens = 0, 0
    for end, length in enumerate(lengths):
        if end > start and (n_tokens + length > most or end - start == MOST_TEXTS):
            yield start, end
            start, n_tokens = end, 0
        n_tokens += length
    if lengths:
        yield start, len(lengths)
