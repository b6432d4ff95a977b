"""GGUF models on llama.cpp, through llama-cpp-python's C interface.

A model is one context with a unified cache: sequence 0 holds what was read, sequences 1.. are
the leaves of a forking forward until `keep`. In that batch a node carries the ids of all leaves
below it, and each leaf begins as a copy of sequence 0 (metadata only), so every node sees its
own path alone. Opening is decided in opening.py.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.check import check_file, parts
from edgespec.backends.gguf.tried import is_known
from edgespec.backends.llamacpp import opening
from edgespec.backends.llamacpp.batch import Batch, Part
from edgespec.backends.llamacpp.interrupts import HeldInterrupts, held_interrupts
from edgespec.backends.llamacpp.library import library
from edgespec.backends.llamacpp.rows import Rows
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer, Weights
from edgespec.backends.tokens import Tree, ids_of, tree_of
from edgespec.errors import BackendError, Cancelled, ContextError, ModelFileError, ShapeError
from edgespec.files import sha256_of
from edgespec.process import OwnLock
from edgespec.types import Capabilities, FloatArray, ModelInfo

ABORTED, NO_ROOM = 2, 1  # what llama_decode returns


class LlamaCppModel:
    """Implements protocols.LanguageModel; one call at a time, `cancel` from any thread."""

    token_ids = None

    def __init__(self, path: Path, options: ModelOptions, *, loading: str | None = None) -> None:
        """Open the model. loading: a way of layout.py, untried; None tries (gguf/trial.py).

        Raises: ModelFileError, ContextError, UsageError, all before much memory is taken.
        """
        self._context: Any = None
        self._weights: Any = None
        self._lock = OwnLock()
        self._stop_flag = ctypes.create_string_buffer(2)  # read by the abort callback
        self._lib = library()
        known = is_known([Path(path)], self._lib.version)
        header = self._header = check_file(Path(path), spelled=not known)
        options = self._options = opening.checked(options, header)
        self.n_context = opening.context_of(options, header)
        window = opening.window_cells(header, options)
        self.kv_bytes = opening.kv_bytes(header, self.n_context, options.kv_type, window)
        states = opening.states_bytes(header, options)
        self.kv_bytes += states
        opening.check_memory(self.kv_bytes, self.n_context, header.path, fixed=states)
        loading, self._seen = opening.chosen_loading(header, options, self._lib, loading)
        self.device = opening.placed(self._lib, options, loading)
        if options.known is not None and not opening.on_gpu(self._lib, options):
            options.known(self.n_context, header.tensors["token_embd.weight"].shape[-1])
        try:
            with held_interrupts() as held:
                self._open(loading, held)
        except BaseException:
            self.close()
            raise

    def _open(self, loading: str, held: HeldInterrupts) -> None:
        api = self._lib.api
        told = opening.Loading(opening.telling(self._options, self._header, loading), held)
        params, _kept = opening.model_params(self._lib, self._options, self._header, loading, told)
        try:
            self._weights = Weights(self._header.path, params)
        except ModelFileError:
            if told.stopped is not None:
                raise told.stopped from None
            if held.pressed:  # whose handler need not raise
                raise Cancelled("stopped while loading") from None
            raise
        opening.refuse_unfit(self._weights, self._header)
        self.tokenizer = LlamaCppTokenizer(self._weights)
        self.n_vocab = self.tokenizer.n_vocab
        self.n_embd = int(api.llama_model_n_embd_out(self._weights.handle))
        self.n_params = int(api.llama_model_n_params(self._weights.handle))
        self._rows = opening.rows_of(self.n_vocab, self._options)
        width, most_leaves = self.n_embd * self._options.hidden_states, self._options.max_leaves
        params = opening.context_params(self._lib, self._options, self.n_context, self.n_vocab)
        self.is_recurrent = opening.is_recurrent(self._weights)
        forgets = opening.forgets(self.is_recurrent, self._options, self._header)
        opening.for_memory(params, forgets, self._options, self._header)
        self.capabilities = Capabilities(1 if forgets else most_leaves, self._rows, width)
        params.abort_callback_data = ctypes.addressof(self._stop_flag)
        self._lib.forget_errors()
        self._context = api.llama_init_from_model(self._weights.handle, params)
        if not self._context:
            why = self._lib.last_error() or "llama.cpp gave no reason"
            remedy = "a smaller -c" if self._options.kv_type == "f16" else "a cache in f16"
            raise BackendError(f"no context for {self._header.path.name} ({why}): try {remedy}")
        self._places = opening.places(self._lib, self._options, self._context)
        self._memory = api.llama_get_memory(self._context)
        self._past = opening.past_of(api, self._context, forgets, self._options, self._header)
        self._batch = Batch(self._lib.api, params.n_batch, self._options.max_leaves)
        self._width = int(params.n_batch)
        sizes = self._rows, self.n_vocab, self.n_embd
        self._out = Rows(self._lib, self._context, *sizes, states=width > 0)
        self._length = 0  # tokens of sequence 0 that count
        self._settled = True  # the cache holds exactly these
        self._last = (0, 0)  # where the last forward began and how many rows it has
        self._tree: Tree | None = None  # of a forking forward until keep
        self._forked = False  # whether leaves may be in the cache
        self._with_states = self._options.hidden_states
        if lora := self._options.lora:
            opening.put_adapter(self._lib, self._weights, self._context, Path(lora))

    @property
    def n_batch(self) -> int:
        """Most tokens read at once without logits."""
        return self._width

    @property
    def length(self) -> int:
        """Tokens in the cache; the rows of a forking forward count once kept."""
        return self._length

    @property
    def hidden(self) -> FloatArray:
        """[n, n_embd] state after the last norm for the last forward's rows; a view.

        Empty unless the model was opened with `hidden_states`.
        """
        return self._out.hidden

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        self._chain(len(tokens), ids_of(tokens, self.n_vocab), None, 0)

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """See protocols.LanguageModel. More rows than fit one batch come as a copy.

        Raises: ShapeError for a tree too wide for `max_leaves`, or of more rows than a batch.
        """
        n = len(tokens)
        tree = None if parents is None else tree_of(parents, n)
        if tree is None:
            with self._seen.timing(n, self):
                return self._chain(n, ids_of(tokens, self.n_vocab), None, n_rows)
        if len(tree.leaves) > (most := self.capabilities.n_leaves) or n > self._rows:
            raise ShapeError(
                f"a tree of {n} nodes and {len(tree.leaves)} leaves: expected at most "
                f"{self._rows} nodes and {most} {'leaves' if most > 1 else 'leaf'}; draft fewer"
            )
        with self._call(n, keeps=False):
            api, base = self._lib.api, self._length
            self._forked = True
            for leaf in range(1, len(tree.leaves) + 1):
                api.llama_memory_seq_cp(self._memory, 0, leaf, -1, -1)
            self._read(self._batch.tree(ids_of(tokens, self.n_vocab), tree, base))
            self._out.show(n, self._header.path)
        self._tree, self._last = tree, (base, n)
        return self._out.logits

    def forward_sequences(self, parts: Sequence[Part]) -> FloatArray:
        """Logits [n_rows, V] for chains of several sequences in one pass, in their order; a view.

        parts: sequences from 1 to `max_leaves`, which are the leaves of trees otherwise: a model
        is used in one way or the other (shared.py).
        Raises: ShapeError for more tokens or rows than a batch holds, and as `forward`.
        """
        n, n_rows = sum(len(part.ids) for part in parts), sum(part.n_rows for part in parts)
        if n > self._width or n_rows > self._rows:
            most = f"{self._width} with {self._rows} rows of logits"
            raise ShapeError(f"{n} tokens, {n_rows} rows of sequences: expected at most {most}")
        with self._call(n, keeps=False):
            self._read(self._batch.several(parts), rows=n_rows > 0)
            self._out.show(n_rows, self._header.path)
        return self._out.logits

    def cut_sequence(self, sequence: int, n: int, source: int = 0) -> None:
        """Forget all of a sequence but its first n tokens; of `source`, if given, take over n."""
        with self._lock:
            self._check_open()
            self._lib.api.llama_memory_seq_rm(self._memory, sequence, 0 if source else n, -1)
            if source:  # shares their cells: nothing is computed or copied
                self._lib.api.llama_memory_seq_cp(self._memory, source, sequence, 0, n)

    def forward_embeddings(self, vectors: FloatArray, *, n_rows: int | None = None) -> FloatArray:
        """Logits [n, V] for input vectors [n, n_embd] in place of token ids; a chain."""
        return self._chain(len(vectors), None, self._vectors(vectors), n_rows)

    def extend_embeddings(self, vectors: FloatArray) -> None:
        """Read input vectors [n, n_embd] into the cache without computing logits."""
        self._chain(len(vectors), None, self._vectors(vectors), 0)

    def keep(self, rows: Sequence[int]) -> None:
        """See protocols.LanguageModel. Raises: ShapeError if `rows` is not a path from the top."""
        (base, n), tree = self._last, self._tree
        path = tuple(range(len(rows))) if tree is None else tree.path(rows)
        if tuple(rows) != path or len(rows) > n:
            raise ShapeError(f"rows {list(rows)[:20]} of {n}: expected a path from the top")
        if tree is None:
            self.truncate(base + len(rows))
            with self._lock, suppress(Cancelled):  # then the next call does it
                self._check_open()
                self._stop_flag[0] = b"\0"
                self._catch_up()  # now, so that what was taken back is paid for by its round
            return
        with self._lock:
            self._check_open()
            if rows:
                leaf = tree.leaf_below(rows[-1])
                self._lib.api.llama_memory_seq_cp(self._memory, leaf, 0, base, base + len(rows))
            self._length, self._settled = base + len(rows), False
            self._drop_leaves()
            self._settled, self._last = True, (base, len(rows))

    def truncate(self, n: int) -> None:
        """See protocols.LanguageModel. Raises: ShapeError unless 0 <= n <= length."""
        with self._lock:
            self._check_open()
            if not 0 <= n <= self._length:
                raise ShapeError(f"cannot truncate {self._length} tokens to {n}: expected fewer")
            if n < self._length:
                self._length, self._settled = n, False
            self._last = (min(self._last[0], n), 0)
            self._settle()

    def cancel(self) -> None:
        """Make the call in flight, in whatever thread, raise Cancelled, but for `keep`, which ends.

        On the CPU it ends within one graph node; on a GPU after the batch in flight.
        """
        self._stop_flag[0] = b"\1"  # each call begins by clearing it

    def use_threads(self, n: int) -> None:
        """See protocols.OpenModel; waits for a call in flight."""
        with self._lock:
            self._check_open()
            opening.use_threads(self._lib, self._options, self._context, n)

    def info(self) -> ModelInfo:
        """What the model is; reads the whole file for its hash."""
        self._check_open()
        name = self._lib.api.llama_ftype_name(self._lib.api.llama_model_ftype(self._weights.handle))
        files = parts(self._header)
        return ModelInfo(
            path=str(self._header.path),
            sha256=sha256_of(*files),
            backend="llamacpp",
            architecture=str(self._header.metadata["general.architecture"]),
            n_params=self.n_params,
            quant=(name or b"unknown").decode("utf-8", "replace"),
            n_bytes=sum(file.stat().st_size for file in files),
            device=self.device,
        )

    def close(self) -> None:
        """Free context and weights; waits for a call in flight, which is cancelled.

        A forked child lets go of them: what they are on, threads or a GPU, is its parent's.
        """
        if not self._lock.is_own:
            self._context = None
            return
        self.cancel()
        with self._lock:
            context, self._context = self._context, None
            if context:
                self._seen.tell()
                self._out.forget()
                self._lib.api.llama_free(context)
                self._places.close()
            if self._weights is not None:
                self._weights.close()

    def __del__(self) -> None:
        if getattr(self, "_context", None) and not sys.is_finalizing():
            self.close()

    def _chain(self, n: int, ids: Any, vectors: Any, n_rows: int | None) -> FloatArray:
        """Read a chain of token ids or input vectors; logits of the last n_rows, None: of all."""
        fill: Any = self._batch.vectors if ids is None else self._batch.chain
        given = vectors if ids is None else ids
        if n_rows is None or n_rows > n or (n_rows and self._options.hidden_states):
            n_rows = n
        with self._call(n):
            base, pieces, start = self._length, [], 0
            if self._past is not None:
                self._past.begins(n, wants_rows=n_rows > 0)
            while start < n:
                end, wanted = n, n_rows
                if n_rows > self._rows or n - start > self._width:
                    unwanted = n - n_rows - start
                    wanted = 0 if unwanted > 0 else min(self._rows, n - start)
                    end = start + (wanted or min(self._width, unwanted))
                self._read(fill(given[start:end], base + start, wanted), rows=wanted > 0)
                if self._past is not None:
                    self._past.ends(list(given[start:end]))
                if wanted:
                    self._out.show(wanted, self._header.path)
                if wanted and n_rows > self._rows:
                    pieces.append((self._out.logits.copy(), self._out.hidden.copy()))
                start = end
            if pieces:
                self._out.logits, self._out.hidden = map(np.concatenate, zip(*pieces, strict=True))
            elif n == 0:
                self._out.forget()
        self._last = (base, n if n_rows else 0)
        return self._out.logits

    @contextmanager
    def _call(self, n: int, *, keeps: bool = True) -> Iterator[None]:
        """Around everything that reads n tokens: all of them count afterwards, or none."""
        with self._lock:
            self._check_open()
            if self._tree is not None:
                raise ShapeError("keep() must follow a forking forward: expected it first")
            if self._length + n > self.n_context:
                raise ContextError(
                    f"{self._length} + {n} tokens: expected at most the {self.n_context} of the "
                    f"context; shorten the prompt or raise it with -c {self._length + n}"
                )
            self._settle()
            self._stop_flag[0] = b"\0"
            self._catch_up()
            self._last, self._settled = (self._length, 0), False
            yield  # a failure here is settled by whatever call comes next
            if keeps:
                self._length += n
                self._settled = True

    def _read(self, batch: Any, *, rows: bool = True) -> None:
        """Decode one batch, with logits and states for all of it unless not `rows`.

        Raises: Cancelled, BackendError; the next call settles the cache.
        """
        if self._options.hidden_states and rows != self._with_states:
            # With states on, llama.cpp computes rows for every token, more than there is room for.
            self._lib.api.llama_set_embeddings(self._context, rows)
            self._with_states = rows
        if self._past is not None:
            self._past.is_sound = False
        self._lib.forget_errors()
        status = self._lib.api.llama_decode(self._context, batch)
        self._places.leave()
        if status == ABORTED or self._stop_flag[0] != b"\0":
            raise Cancelled("stopped: the text up to here stays; ask again to go on")
        if status:
            why = self._lib.last_error() or ("the cache is full" if status == NO_ROOM else "")
            raise BackendError(f"llama_decode returned {status} ({why}): expected 0; report it")

    def _settle(self) -> None:
        """Remove from the cache what does not count (caller holds the lock)."""
        if self._settled:
            return
        if self._past is not None:
            self._past.cut(self._length)
        else:
            self._drop_leaves()
            self._lib.api.llama_memory_seq_rm(self._memory, 0, self._length, -1)
        self._settled = True

    def _catch_up(self) -> None:
        """Read again what the memory forgot with what was taken back."""
        if (past := self._past) is None or not (missing := past.missing()):
            return
        fill: Any = self._batch.vectors if np.ndim(missing[0]) else self._batch.chain
        first = len(past.text) - len(missing)
        for start in range(0, len(missing), self._width):
            part = np.array(missing[start : start + self._width])
            self._read(fill(part, first + start, 0), rows=False)
            past.ends(list(part))

    def _drop_leaves(self) -> None:
        if self._forked:
            for leaf in range(1, self._options.max_leaves + 1):
                self._lib.api.llama_memory_seq_rm(self._memory, leaf, -1, -1)
        self._tree, self._forked = None, False

    def _check_open(self) -> None:
        if not self._context:
            raise BackendError("the model is closed: expected an open one; open it again")

    def _vectors(self, vectors: FloatArray) -> FloatArray:
        rows = np.ascontiguousarray(vectors, np.float32)
        self._check_open()
        width = int(self._lib.api.llama_model_n_embd_inp(self._weights.handle))
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ShapeError(f"vectors have shape {rows.shape}: expected (n, {width})")
        return rows
