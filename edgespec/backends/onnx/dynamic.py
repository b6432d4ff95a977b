"""A graph of any length whose cache lies in buffers that it appends to in place.

Two kinds of graphs are run: those that export/onnx/graph.py writes, and those of
onnxruntime-genai's model builder, which know `attention_mask` in place of a bias, give logits for
every token and cannot branch. Truncating is a smaller length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends import ModelOptions
from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.tokens import Ids, Tree
from edgespec.errors import BackendError, ModelFileError, UsageError
from edgespec.types import FloatArray

DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
PIECE = 256  # prompt tokens per run
ROWS = 64  # rows of logits per run
KEPT_WIDTHS = 32  # up to this many tokens the small inputs stay bound to arrays of their own
PAST, PRESENT = "past_key_values.", "present."
GIVEN = ("input_ids", "position_ids", "logit_rows", "seqlens_k", "total_length")
MASKS = {"attention_bias", "attention_mask"}
MEMORY = {"cuda": "cuda", "directml": "dml"}  # where a GPU's cache lies, in ONNX Runtime's words


@dataclass(frozen=True)
class Sizes:
    """n_context: tokens of the cache. n_columns: of the logits. n_embd: of a hidden state."""

    n_context: int
    n_columns: int
    n_embd: int


class DynamicGraph:
    """One session, its cache [1, n_kv_heads, n_slots, head_dim] per layer, and its bindings.

    Slot 0 of a graph with a bias holds nothing and is masked: at an empty cache the attention
    kernel would take a prompt's positions to be consecutive, which those of a tree are not.
    placement: nodes by provider. can_branch: whether trees can be read.
    """

    n_rows = ROWS

    def __init__(self, path: Path, sizes: Sizes, options: ModelOptions) -> None:
        """Raises: ModelFileError, UsageError, BackendError."""
        device = "cpu" if options.device == "auto" else options.device
        self._ort = onnx_providers.runtime()
        self._session = onnx_providers.session(path, device, n_threads=options.n_threads)
        self.placement = onnx_providers.placement(self._session)
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        caches = {name: value for name, value in inputs.items() if name.startswith(PAST)}
        check_ends(path, inputs, outputs, sizes.n_columns)
        self._with_rows, self._first = "logit_rows" in inputs, int("attention_bias" in inputs)
        self._names = set(inputs) - set(caches)
        self._hides, self._states_unread = options.hidden_states, "hidden_states" in outputs
        if self._hides and "hidden_states" not in outputs:
            raise UsageError(
                f"{path.parent.name} gives no hidden states: expected a graph that does; export "
                "it with --hidden"
            )
        provider = onnx_providers.find(device)[0]
        self._memory = MEMORY.get(provider.name, "cpu")
        self.can_branch = bool(self._first) and self._memory == "cpu"
        self._name = path.parent.name
        self._dtype = DTYPES[next(iter(caches.values())).type]
        self._lowest = float(np.finfo(self._dtype).min)
        self._logits_type = DTYPES[outputs["logits"].type]
        self._binding = self._session.io_binding()
        self._run_options = self._ort.RunOptions()
        # No graph capture; looking for an entry that is not there takes 0.06 ms of a run.
        self._run_options.add_run_config_entry("gpu_graph_id", "-1")
        self._adapter: Any = None
        if options.lora:
            self._bind_adapter(Path(options.lora))
        self._kept: dict[int, Small] = {}
        self._sizes, self._n_slots = sizes, sizes.n_context + self._first
        self._caches: list[NDArray[Any]] = []
        self.kv_bytes = 0
        for name, value in caches.items():
            self._bind_cache(name, [1, value.shape[1], self._n_slots, value.shape[3]])

    def _bind_adapter(self, path: Path) -> None:
        """A low-rank adapter's matrices as inputs of every run: what RunOptions say of adapters,
        a run with bindings does not hear. Raises: UsageError, ModelFileError.
        """
        takes = [value.name for value in self._session.get_overridable_initializers()]
        if not any(name.endswith(".lora_A") for name in takes):
            raise UsageError(
                f"{self._name} takes no adapter: expected a graph with inputs for one; export it "
                "with --lora"
            )
        if not path.is_file():
            raise UsageError(f"{path} is not there: expected an adapter; check --lora-draft")
        try:
            found = self._ort.AdapterFormat.read_adapter(str(path))
            self._adapter = found, found.get_parameters()  # whose memory the bindings read
            for name, value in self._adapter[1].items():
                self._binding.bind_ortvalue_input(name, value)
        except Exception as error:  # ORT's exceptions have no base of their own
            raise ModelFileError(
                f"{path} cannot be used ({' '.join(str(error).split())[:200]}): expected an "
                "adapter of ONNX Runtime; make it with `edgespec export lora`"
            ) from error

    def _bind_cache(self, name: str, shape: list[int]) -> None:
        """One buffer for what a layer reads and for what it gives back."""
        value_type = self._ort.OrtValue
        if self._memory == "cpu":
            cache = np.zeros(shape, self._dtype)
            self._caches.append(cache)
            value = value_type.ortvalue_from_numpy(cache)
        else:
            value = value_type.ortvalue_from_shape_and_type(shape, self._dtype, self._memory, 0)
        self.kv_bytes += int(np.prod(shape)) * np.dtype(self._dtype).itemsize
        self._binding.bind_ortvalue_input(name, value)
        self._binding.bind_ortvalue_output(name.replace(PAST, PRESENT), value)

    def read(
        self, ids: Ids, base: int, tree: Tree | None, *, rows: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Append tokens behind `base` others; logits [n, n_columns] and states [n, n_embd] or none.

        At most `n_rows` tokens if rows are wanted or it is a tree. Both are overwritten by the
        next call. Raises: BackendError, also when it is stopped by `stop`.
        """
        width = max(1, len(ids)) if rows else self.piece
        small = None
        for start in range(0, len(ids), width):
            small = self._run(ids[start : start + width], base + start, tree, rows)
        if small is None or not rows:
            sizes = self._sizes
            none = np.empty((0, sizes.n_columns), np.float32)
            return none, np.empty((0, sizes.n_embd), np.float32)
        return small.found()

    @property
    def piece(self) -> int:
        """Prompt tokens per run: few where each of them is given logits nobody reads."""
        return PIECE if self._with_rows else ROWS

    def _run(self, ids: Ids, base: int, tree: Tree | None, rows: bool) -> Small:
        """One run of the graph."""
        n, n_rows = len(ids), len(ids) if rows or not self._with_rows else 1
        small = self._kept.get(n) if rows else None
        if small is None:
            small = Small(n, n_rows, self._shapes(n_rows), self._ort.OrtValue)
            if rows and n <= KEPT_WIDTHS:
                self._kept[n] = small
        total = base + n + self._first
        small.ids[0], small.total[...], small.seqlens[0] = ids, total, total - 1
        small.positions[0] = base + (np.arange(n) if tree is None else np.array(tree.depths))
        for name, value in small.inputs.items():
            if name in self._names:
                self._binding.bind_ortvalue_input(name, value)
        for name, value in small.outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        if self._states_unread and not self._hides:
            self._binding.bind_output("hidden_states")  # each time: else it keeps its size
        if self._first:
            self._binding.bind_cpu_input("attention_bias", self._bias(n, total, tree))
        else:
            self._binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:  # ORT's exceptions have no base of their own
            raise BackendError(
                f"{self._name} stopped ({' '.join(str(error).split())[:300]}): expected a result; "
                "try --device cpu"
            ) from error
        return small

    def _shapes(self, n_rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Of the outputs for so many rows."""
        shapes: dict[str, Any] = {"logits": ((1, n_rows, self._sizes.n_columns), self._logits_type)}
        if self._hides:
            shapes["hidden_states"] = ((1, n_rows, self._sizes.n_embd), self._dtype)
        return shapes

    def _bias(self, n: int, total: int, tree: Tree | None) -> NDArray[Any]:
        """[1, 1, n, total]: what a token must not see beside what lies behind it."""
        bias = np.zeros((1, 1, n, total), self._dtype)
        bias[..., 0] = self._lowest
        if tree is not None:
            own = bias[0, 0, :, total - n :]
            own[...] = self._lowest
            for node in range(n):
                own[node, list(tree.path([node]))] = 0
        return bias

    def move(self, base: int, rows: Sequence[int]) -> None:
        """Bring the slots of `rows`, counted from `base`, together behind `base`."""
        start = base + self._first
        slots = start + np.array(rows)
        for cache in self._caches:
            cache[:, :, start : start + len(rows)] = cache[:, :, slots]

    def stop(self) -> None:
        """Make the run in flight, in whatever thread, fail within a node; and all until `go`."""
        self._run_options.terminate = True

    def go(self) -> None:
        """Runs may begin again."""
        self._run_options.terminate = False

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called since `go`."""
        return bool(self._run_options.terminate)

    def close(self) -> None:
        """Free session and cache."""
        self._binding = self._session = None
        self._kept, self._caches = {}, []


def check_ends(path: Path, inputs: dict[str, Any], outputs: dict[str, Any], n_columns: int) -> None:
    """Raises: ModelFileError unless DynamicGraph can run a graph with these ends."""
    caches = [name for name in inputs if name.startswith(PAST)]
    others = set(inputs) - set(caches)
    masks = others & MASKS
    known = "input_ids" in others and len(masks) == 1 and others <= {*GIVEN, *masks}
    ends = ["logits", *(name.replace(PAST, PRESENT) for name in caches)]
    typed = all(value.type in DTYPES for name in caches for value in (inputs[name],))
    sized = all(isinstance(inputs[name].shape[at], int) for name in caches for at in (1, 3))
    if not (caches and known and typed and sized and outputs.keys() >= set(ends)):
        raise ModelFileError(
            f"{path} takes {', '.join([*sorted(others), *caches][:6])}: expected a decoder with "
            "input_ids, past_key_values and logits; export it with `edgespec export onnx`"
        )
    logits = outputs["logits"]
    if logits.type not in DTYPES or logits.shape[-1] not in (n_columns, None):
        raise ModelFileError(
            f"{path} gives logits [{', '.join(map(str, logits.shape))}] of {logits.type}: expected "
            f"floats for {n_columns} tokens, as edgespec.json says; export it again"
        )


class Small:
    """Arrays of one run of n tokens, and the same memory as ONNX Runtime's values."""

    def __init__(
        self, n: int, n_rows: int, outputs: dict[str, tuple[tuple[int, ...], Any]], values: Any
    ) -> None:
        """n_rows: rows of logits; fewer than n are those of the first tokens. values: OrtValue."""
        value_of = values.ortvalue_from_numpy
        self.ids, self.positions = np.zeros((1, n), np.int64), np.zeros((1, n), np.int64)
        self.seqlens, self.total = np.zeros(1, np.int32), np.zeros((), np.int32)
        self.rows = np.arange(n_rows, dtype=np.int64)
        arrays = {
            "input_ids": self.ids,
            "position_ids": self.positions,
            "seqlens_k": self.seqlens,
            "total_length": self.total,
            "logit_rows": self.rows,
        }
        self.inputs = {name: value_of(array) for name, array in arrays.items()}
        self._arrays = {name: np.empty(shape, kind) for name, (shape, kind) in outputs.items()}
        self.outputs = {name: value_of(array) for name, array in self._arrays.items()}

    def found(self) -> tuple[FloatArray, FloatArray]:
        """Logits [n, n_columns] and hidden states [n, n_embd], of the arrays' own memory."""
        logits = np.asarray(self._arrays["logits"][0], np.float32)
        states = self._arrays.get("hidden_states")
        if states is None:
            return logits, np.empty((0, 0), np.float32)
        return logits, np.asarray(states[0], np.float32)
