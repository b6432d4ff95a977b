"""What the matrices of a decoder are fed by real text: X^T X of each one's inputs.

The model runs as an fp32 graph, in a temporary folder, that also gives out the inputs of its
matrices. As many layers as memory allows are summed up at a time; the others read the text again.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.folder import GRAPH
from edgespec.types import Progress

from ..gguf.file import check_room
from ..onnx.graph import GraphOptions, write_graph
from ..read.checkpoint import Checkpoint
from .gptq import Moments

# Values within a layer of onnx/graph.py's graphs, and the matrices that read them.
READERS = {
    "attn_norm": ("attn_q", "attn_k", "attn_v"),
    "attn": ("attn_output",),
    "ffn_norm": ("ffn_gate", "ffn_up"),
    "neurons": ("ffn_down",),
}
SUMS_BYTES = 1 << 30  # of sums held at once


def matrices(checkpoint: Checkpoint) -> list[str]:
    """Names of the matrices whose inputs `moments` can tell: all of the layers."""
    return [name for tap in taps(checkpoint) for name in readers(tap)]


def taps(checkpoint: Checkpoint) -> list[str]:
    """The graph's names of the values that matrices read, in the order they are computed."""
    return [f"blk.{i}.{value}" for i in range(checkpoint.decoder.n_layers) for value in READERS]


def readers(tap: str) -> list[str]:
    """Names of the matrices that read the value."""
    layer, _, value = tap.rpartition(".")
    return [f"{layer}.{matrix}.weight" for matrix in READERS[value]]


def moments(
    checkpoint: Checkpoint,
    wanted: Sequence[str],
    pieces: Sequence[Sequence[int]],
    progress: Progress,
) -> Iterator[tuple[list[str], Moments]]:
    """The wanted matrices that share an input, and its moments over pieces of token ids.

    Columns to which all of these matrices give no weight are left out.
    Raises: ModelFileError for an architecture without such a graph, UsageError without room.
    """
    shared = {tap: [n for n in readers(tap) if n in set(wanted)] for tap in taps(checkpoint)}
    shared = {tap: names for tap, names in shared.items() if names}
    columns = {tap: read_columns(checkpoint, names) for tap, names in shared.items()}
    groups = list(grouped(columns))
    n_done, n_runs = 0, len(groups) * len(pieces)
    with tapped(checkpoint, list(columns)) as session:
        for group in groups:
            sums = {tap: np.zeros((len(columns[tap]),) * 2, np.float32) for tap in group}
            for piece in pieces:
                for tap, value in zip(
                    group, session.run(group, feeds(session, piece)), strict=True
                ):
                    seen = value[0][:, columns[tap]]  # [n, n_columns]
                    sums[tap] += seen.T @ seen
                n_done += 1
                progress("reading calibration text", n_done / n_runs)
            for tap in group:
                yield shared[tap], Moments(columns[tap], sums.pop(tap))


def read_columns(checkpoint: Checkpoint, names: Sequence[str]) -> NDArray[np.intp]:
    """The columns, ascending, that have a weight in any of the matrices."""
    return np.flatnonzero(np.any([checkpoint[name].floats().any(axis=0) for name in names], axis=0))


def grouped(columns: Mapping[str, NDArray[np.intp]]) -> Iterator[list[str]]:
    """Values in their order, as many together as their sums may lie in memory."""
    group: list[str] = []
    n_bytes = 0
    for tap, found in columns.items():
        size = 4 * len(found) ** 2
        if group and n_bytes + size > SUMS_BYTES:
            yield group
            group, n_bytes = [], 0
        group.append(tap)
        n_bytes += size
    if group:
        yield group


@contextmanager
def tapped(checkpoint: Checkpoint, values: Sequence[str]) -> Iterator[Any]:
    """A session of the model in fp32 whose graph gives out `values` too."""
    # A mapped file cannot be deleted on Windows; the system clears its temporary folder itself.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / GRAPH
        n_values = sum(math.prod(checkpoint[name].shape) for name in checkpoint.tensors)
        check_room(path, 4 * n_values + (64 << 20))
        write_graph(checkpoint, path, GraphOptions("fp32"))
        model = onnx.load(path, load_external_data=False)
        model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in values)
        onnx.save(model, path)
        yield onnx_providers.session(path, "cpu")


def feeds(session: Any, piece: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The graph's inputs that make it read `piece` from the beginning."""
    n = len(piece)
    found: dict[str, NDArray[Any]] = {
        "input_ids": np.array([piece], np.int64),
        "position_ids": np.arange(n, dtype=np.int64)[None],
        "logit_rows": np.zeros(1, np.int64),
        "seqlens_k": np.array([n - 1], np.int32),
        "total_length": np.array(n, np.int32),
        "attention_bias": np.zeros((1, 1, n, n), np.float32),
    }
    for one in session.get_inputs():
        if one.name not in found:  # a cache
            found[one.name] = np.zeros((1, one.shape[1], n, one.shape[3]), np.float32)
    return found
