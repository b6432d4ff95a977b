"""VocabTrim: a drafter whose head has only the rows that its target's text needs.

Proposals change, what is emitted does not: the target verifies as before, and a token without a
row has probability 0 in the draft. Input is not touched: every token keeps its vector, in the
vocabulary file. Source: Goel et al. 2025, arXiv 2506.22694; which rows is rows.py.

    from edgespec.export.trim.head import trim
    trim(Path("drafter.gguf"), Path("small.gguf"), ids)   # and small.vocab.gguf
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.trimmed import LlamaCppTrimmedModel
from edgespec.errors import BackendError, UsageError
from edgespec.types import FloatArray

from ..gguf.file import replacing
from .file import Ids, TrimSource, open_source, write_model, write_vocabulary

HEADER_BYTES = 1 << 20  # room for the trimmed file's metadata
PROBE = "Once upon a time there were 3 small foxes; the other 12 said: I'll find it tomorrow."
N_PROBE = 24  # tokens that trimmed and whole model are compared on, in one batch and singly


def vocabulary_path(target: Path) -> Path:
    """Where the vocabulary file of the trimmed model `target` lies."""
    return target.with_name(f"{target.stem}.vocab.gguf")


def trim(source: Path | TrimSource, target: Path, token_ids: Sequence[int] | Ids) -> Path:
    """Write `target`, `source` with the rows of `token_ids` alone, and its vocabulary file.

    Both appear complete and checked, the vocabulary first, or not at all. Returns its path.
    Raises: ModelFileError for a source that cannot be trimmed, UsageError for ids or a target that
    do not fit, BackendError if the trimmed model would compute anything else than the whole one.
    """
    source = source if isinstance(source, TrimSource) else open_source(source)
    ids = checked_ids(token_ids, source)
    check_target(target, source.path)
    vocabulary = vocabulary_path(target)
    embedding = sum(int(t.n_bytes) for t in source.reader.tensors if t.name == "token_embd.weight")
    weights = sum(int(t.n_bytes) for t in source.reader.tensors)
    room = source.path.stat().st_size - weights + embedding
    with ExitStack() as files:
        # Left in reverse: the vocabulary file takes its place before the model that needs it.
        model_part = files.enter_context(
            replacing(target, source.n_bytes_of(len(ids)) + HEADER_BYTES + room)
        )
        vocabulary_part = files.enter_context(replacing(vocabulary, room))
        write_vocabulary(vocabulary_part, source)
        n_bytes = vocabulary_part.stat().st_size
        write_model(model_part, source, ids, vocabulary.name, n_bytes)
        check_same(source.path, model_part, vocabulary_part)
    return vocabulary


def checked_ids(token_ids: Sequence[int] | Ids, source: TrimSource) -> Ids:
    """The ids [K] ascending, so that of equal logits the same token wins as in the whole model.

    Raises: UsageError for none, too many, one twice or one that is not in the vocabulary.
    """
    ids = np.sort(np.asarray(token_ids, np.int64))
    if not 1 <= len(ids) <= source.n_vocab:
        raise UsageError(f"{len(ids)} rows to keep: expected 1 to {source.n_vocab}")
    if ids[0] < 0 or ids[-1] >= source.n_vocab or (np.diff(ids) == 0).any():
        raise UsageError(
            f"rows {ids[0]} to {ids[-1]} to keep: expected each of 0 to {source.n_vocab - 1} once"
        )
    return ids.astype(np.int32)


def check_target(target: Path, source: Path) -> None:
    """Raises: UsageError if writing `target` would take the place of the source."""
    if target.suffix != ".gguf":
        raise UsageError(f"{target} ends in {target.suffix!r}: expected a name ending in .gguf")
    for path in (target, vocabulary_path(target)):
        if path.exists() and path.samefile(source):
            raise UsageError(f"{path} is the model to trim: choose another name for the result")


def check_same(whole: Path, trimmed: Path, vocabulary: Path) -> None:
    """Raises: BackendError unless kept rows' logits are the whole model's, bit for bit."""
    options = ModelOptions(n_context=2 * N_PROBE, n_threads=1, device="cpu")
    model = LlamaCppModel(whole, options, loading="map")
    try:
        tokens = probe_tokens(model)
        expected = logits_of(model, tokens)
    finally:
        model.close()
    small = LlamaCppTrimmedModel(trimmed, options, loading="map", vocabulary=vocabulary)
    try:
        seen = logits_of(small, tokens)
        ids = small.token_ids
    finally:
        small.close()
    off = float(np.abs(seen - expected[:, ids]).max())
    if not np.array_equal(seen, expected[:, ids]):
        raise BackendError(
            f"the trimmed model's logits are off by up to {off:.3g}: expected those of "
            f"{whole.name}, bit for bit; keep another number of rows"
        )


def probe_tokens(model: LlamaCppModel) -> list[int]:
    """Ids of a sentence in the model's own vocabulary, with tokens from all over it."""
    text = model.tokenizer.encode(PROBE, bos=True)[: N_PROBE // 2]
    spread = np.linspace(0, model.n_vocab - 1, N_PROBE - len(text)).astype(int)
    return [*text, *spread.tolist()]


def logits_of(model: LlamaCppModel | LlamaCppTrimmedModel, tokens: list[int]) -> FloatArray:
    """[2n, V or K]: after each token, read at once and then one by one."""
    together = model.forward(tokens).copy()
    model.truncate(0)
    singly = [model.forward([token])[0].copy() for token in tokens]
    return np.concatenate([together, singly])
