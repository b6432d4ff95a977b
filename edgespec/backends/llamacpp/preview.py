"""What a GGUF file's header says of the model, trimmed and split ones included (preview)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path

from edgespec.backends import ModelOptions
from edgespec.backends.gguf import check as gguf_check
from edgespec.backends.gguf.file import Header, Tensor, read_header, refusal
from edgespec.backends.llamacpp import opening
from edgespec.backends.llamacpp.library import library
from edgespec.backends.llamacpp.opening import refuse_unfit
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer, Weights
from edgespec.backends.llamacpp.trimmed import AGAIN, TOKEN_IDS, Trim, trim_of
from edgespec.backends.preview import Cache, Preview
from edgespec.errors import ModelFileError


def preview_of(path: Path, options: ModelOptions) -> Preview:
    """The preview of one file.

    Raises: ModelFileError if it is no complete GGUF file, UsageError for a device not here
    or a kind of cache it cannot have.
    """
    if options.device not in ("auto", "cpu"):
        library().device_handle(options.device)
    header, problems = read_header(path), list[str]()
    files, trim, tokenizer = [header], None, None
    try:
        if header.tensors:
            gguf_check.check_model(header)
            files += [read_header(part) for part in gguf_check.parts(header)[1:]]
        trim = _trim(header) if TOKEN_IDS in header.metadata else None
        tokenizer = _tokenizer(header, trim)
    except ModelFileError as error:
        problems.append(str(error))
    n_vocab = 0 if tokenizer is None else tokenizer.n_vocab
    n_rows = n_vocab if trim is None else len(trim.token_ids)
    weights = [tensor for file in files for tensor in file.tensors.values()]
    return Preview(
        path=path,
        backend="llamacpp",
        architecture=str(header.metadata.get("general.architecture", "")),
        quant=_quant(header, weights),
        n_params=sum(prod(tensor.shape) for tensor in weights),
        weights_bytes=sum(file.n_bytes for file in files) if weights else 0,
        # llama.cpp has its output rows twice.
        logits_bytes=2 * 4 * n_rows * opening.rows_of(n_rows, options),
        n_vocab=n_vocab,
        tokenizer=tokenizer,
        token_ids=None if trim is None else trim.token_ids,
        cache=_cache(header, options),
        shares_memory=not opening.on_gpu(library(), options),
        more_context=opening.MORE_TOKENS,
        problems=tuple(problems),
    )


def _quant(header: Header, weights: Sequence[Tensor]) -> str:
    """As a loaded model has it: the file's word, else the type of most weights; "" for none."""
    by_kind = Counter[str]()
    for tensor in weights:
        by_kind[tensor.kind] += tensor.n_bytes
    said = header.metadata.get("general.file_type")
    name = library().api.llama_ftype_name(said) if by_kind and isinstance(said, int) else b""
    if name and not name.startswith(b"unknown"):
        return str(name.decode())
    return max(by_kind, key=lambda kind: by_kind[kind], default="")


def _trim(header: Header) -> Trim:
    """What a trimmed file says, its vocabulary file being there. Raises: ModelFileError."""
    trim = trim_of(header)
    if not header.path.with_name(trim.vocabulary).is_file():
        raise refusal(header.path, f"needs {trim.vocabulary}", "that file beside it", AGAIN)
    return trim


def _tokenizer(header: Header, trim: Trim | None) -> LlamaCppTokenizer:
    """The tokenizer, of a model that llama.cpp knows and that writes token after token.

    Raises: ModelFileError.
    """
    if trim is not None:
        return LlamaCppTokenizer.open(header.path.with_name(trim.vocabulary))
    if not header.tensors:  # else it has been checked with all the rest
        gguf_check.check_tokenizer(header)
    params = library().api.llama_model_default_params()
    params.vocab_only = True
    weights = Weights(header.path, params)
    refuse_unfit(weights, header)
    return LlamaCppTokenizer(weights)


def _cache(header: Header, options: ModelOptions) -> Cache | None:
    """What the metadata says of the cache, None if it does not say enough."""
    try:
        gguf_check.check_shape(header)
    except (ModelFileError, KeyError):
        return None
    opening.check_kv_type(options.kv_type, header)
    step = opening.CACHE_STEP
    whole, windowed = (
        n * opening.cell_bytes(header, options.kv_type) for n in opening.cell_heads(header)
    )
    trained = header.metadata[f"{header.metadata['general.architecture']}.context_length"]
    return Cache(
        whole,
        int(trained),
        step,
        window_bytes=windowed,
        n_window=opening.window_cells(header, options),
        state_bytes=opening.states_bytes(header, options),
        n_back=opening.n_snapshots(header, options),
    )
