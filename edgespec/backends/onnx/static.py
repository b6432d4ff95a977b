"""ONNX models of fixed shapes, for NPUs: the graph keeps nothing, the cache is two arrays here.

A folder that `edgespec export onnx --npu` wrote has a graph for one token and one for a few; a
prompt is read in pieces through the wide one. Every graph is bound once to the same arrays, so a
step copies nothing but its own rows. What a token sees is decided by the mask alone: truncating is
a smaller length, and a tree's nodes lie behind each other, each seeing its own path.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends import ModelOptions
from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.static_folder import Array, StaticFolder
from edgespec.backends.tokens import Ids, Tree
from edgespec.errors import BackendError, ModelFileError, UsageError
from edgespec.types import FloatArray

KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint16)": np.uint16}

# A CPU has no kernels for 16-bit values: weights turned to floats once, and no searching for any,
# took a step from 25 to 5 ms (8 layers of 256, context 512).
PLAIN = {"session.disable_quant_qdq": "1"}


class BoundGraph:
    """One graph, bound to the cache and to arrays of its own that stay where they are.

    mask: [G, T, C + T], rows for each query head that shares a key head, then the tokens.
    logits: [T, V or K]. on_gpu: its memory is apart, and binding an input copies it there.
    """

    def __init__(self, session: Any, cache: dict[str, Array], on_gpu: bool) -> None:
        # In the order they must go: a GPU's part of what is bound belongs to the session.
        self._binding, self._session, self._on_gpu = session.io_binding(), session, on_gpu
        self._arrays: dict[str, Array] = {}
        self._inputs: Any = {v.name: self._value(v, cache) for v in session.get_inputs()}
        self._bind_inputs()
        for value in session.get_outputs():
            self._binding.bind_ortvalue_output(value.name, self._value(value, {}))
        self.x, self.cos, self.sin = (self._arrays[name][0] for name in ("x", "cos", "sin"))
        self.width = len(self.x)
        self.mask = self._arrays["mask"].reshape(-1, self.width, self._arrays["mask"].shape[-1])
        self.logits = self._arrays["logits"][0]

    def _value(self, value: Any, cache: dict[str, Array]) -> Any:
        """An input or output on top of its array; all that are not in `cache` are made here."""
        array = cache.get(value.name)
        if array is None:
            array = self._arrays[value.name] = np.zeros(value.shape, KINDS[value.type])
        if list(array.shape) != value.shape:
            raise ValueError(f"{value.name} of {value.shape}, not {list(array.shape)}")
        return onnx_providers.runtime().OrtValue.ortvalue_from_numpy(array)

    def _bind_inputs(self) -> None:
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)

    def run(self) -> None:
        """Compute the outputs from what the arrays hold."""
        if self._on_gpu:
            self._bind_inputs()
        self._session.run_with_iobinding(self._binding)

    def close(self) -> None:
        """Free the graph."""
        self._binding = self._inputs = None
        self._session = None

    def new(self, name: str) -> Array:
        """Keys or values [T, n_kv_heads, head_dim] of the tokens."""
        rows: Array = self._arrays[f"{name}.new"][0]
        return rows


class StaticGraph:
    """Both graphs over one cache; the same face as dynamic.DynamicGraph.

    The context is the graphs': a larger one cannot be had, a smaller one only limits it.
    placement: nodes of both graphs by provider.
    """

    can_branch = True

    def __init__(self, path: Path, about: dict[str, Any], options: ModelOptions) -> None:
        """Open the folder `path`. Raises: ModelFileError, UsageError, BackendError."""
        if options.lora:
            raise UsageError(
                "a static ONNX model takes no adapter: expected a GGUF or a dynamic ONNX model; "
                "merge the adapter into the model"
            )
        if options.hidden_states:
            raise UsageError(
                "a static ONNX model gives no hidden states: expected a GGUF or a dynamic ONNX "
                "model"
            )
        self._stopped = threading.Event()
        self._folder = StaticFolder.read(path, about)
        self._hidden_score, self._slots = float(about["mask"]), int(about["n_context"])
        self._steps = self._open(options)
        self.n_rows = self._slots
        self.kv_bytes = sum(array.nbytes for array in self._cache.values())
        self._logits = np.empty((0, self._steps[0].logits.shape[1]), np.float32)

    def _open(self, options: ModelOptions) -> list[BoundGraph]:
        """Both graphs, the narrow one first, bound to one cache."""
        device = "cpu" if options.device == "auto" else options.device
        provider = onnx_providers.find(device)[0]
        files = [self._folder.graph(width, provider.name) for width in self._folder.widths]
        entries = PLAIN if provider.name == "cpu" else {}
        sessions = [
            onnx_providers.session(file, device, n_threads=options.n_threads, entries=entries)
            for file in files
        ]
        placed = [onnx_providers.placement(session) for session in sessions]
        self.placement = {ep: sum(p.get(ep, 0) for p in placed) for ep in {**placed[0]}}
        self._cache = {
            value.name: np.zeros(value.shape, KINDS[value.type])
            for value in sessions[0].get_inputs()
            if value.name.startswith(("key.", "value."))
        }
        try:
            return [
                BoundGraph(session, self._cache, provider.kind == "gpu") for session in sessions
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{files[0].name} and {files[1].name} do not fit together ({error}): expected two "
                "widths of one model; export it again"
            ) from error

    def read(
        self, ids: Ids, base: int, tree: Tree | None, *, rows: bool
    ) -> tuple[FloatArray, FloatArray]:
        """See DynamicGraph.read; there are no states."""
        n = len(ids)
        if rows and len(self._logits) < n:
            self._logits = np.empty((n, self._logits.shape[1]), np.float32)
        logits = self._logits[: n if rows else 0]
        if tree is None:
            depths, seen = np.arange(n), None
        else:
            depths, seen = np.array(tree.depths), ancestors(tree)
        start = 0
        while start < n:
            step = self._steps[0 if n - start == 1 else -1]
            end = min(n, start + step.width)
            # A chain's row sees all before it: the pieces already read, and its own down to itself.
            own = None if seen is None else seen[start:end, :end]
            self._fill(step, ids[start:end], base, base + depths[start:end], start, own)
            self._run(step)
            self._store(step, base + start, end - start)
            if rows:
                logits[start:end] = step.logits[: end - start]
            start = end
        return logits, np.empty((0, 0), np.float32)

    def _fill(
        self,
        step: BoundGraph,
        ids: Ids,
        base: int,
        positions: Array,
        start: int,
        own: NDArray[np.bool_] | None,
    ) -> None:
        """Inputs of one step. own: [n, start + n] what the rows see of this call's tokens.

        Rows beyond n hold what earlier steps left; they see something, so that they stay finite.
        """
        n = len(ids)
        step.x[:n] = self._folder.table[ids]
        step.cos[:n, 0], step.sin[:n, 0] = self._folder.rotation[:, positions]
        step.mask[...] = self._hidden_score
        step.mask[:, :, : base if own is not None else base + start] = 0
        new = step.mask[:, :, self._slots :]
        if own is None:
            new[:, np.tri(step.width, dtype=bool)] = 0
            return
        step.mask[:, :n, base : base + start][:, own[:, :start]] = 0
        new[:, np.eye(step.width, dtype=bool)] = 0
        new[:, :n, :n][:, own[:, start:]] = 0

    def _run(self, step: BoundGraph) -> None:
        try:
            step.run()
        except Exception as error:  # ORT's exceptions have no base of their own
            raise BackendError(
                f"{self._folder.path.name} stopped ({' '.join(str(error).split())[:300]}): "
                "expected a result; try --device cpu"
            ) from error
        if self._stopped.is_set():
            raise BackendError(f"{self._folder.path.name} was stopped: ask again to go on")

    def _store(self, step: BoundGraph, at: int, n: int) -> None:
        """Copy the new keys and values of n rows into the slots from `at`."""
        for name, array in self._cache.items():
            rows = step.new(name)[:n]
            if name.startswith("key."):
                array[0, :, :, at : at + n] = rows.transpose(1, 2, 0)
            else:
                array[0, :, at : at + n] = rows.transpose(1, 0, 2)

    def move(self, base: int, rows: Sequence[int]) -> None:
        """See DynamicGraph.move."""
        slots = base + np.array(rows)
        for name, array in self._cache.items():
            at = array if name.startswith("value.") else array.swapaxes(2, 3)
            at[:, :, base : base + len(rows)] = at[:, :, slots]

    def stop(self) -> None:
        """Make the call in flight, in whatever thread, fail after its step."""
        self._stopped.set()

    def go(self) -> None:
        """Calls may begin again."""
        self._stopped.clear()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called since `go`."""
        return self._stopped.is_set()

    def close(self) -> None:
        """Free graphs and cache."""
        for step in self._steps:
            step.close()
        self._steps, self._cache = [], {}


def ancestors(tree: Tree) -> NDArray[np.bool_]:
    """[n, n] whether row i sees node j: itself and the nodes above it."""
    seen = np.eye(len(tree.parents), dtype=bool)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            seen[node] |= seen[parent]
    return seen
