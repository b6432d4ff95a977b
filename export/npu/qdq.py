"""A static graph in whole numbers: every value gets a scale, from what real text makes of it.

Ranges belong to names, and graphs of all widths name their values alike, so keys and values that
one graph gives out mean the same to the other. They cross the boundary as they are stored, in
whole numbers; all else is floats outside. Values have 16 bits, weights 8 and a scale per column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Array, Graph, Node

Ranges = Mapping[str, tuple[float, float]]
MOVES = ("Reshape", "Transpose", "Split", "Concat")  # values pass unchanged, so one scale
SHARES = ("Sigmoid", "Softmax")  # from 0 to 1; NPUs take this scale and no other
SHARE_SCALE = 1 / 65536
MARGIN = 0.1  # of a range, added at both ends: other text goes further
LEAST = 1e-4  # narrowest range
# A masked score lies this far below any that counts, so its share is 0 in 16 bits. A mask as deep
# as in floats would leave no resolution to the scores.
MASK_GAP = 20.0


@dataclass(frozen=True)
class Encoding:
    """Whole numbers q that stand for (q - zero) * scale. scale: [] or [n], for the last axis."""

    scale: Array
    zero: Array

    def quantized(self, values: Array) -> Array:
        """The nearest whole numbers."""
        limits = np.iinfo(self.zero.dtype)
        found = np.round(values / self.scale) + self.zero.astype(np.float32)
        return np.clip(found, limits.min, limits.max).astype(self.zero.dtype)


def from_range(low: float, high: float) -> Encoding:
    """For values from `low` to `high`, in 16 bits with an exact 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, LEAST) / 65535)
    return Encoding(np.asarray(scale), np.asarray(round(-low / float(scale)), np.uint16))


def by_column(matrix: Array) -> Encoding:
    """For a matrix [n_in, n_out] around 0, in 8 bits with a scale for each column."""
    most = np.maximum(np.abs(matrix).max(axis=0), LEAST)
    return Encoding((most / 127).astype(np.float32), np.zeros(len(most), np.int8))


def mask_of(ranges: Ranges) -> float:
    """The mask that hides a score of any layer behind the least one that counts."""
    scores = [ranges[name] for name in ranges if name.endswith(".scores")]
    low, high = min(r[0] for r in scores), max(r[1] for r in scores)
    return -MASK_GAP - (1 + 2 * MARGIN) * (high - low)


def encodings(graph: Graph, ranges: Ranges) -> dict[str, Encoding]:
    """An encoding for every value of `graph`, from what was seen of it in real text.

    Those that only move share one. Raises: KeyError for a value that was not seen.
    """
    mask = mask_of(ranges)
    known = {name: _widened(name, *seen) for name, seen in ranges.items()}
    known["mask"] = (mask, 0.0)
    fixed = {out for node in graph.nodes if node.kind in SHARES for out in node.outputs}
    share = Encoding(np.asarray(SHARE_SCALE, np.float32), np.asarray(0, np.uint16))
    found: dict[str, Encoding] = {}
    for name in known:
        if name.endswith(".masked"):
            low, high = known[name.replace(".masked", ".scores")]
            known[name] = (low + mask, high)
        elif ".mixed" in name:  # a share of the values, whatever the text
            known[name] = known[f"value.{name.split('.')[1]}.new"]
    for names in together(graph):
        low = min(known[name][0] for name in names)
        high = max(known[name][1] for name in names)
        one = share if fixed & set(names) else from_range(low, high)
        found |= dict.fromkeys(names, one)
    return found


def together(graph: Graph) -> Iterable[list[str]]:
    """The values of `graph` in groups that need one encoding."""
    values = [*graph.inputs, *(out for node in graph.nodes for out in node.outputs)]
    group = {name: [name] for name in values}

    def join(names: Sequence[str]) -> None:
        for name in names[1:]:
            if group[name] is not group[names[0]]:
                group[names[0]] += group[name]
                for moved in group[name]:
                    group[moved] = group[names[0]]

    for node in graph.nodes:
        if node.kind in MOVES:
            join([name for name in (*node.inputs, *node.outputs) if name in group])
    for name in graph.outputs:
        if name.endswith(".new"):
            join([name, name.removesuffix(".new")])
    return {id(names): names for names in group.values()}.values()


def quantized(graph: Graph, encodings: Mapping[str, Encoding]) -> Graph:
    """The same graph with its values and weights in whole numbers."""
    return Quantizer(graph, encodings).graph


class Quantizer:
    """Puts a pair of QuantizeLinear and DequantizeLinear after every operator."""

    def __init__(self, graph: Graph, encodings: Mapping[str, Encoding]) -> None:
        self.source, self.encodings = graph, encodings
        self.graph = Graph(graph.name)
        self.read: dict[str, str] = {}  # what to read in place of a value or weight
        for name, (kind, shape) in graph.inputs.items():
            if f"{name}.new" in graph.outputs:
                self.graph.inputs[name] = (np.uint16, shape)
                self.read[name] = self.floats(name, encodings[name], name)
            else:
                self.graph.inputs[name] = (kind, shape)
                self.rounded(name, name)
        for node in graph.nodes:
            inputs = tuple(self.input(name) for name in node.inputs)
            raw = tuple(f"{name}.raw" for name in node.outputs)
            self.graph.nodes.append(Node(node.kind, inputs, raw, node.attributes))
            for name in node.outputs:
                self.output(name)

    def input(self, name: str) -> str:
        """What an operator reads for `name`; weights are quantized at their first use."""
        if name in self.read:
            return self.read[name]
        make = self.source.weights[name]
        if make().dtype != np.float32:  # a shape
            self.graph.weights[name] = make
            return name
        self.read[name] = self.weight(name, make)
        return self.read[name]

    def weight(self, name: str, make: Callable[[], Array]) -> str:
        values = make()
        if values.ndim == 2:
            encoding = by_column(values)
        else:
            encoding = from_range(float(values.min()), float(values.max()))
        self.graph.weights[f"{name}.q"] = lambda: encoding.quantized(make())
        return self.floats(f"{name}.q", encoding, name)

    def output(self, name: str) -> None:
        """Round what an operator gives, and give it out if the graph does."""
        if name not in self.source.outputs:
            self.rounded(f"{name}.raw", name)
            return
        kind, shape = self.source.outputs[name]
        if name.endswith(".new"):
            self.graph.outputs[name] = (np.uint16, shape)
            stored = self.whole(f"{name}.raw", name, name)
            self.read[name] = self.floats(stored, self.encodings[name], name)
        else:
            self.graph.outputs[name] = (kind, shape)
            stored = self.whole(f"{name}.raw", name, f"{name}.q")
            self.floats(stored, self.encodings[name], name, output=name)

    def rounded(self, raw: str, name: str) -> None:
        """Read `name` rounded to what its encoding has."""
        stored = self.whole(raw, name, f"{name}.q")
        self.read[name] = self.floats(stored, self.encodings[name], name)

    def whole(self, raw: str, name: str, output: str) -> str:
        parts = self.constants(self.encodings[name], name)
        return self.graph.add("QuantizeLinear", [raw, *parts], output)

    def floats(self, stored: str, encoding: Encoding, name: str, output: str = "") -> str:
        axis = {"axis": 1} if encoding.scale.ndim else {}
        parts = self.constants(encoding, name)
        return self.graph.add("DequantizeLinear", [stored, *parts], output or f"{name}.f", **axis)

    def constants(self, encoding: Encoding, name: str) -> list[str]:
        scale = self.graph.constant(f"{name}.scale", encoding.scale)
        return [scale, self.graph.constant(f"{name}.zero", encoding.zero)]


def _widened(name: str, low: float, high: float) -> tuple[float, float]:
    if name in ("x", "cos", "sin"):  # no text goes beyond what is known of these
        return low, high
    margin = MARGIN * (high - low)
    return low - margin * (low < 0), high + margin * (high > 0)
