"""ONNX models on ONNX Runtime: what was read, what counts of it, and errors in one line.

A model is the folder that `edgespec export onnx` writes. Which graph it has, and how its cache is
kept, is in dynamic (any length, CPUs and GPUs) and static (fixed shapes, NPUs).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.backends import ModelOptions
from edgespec.backends.onnx import folder as onnx_folder
from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.dynamic import DynamicGraph, Sizes
from edgespec.backends.onnx.static import StaticGraph
from edgespec.backends.tokens import Ids, Tree, ids_of, tree_of
from edgespec.backends.vocabulary import open_tokenizer
from edgespec.config import DEFAULT_CONTEXT
from edgespec.errors import (
    BackendError,
    Cancelled,
    ContextError,
    ShapeError,
    UsageError,
)
from edgespec.process import OwnLock
from edgespec.types import Capabilities, FloatArray, ModelInfo

log = logging.getLogger(__name__)
FEW = 8  # tokens up to which one run, with rows nobody reads, beats two
LEFT: list[object] = []  # graphs that a forked child must not free: it would wait for their threads


class OnnxModel:
    """Implements protocols.LanguageModel; one call at a time, `cancel` from any thread.

    placement: how many of the graph's nodes run on each provider.
    """

    def __init__(self, path: Path, options: ModelOptions) -> None:
        """Raises: ModelFileError, UsageError, ContextError, BackendError."""
        self._lock = OwnLock()
        self._graph: Any = None
        self.path = onnx_folder.folder_of(Path(path))
        check_options(options, self.path.name)
        about = self.about = onnx_folder.description(self.path)
        self.n_vocab, self.n_embd = int(about["n_vocab"]), int(about["n_embd"])
        self.n_params = int(about["n_params"])
        self.token_ids = onnx_folder.token_ids(self.path, about)
        self.n_context = context_of(about, options)
        asked = onnx_providers.find(options.device)[0].ep
        is_whole = self.token_ids is None and (self.path / onnx_folder.GRAPH).is_file()
        if options.known is not None and is_whole and asked == onnx_providers.CPU:
            options.known(self.n_context, self.n_vocab)
        n_columns = self.n_vocab if self.token_ids is None else len(self.token_ids)
        sizes = Sizes(self.n_context, n_columns, self.n_embd)
        self._graph, self.tokenizer = self._parts(sizes, options)
        self.kv_bytes = self._graph.kv_bytes
        self.placement: dict[str, int] = self._graph.placement
        names = self.placement or [asked]  # all that is known before 1.24
        self.device = ", ".join(name.removesuffix("ExecutionProvider") for name in names)
        self._none = np.empty((0, n_columns), np.float32)
        self._hidden = np.empty((0, self.n_embd), np.float32)
        leaves = 0 if self._graph.can_branch else 1
        width = self.n_embd if options.hidden_states else 0
        self.capabilities = Capabilities(leaves, self._graph.n_rows, width)
        self._length = 0
        self._last = (0, 0)  # where the last forward began and how many rows it has
        self._tree: Tree | None = None  # of a forking forward until keep

    def _parts(self, sizes: Sizes, options: ModelOptions) -> tuple[Any, Any]:
        """The graph, and while its weights are packed the tokenizer; both or none."""
        graph: StaticGraph | DynamicGraph | None = None
        with ThreadPoolExecutor(1) as beside:
            kind = self.about["tokenizer"]
            reading = beside.submit(open_tokenizer, self.path, kind, n_vocab=self.n_vocab)
            try:
                graph = self._open_graph(sizes, options)
                return graph, reading.result()
            except BaseException:
                if graph is not None:
                    graph.close()
                if reading.exception() is None:
                    reading.result().close()
                raise

    def _open_graph(self, sizes: Sizes, options: ModelOptions) -> StaticGraph | DynamicGraph:
        if self.about["kind"] == "static":
            return StaticGraph(self.path, self.about, options)
        return DynamicGraph(self.path / onnx_folder.GRAPH, sizes, options)

    @property
    def length(self) -> int:
        """Tokens in the cache; the rows of a forking forward count once kept."""
        return self._length

    @property
    def hidden(self) -> FloatArray:
        """[n, n_embd] state after the last norm for the last forward's rows; a view.

        Empty unless the model was opened with `hidden_states`.
        """
        return self._hidden

    def head_rows(self, tokens: Sequence[int]) -> FloatArray | None:
        """See adapt.grown.WithTable. Raises: ModelFileError."""
        return onnx_folder.head_rows(self.path, self.about, tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        with self._call(len(tokens)):
            self._graph.read(ids_of(tokens, self.n_vocab), self._length, None, rows=False)
            self._length += len(tokens)

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """See protocols.LanguageModel. More rows than fit one run come as a copy.

        Raises: ShapeError for a tree of more nodes than a run has rows, or a graph without trees.
        """
        n = len(tokens)
        tree = None if parents is None else tree_of(parents, n)
        if tree is not None:
            self._check_tree(n)
        with self._call(n):
            ids, base, logits = ids_of(tokens, self.n_vocab), self._length, self._none
            if n_rows is not None and n > max(FEW, n_rows):
                self._graph.read(ids[:-n_rows], base, None, rows=False)
                ids, base = ids[-n_rows:], base + n - n_rows
            if len(ids) <= self._graph.n_rows:
                logits, self._hidden = self._graph.read(ids, base, tree, rows=True)
            else:
                logits, self._hidden = self._long(ids, base)
            # One sum finds a NaN or infinity anywhere in the rows.
            if not np.isfinite(logits.sum()):
                raise BackendError(
                    f"{self.path.name} computed logits that are not numbers: expected finite "
                    "ones; export it again, in more bits"
                )
            self._tree, self._last = tree, (self._length, n)
            self._length += n if tree is None else 0
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """See protocols.LanguageModel. Raises: ShapeError if `rows` is not a path from the top."""
        with self._lock:
            self._check_open()
            (base, n), tree = self._last, self._tree
            path = tuple(range(len(rows))) if tree is None else tree.path(rows)
            if tuple(rows) != path or len(rows) > n:
                raise ShapeError(f"rows {list(rows)[:20]} of {n}: expected a path from the top")
            if tree is not None and rows:
                self._graph.move(base, rows)
            self._length, self._tree, self._last = base + len(rows), None, (base, len(rows))

    def truncate(self, n: int) -> None:
        """See protocols.LanguageModel. Raises: ShapeError unless 0 <= n <= length."""
        with self._lock:
            self._check_open()
            if not 0 <= n <= self._length:
                raise ShapeError(f"cannot truncate {self._length} tokens to {n}: expected fewer")
            self._length, self._tree, self._last = n, None, (min(self._last[0], n), 0)

    def cancel(self) -> None:
        """Make the call in flight, in whatever thread, raise Cancelled; nothing if there is none.

        On the CPU it ends within one graph node.
        """
        graph = self._graph
        if graph is not None:
            graph.stop()  # each call begins by undoing it

    def use_threads(self, n: int) -> None:
        """Nothing: a session of ONNX Runtime keeps the threads that it was opened with."""

    def info(self) -> ModelInfo:
        """What the model is; reads its files for the hash."""
        return ModelInfo(
            path=str(self.path),
            sha256=onnx_folder.hash_of(self.path),
            backend="onnx",
            architecture=str(self.about["architecture"]),
            n_params=self.n_params,
            quant=str(self.about["quant"]),
            n_bytes=onnx_folder.size_of(self.path),
            placement=self.placement,
            device=self.device,
        )

    def close(self) -> None:
        """Free graph and cache; waits for a call in flight, which is cancelled.

        A forked child keeps them, and has to end as multiprocessing's do, by os._exit: ONNX Runtime
        itself would wait at exit for threads that are gone.
        """
        if not self._lock.is_own:
            LEFT.append(self._graph)
            self._graph = None
            return
        self.cancel()
        with self._lock:
            if self._graph is not None:
                self._graph.close()
                self.tokenizer.close()
            self._graph = None
            self._hidden = self._none[:0]

    def __del__(self) -> None:
        if getattr(self, "_graph", None) is not None and not sys.is_finalizing():
            self.close()

    def _long(self, ids: Ids, base: int) -> tuple[FloatArray, FloatArray]:
        """Logits and states of a chain longer than one run's rows, copied together."""
        pieces = []
        for start in range(0, len(ids), self._graph.n_rows):
            part = ids[start : start + self._graph.n_rows]
            pieces.append([a.copy() for a in self._graph.read(part, base + start, None, rows=True)])
        logits, states = (np.concatenate(rows) for rows in zip(*pieces, strict=True))
        return logits, states

    @contextmanager
    def _call(self, n: int) -> Iterator[None]:
        """Around everything that reads n tokens: nothing counts unless it ends well."""
        with self._lock:
            self._check_open()
            if self._tree is not None:
                raise ShapeError("keep() must follow a forking forward: expected it first")
            needed = self._length + n
            if needed > self.n_context:
                has_positions = needed <= int(self.about["n_context"])
                more = f"raise it with -c {needed}" if has_positions else "export with a larger one"
                raise ContextError(
                    f"{self._length} + {n} tokens: expected at most the {self.n_context} of the "
                    f"context; shorten the prompt, or {more}"
                )
            self._last = (self._length, 0)
            self._graph.go()
            try:
                yield
            except BackendError as error:
                if self._graph.stopped:
                    raise Cancelled("stopped: the text up to here stays; ask again") from error
                raise

    def _check_open(self) -> None:
        if self._graph is None:
            raise BackendError("the model is closed: expected an open one; open it again")

    def _check_tree(self, n: int) -> None:
        """Raises: ShapeError for a tree that the graph cannot read."""
        if not self._graph.can_branch:
            raise ShapeError(
                f"{self.path.name} reads no trees on this device: expected a chain; draft one"
            )
        if n > self._graph.n_rows:
            raise ShapeError(f"a tree of {n} nodes: expected at most {self._graph.n_rows}")


def check_options(options: ModelOptions, name: str) -> None:
    """Raises: UsageError for what is decided at the export."""
    if options.kv_type != "f16":
        raise UsageError(
            f"--kv-type {options.kv_type}: {name} keeps its cache as it was exported: expected "
            "a GGUF model; leave it out"
        )
    if options.n_gpu_layers != -1:
        raise UsageError(
            f"-ngl {options.n_gpu_layers}: {name} runs whole on one device: expected a GGUF model; "
            "choose with --device"
        )


def context_of(about: dict[str, Any], options: ModelOptions) -> int:
    """Tokens the cache holds: as asked, else the graph's positions, up to DEFAULT_CONTEXT."""
    most = int(about["n_context"])
    if options.n_context > most:
        log.warning(
            "%s has positions for %d tokens, fewer than the %d asked for",
            about["name"], most, options.n_context,
        )  # fmt: skip
    return min(options.n_context or DEFAULT_CONTEXT, most)
