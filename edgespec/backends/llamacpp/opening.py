"""How a GGUF model is opened: options checked, memory foreseen, placement and loading decided.

All but `Loading` happens before llama.cpp takes memory, so that a wrong option or a context that
does not fit is one clear line.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.check import MAX_CONTEXT, head_length, kv_heads, parts
from edgespec.backends.gguf.file import Header
from edgespec.backends.gguf.recurrent import (
    KNOWN,
    WITH_SNAPSHOTS,
    both,
    recurrent_layers,
    state_bytes,
)
from edgespec.backends.gguf.seen import Seen
from edgespec.backends.gguf.trial import best_way
from edgespec.backends.gguf.windows import n_with_keys, window_of, windowed_layers
from edgespec.backends.llamacpp.interrupts import HeldInterrupts
from edgespec.backends.llamacpp.layout import CPU_REPACK, MAP, set_layout, ways_of
from edgespec.backends.llamacpp.library import Library, library
from edgespec.backends.llamacpp.pages import ReadPages
from edgespec.backends.llamacpp.past import Past, n_kept
from edgespec.backends.llamacpp.tokenizer import Weights
from edgespec.backends.llamacpp.waiting import Places
from edgespec.backends.llamacpp.windows import Windows
from edgespec.config import DEFAULT_CONTEXT, KV_TYPES
from edgespec.device import free_memory, n_cores
from edgespec.errors import ContextError, ModelFileError, UsageError

MORE_TOKENS = 1.5  # another vocabulary may need so many times the tokens for a text
CACHE_STEP = 256  # llama.cpp rounds the cache up to a multiple of this
MOST_LEAVES = 255  # LLAMA_MAX_SEQ - 1
# Rows of logits a forward returns in one piece. llama.cpp holds them twice (output buffer and
# graph), so a vocabulary of 152k gets 55 rows in 2 x 32 MiB instead of 64 in 2 x 37.
MOST_ROWS, LEAST_ROWS, ROWS_BYTES = 64, 32, 32 << 20
# Prompt tokens per batch: on CPUs 256 read as fast as 512 and halve the graph's buffers.
BATCH_CPU, BATCH_GPU = 256, 512
# With keys and values both in F16 the CPU's flash attention splits the text of a single token, and
# adds up in another order than for two. It does not where values are in BF16.
FLASH_ATTENTION, BF16 = 1, 30

RECURRENT = ("recurrent", "hybrid")
MOST_SNAPSHOTS, SNAPSHOT_BYTES = 16, 512 << 20  # of a recurrent state, and what all may take
SNAPSHOT_SHARE = 8  # or so little of the memory that is free
UNFIT = (
    ("is_diffusion", "writes by diffusion", "one token after another"),
    ("has_encoder", "has an encoder", "a decoder only"),
)


def checked(options: ModelOptions, header: Header) -> ModelOptions:
    """The options themselves. Raises: UsageError for a value that this model cannot have."""
    if not 1 <= options.max_leaves <= MOST_LEAVES:
        raise UsageError(f"max_leaves is {options.max_leaves}: expected 1 to {MOST_LEAVES}")
    if not 0 <= options.n_threads <= 512:
        raise UsageError(f"-t is {options.n_threads}: expected 1 to 512, or 0 for all cores")
    if not 0 <= options.n_context <= MAX_CONTEXT:
        raise UsageError(f"-c is {options.n_context}: expected 0 (the model's) to {MAX_CONTEXT}")
    check_kv_type(options.kv_type, header)
    return options


def check_kv_type(kv_type: str, header: Header) -> None:
    """Raises: UsageError if heads of this size cannot be kept so."""
    _, block, _ = KV_TYPES[kv_type]
    for which in ("key", "value"):
        length = head_length(header, which)
        if length % block:
            raise UsageError(
                f"a cache in {kv_type} does not fit the heads of {length} in {header.path.name}: "
                f"expected a multiple of {block}; use f16"
            )


def context_of(options: ModelOptions, header: Header) -> int:
    """Tokens the context holds: as asked, else what it was trained for, up to DEFAULT_CONTEXT.

    Asked in tokens of another vocabulary it is larger, but not beyond what was trained.
    """
    trained = int(header.metadata[f"{header.metadata['general.architecture']}.context_length"])
    asked = options.n_context
    if not asked:
        return min(trained, DEFAULT_CONTEXT)
    if options.counted_by in (0, header.tensors["token_embd.weight"].shape[-1]):
        return asked
    return max(asked, min(int(MORE_TOKENS * asked), trained))


def kv_bytes(header: Header, n_context: int, kv_type: str, window: int = 0) -> int:
    """Bytes of the cache for `n_context` tokens; window: cells of windowed layers, 0 for all."""
    cells = rounded(n_context)
    whole, windowed = (n * cell_bytes(header, kv_type) for n in cell_heads(header))
    return cells * whole + min(cells, window or cells) * windowed


def rounded(n_cells: int) -> int:
    """As many as llama.cpp makes of them."""
    return n_cells + -n_cells % CACHE_STEP


def cell_bytes(header: Header, kv_type: str) -> int:
    """Of one head's keys and values of a token."""
    _, block, block_bytes = KV_TYPES[kv_type]
    return (head_length(header, "key") + head_length(header, "value")) * block_bytes // block


def cell_heads(header: Header) -> tuple[int, int]:
    """Heads of keys that see all of the text, and those that see a window, of all layers."""
    layers = zip(kv_heads(header), recurrent_layers(header), windowed_layers(header), strict=True)
    whole = windowed = 0
    for n, is_recurrent, is_windowed in list(layers)[: n_with_keys(header)]:
        if not is_recurrent or both(header):
            whole, windowed = whole + n * (not is_windowed), windowed + n * is_windowed
    return whole, windowed


def window_cells(header: Header, options: ModelOptions) -> int:
    """Cells that windowed layers need: the window and a batch; 0 where they keep all."""
    n = window_of(header) if options.windows else 0
    return rounded(n + batch_of(options)) if n else 0


def batch_of(options: ModelOptions) -> int:
    """Tokens read at once; never fewer than rows of logits."""
    return BATCH_GPU if on_gpu(library(), options) else BATCH_CPU


def check_memory(needed: int, n_context: int, path: Path, *, fixed: int = 0) -> None:
    """Raises: ContextError if the cache would take more than the memory that is free.

    fixed: bytes of what is needed that are the same for any context.
    """
    free = free_memory()
    if free is not None and needed > free:
        grows = max(needed - fixed, 1)
        fits = n_context * max(free - fixed, 0) // grows // CACHE_STEP * CACHE_STEP
        raise ContextError(
            f"a context of {n_context} tokens of {path.name} takes {needed >> 20} MiB: expected "
            f"at most the {free >> 20} MiB that are free; try -c {max(fits, CACHE_STEP)}"
        )


def safe_loading(header: Header, options: ModelOptions, library: Library) -> str:
    """The way of layout.py that is asked for, or else the fastest, if a child process survived it.

    Files that come with EdgeSpec need no trial and are mapped.
    """
    if options.loading != "auto":
        return best_way(parts(header), [options.loading], library.version, options)
    if is_bundled(header.path):
        return MAP
    ways: tuple[str, ...] = (MAP,)
    if options.device == "cpu" or not library.has_gpu():
        free = free_memory()
        if free is None or free > 1.2 * header.n_bytes:
            ways = ways_of(header, library)
    if options.exact:
        ways = ways[-2:]
    return best_way(parts(header), ways, library.version, options)


def is_bundled(path: Path) -> bool:
    """Whether a file comes with EdgeSpec."""
    package = Path(__file__).resolve().parents[2]
    return any(path.resolve().is_relative_to(p) for p in (package, package.parent / "models"))


def chosen_loading(
    header: Header, options: ModelOptions, library: Library, asked: str | None
) -> tuple[str, Seen]:
    """What was asked for, untried, or `safe_loading`; and what compares the times that chose it
    with what is seen in use, if any did.
    """
    if asked is not None:
        return asked, Seen()
    way = safe_loading(header, options, library)
    if options.loading != "auto" or options.exact or on_gpu(library, options):
        return way, Seen()
    return way, Seen(parts(header), library.version, way, options.n_threads or n_cores())


class Loading:
    """What llama.cpp calls while it loads: tells how far it is, and lets Ctrl-C end it.

    stopped: what `tell` raised, if it did.
    """

    def __init__(self, tell: Callable[[float], None] | None, held: HeldInterrupts) -> None:
        self._tell, self._held = tell, held
        self.stopped: BaseException | None = None

    def __call__(self, share: float, _: Any) -> bool:
        try:
            if self._tell is not None:
                self._tell(share)
        except BaseException as error:  # it cannot pass through C
            self.stopped = error
        return self.stopped is None and not self._held.pressed


def telling(options: ModelOptions, header: Header, loading: str) -> Callable[[float], None] | None:
    """Who is told how far loading is; while it reorders, what was read is given back as well."""
    told = options.progress
    return ReadPages(parts(header), told) if loading == CPU_REPACK else told


def model_params(
    library: Library, options: ModelOptions, header: Header, loading: str, told: Loading
) -> tuple[Any, list[Any]]:
    """llama_model_params, and what they point to, to be kept until the model is open."""
    params = library.api.llama_model_default_params()
    tell = type(params.progress_callback)(told)
    params.progress_callback = tell
    layout = set_layout(params, loading, header, library)
    params.n_gpu_layers = options.n_gpu_layers
    handles: list[int | None] = [None]
    if options.device == "cpu":
        params.n_gpu_layers = 0
    elif options.device == "auto":
        return params, [tell, layout]  # all GPUs that llama.cpp finds
    else:
        handles = [library.device_handle(options.device), None]
    array = (ctypes.c_void_p * len(handles))(*handles)
    params.devices = ctypes.cast(array, ctypes.c_void_p)
    return params, [tell, layout, array]


def context_params(library: Library, options: ModelOptions, n_context: int, n_vocab: int) -> Any:
    """llama_context_params: a unified cache, rows of logits as `rows_of`, small batches."""
    params = library.api.llama_context_default_params()
    rows = rows_of(n_vocab, options)
    offloads = on_gpu(library, options)
    batch = batch_of(options)
    params.n_ctx = n_context
    params.n_batch = params.n_ubatch = batch
    # One sequence per row reserves the output buffer for good: it never moves under a view.
    # Many sequences cost little else in a unified cache.
    params.n_seq_max = params.n_outputs_max = rows
    params.n_threads = params.n_threads_batch = options.n_threads or n_cores()
    params.type_k = params.type_v = KV_TYPES[options.kv_type][0]
    if options.exact and not offloads:
        params.flash_attn_type = FLASH_ATTENTION
        if options.kv_type == "f16":
            params.type_v = BF16
    params.kv_unified = params.swa_full = True  # windows whole, or truncate and trees lose them
    params.embeddings = options.hidden_states
    params.no_perf = True
    params.op_offload = params.offload_kqv = offloads
    params.abort_callback = library.abort_callback
    return params


def is_recurrent(weights: Weights) -> bool:
    """Whether a state stands for all of the text, in some layers or in all."""
    api = library().api
    return any(getattr(api, f"llama_model_is_{kind}")(weights.handle) for kind in RECURRENT)


def forgets(recurrent: bool, options: ModelOptions, header: Header) -> str:
    """Why a text cannot be cut anywhere: it is in a "state", or "windows" of it; else ""."""
    if recurrent:
        return "state"
    return "windows" if options.windows and window_of(header) else ""


def for_memory(params: Any, forgets: str, options: ModelOptions, header: Header) -> None:
    """One sequence, for each has a state or a window of its own; snapshots, where there are any."""
    if forgets:
        params.n_seq_max, params.swa_full = 1, forgets != "windows"
    if forgets == "state":
        params.n_rs_seq = n_snapshots(header, options)


def past_of(
    api: Any, context: Any, forgets: str, options: ModelOptions, header: Header
) -> Past | Windows | None:
    """What knows how such a memory goes back."""
    if forgets == "state":
        return Past(api, context, int(api.llama_n_rs_seq(context)), each=options.steps)
    return Windows(api, context, window_of(header)) if forgets else None


def n_snapshots(header: Header, options: ModelOptions) -> int:
    """States of the last tokens that llama.cpp keeps, where it can.

    A drafter has none: it steps one token at a time, and they are of one batch's tokens.
    """
    name = header.metadata["general.architecture"]
    if options.steps or name not in WITH_SNAPSHOTS:
        return 0
    free = free_memory()
    room = SNAPSHOT_BYTES if free is None else min(SNAPSHOT_BYTES, free // SNAPSHOT_SHARE)
    return min(MOST_SNAPSHOTS, room // max(state_bytes(header), 1))


def states_bytes(header: Header, options: ModelOptions) -> int:
    """Bytes of all recurrent states: the text's, snapshots and checkpoints."""
    size = state_bytes(header)
    return size * (1 + n_snapshots(header, options) + n_kept(size, each=options.steps))


def put_adapter(library: Library, weights: Weights, context: int, path: Path) -> None:
    """Add a low-rank adapter to the context's layers; it is freed with the weights.

    Raises: UsageError for no file, ModelFileError for one that is not of this model.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there: expected an adapter (GGUF); check --lora-draft")
    api = library.api
    library.forget_errors()
    adapter = api.llama_adapter_lora_init(weights.handle, str(path).encode())
    if not adapter:
        raise ModelFileError(
            f"{path} cannot be used ({library.last_error() or 'llama.cpp gave no reason'}): "
            "expected an adapter of this model in GGUF; make it with `edgespec export lora`"
        )
    adapters = (api.llama_adapter_lora_p_ctypes * 1)(adapter)
    api.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0))


def use_threads(library: Library, options: ModelOptions, context: int, n: int) -> None:
    """Compute with at most n threads from the next call on, 0: with as many as asked for."""
    most = options.n_threads or n_cores()
    n = min(n, most) or most
    library.api.llama_set_n_threads(context, n, n)


def places(library: Library, options: ModelOptions, context: int) -> Places:
    """Where the context's threads compute: anywhere for a GPU's few."""
    n_threads = 0 if on_gpu(library, options) else options.n_threads or n_cores()
    return Places(library, context, n_threads)


def on_gpu(library: Library, options: ModelOptions) -> bool:
    """Whether layers go anywhere but to the CPU."""
    return options.device != "cpu" and options.n_gpu_layers != 0 and library.has_gpu()


def placed(library: Library, options: ModelOptions, loading: str) -> str:
    """Where the model runs, in words."""
    cache = "" if options.kv_type == "f16" else f", {options.kv_type} cache"
    if on_gpu(library, options):
        return ("GPU" if options.device == "auto" else options.device) + cache
    n_threads = options.n_threads or n_cores()
    layout = "" if loading == MAP else f", weights reordered ({loading})"
    return f"CPU, {n_threads} thread{'s' * (n_threads > 1)}{layout}{cache}"


def rows_of(n_vocab: int, options: ModelOptions) -> int:
    """Most rows of logits one batch computes."""
    fits = ROWS_BYTES // (4 * max(n_vocab, 1))
    return max(options.max_leaves + 1, LEAST_ROWS, min(MOST_ROWS, fits))


def refuse_unfit(weights: Weights, header: Header) -> None:
    """Raises: ModelFileError for a kind of model that cannot be rewound or read token by token."""
    path, name = header.path, str(header.metadata["general.architecture"])
    if is_recurrent(weights) and name not in KNOWN:
        raise ModelFileError(
            f"{path.name} is a {name!r}, whose memory we do not know how to take back: expected "
            f"attention only, or one of {', '.join(sorted(KNOWN))}; choose another model"
        )
    for function, seen, expected in UNFIT:
        if getattr(library().api, f"llama_model_{function}")(weights.handle):
            raise ModelFileError(f"{path.name} {seen}: expected {expected}; choose another model")
