"""A Llama, Qwen2 or Qwen3 decoder as an ONNX graph of fixed shapes, for NPUs.

The graph keeps nothing: the caller holds keys and values of C tokens, gives them with every call
and writes the T new rows where it wants them. What a token may see is the mask's business, so
forgetting is a smaller length and a tree of drafts is a mask. Inputs, for T tokens:

    x [1, T, n_embd]: vectors of the tokens, rows of the model's table
    cos, sin [1, T, 1, head_dim]: of the positions, see `rotation`
    mask [1, 1, G * T, C + T]: 0 or a large negative number, the rows repeated for each of the
        G query heads that share a key head
    key.N [1, n_kv_heads, head_dim, C], value.N [1, n_kv_heads, C, head_dim]

Outputs: logits [1, T, V or K] and key.N.new, value.N.new [1, T, n_kv_heads, head_dim].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

from ..read.checkpoint import HEAD_BIAS, Checkpoint, Decoder

ARCHITECTURES = ("llama", "qwen2", "qwen3")
Array = NDArray[Any]
FLOAT_MASK = -1e4  # finite, also in 16 bits: an NPU may not know infinity


@dataclass(frozen=True)
class Node:
    """An operator; its name is its first output."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Operators in order. weights: made when asked for. inputs and outputs: type and shape."""

    name: str
    inputs: dict[str, tuple[Any, tuple[int, ...]]] = field(default_factory=dict)
    outputs: dict[str, tuple[Any, tuple[int, ...]]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Callable[[], Array]] = field(default_factory=dict)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append an operator of one output and return that."""
        self.nodes.append(Node(kind, tuple(inputs), (output,), attributes))
        return output

    def split(self, x: str, sizes: list[int], outputs: list[str]) -> list[str]:
        """Cut the last axis."""
        lengths = self.constant(f"{outputs[0]}.sizes", np.array(sizes, np.int64))
        self.nodes.append(Node("Split", (x, lengths), tuple(outputs), {"axis": -1}))
        return outputs

    def reshape(self, x: str, shape: list[int], output: str) -> str:
        """The same values in another shape."""
        sizes = self.constant(f"{output}.shape", np.array(shape, np.int64))
        return self.add("Reshape", [x, sizes], output)

    def constant(self, name: str, values: Array) -> str:
        """A weight that is there already."""
        self.weights[name] = lambda: values
        return name

    def half(self) -> Graph:
        """The same graph in 16-bit floats."""
        return Graph(
            self.name,
            {name: (_half_type(kind), shape) for name, (kind, shape) in self.inputs.items()},
            {name: (_half_type(kind), shape) for name, (kind, shape) in self.outputs.items()},
            self.nodes,
            {name: _halved(weight) for name, weight in self.weights.items()},
        )


def static_graph(checkpoint: Checkpoint, width: int, context: int) -> Graph:
    """The graph for `width` tokens behind at most `context` cached ones, in 32-bit floats.

    Graphs of several widths name their weights and values alike. Raises: ModelFileError.
    """
    architecture = checkpoint.decoder.architecture
    if architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{checkpoint.path} is of architecture {architecture!r}: expected one of "
            f"{', '.join(ARCHITECTURES)}; choose another model"
        )
    builder = Builder(checkpoint, width, context)
    builder.build()
    return builder.graph


class Builder:
    """Adds the decoder's operators from the vectors up."""

    def __init__(self, checkpoint: Checkpoint, width: int, context: int) -> None:
        self.checkpoint, self.width, self.context = checkpoint, width, context
        self.decoder: Decoder = checkpoint.decoder
        self.graph = Graph(checkpoint.name)
        self.group = self.decoder.n_heads // self.decoder.n_kv_heads

    def build(self) -> None:
        """Inputs, layers, head."""
        decoder, width = self.decoder, self.width
        self.input("x", 1, width, decoder.n_embd)
        self.input("cos", 1, width, 1, decoder.head_dim)
        self.input("sin", 1, width, 1, decoder.head_dim)
        self.input("mask", 1, 1, self.group * width, self.context + width)
        x = "x"
        for layer in range(decoder.n_layers):
            x = self.attention(layer, x)
            x = self.feed_forward(layer, x)
        self.head(self.norm("output_norm", x, "last"))

    def head(self, last: str) -> None:
        """Logits."""
        graph, matrix, bias = self.graph, self.checkpoint.head, self.checkpoint.head_bias
        graph.weights["head"] = lambda: matrix.floats().T
        out = graph.add("MatMul", [last, "head"], "logits" if bias is None else "output")
        if bias is not None:
            out = graph.add("Add", [out, graph.constant(HEAD_BIAS, bias)], "logits")
        self.output(out, 1, self.width, matrix.shape[0])

    def input(self, name: str, *shape: int) -> str:
        self.graph.inputs[name] = (np.float32, shape)
        return name

    def output(self, name: str, *shape: int) -> str:
        self.graph.outputs[name] = (np.float32, shape)
        return name

    def attention(self, layer: int, residual: str) -> str:
        """The residual plus what attention adds to it."""
        graph, decoder, at = self.graph, self.decoder, f"blk.{layer}"
        x = self.norm(f"{at}.attn_norm", residual, f"{at}.attn_norm")
        query = self.turned(at, "attn_q", x, decoder.n_heads, f"{at}.attn_q.turned")
        query = graph.add("Transpose", [query], f"{at}.queries", perm=[0, 2, 1, 3])
        if self.group > 1:
            rows = [1, decoder.n_kv_heads, self.group * self.width, decoder.head_dim]
            query = graph.reshape(query, rows, f"{at}.grouped")
        self.turned(at, "attn_k", x, decoder.n_kv_heads, f"key.{layer}.new")
        self.heads(at, "attn_v", x, decoder.n_kv_heads, f"value.{layer}.new")
        self.cache(layer)
        mixed = self.mixed(layer, query)
        if self.group > 1:
            rows = [1, decoder.n_heads, self.width, decoder.head_dim]
            mixed = graph.reshape(mixed, rows, f"{at}.ungrouped")
        mixed = graph.add("Transpose", [mixed], f"{at}.rows", perm=[0, 2, 1, 3])
        size = decoder.n_heads * decoder.head_dim
        mixed = graph.reshape(mixed, [1, self.width, size], f"{at}.joined")
        written = self.linear(at, "attn_output", mixed)
        return graph.add("Add", [residual, written], f"{at}.attn_out")

    def cache(self, layer: int) -> None:
        """Inputs for keys and values of earlier tokens, outputs for those of the new ones."""
        n_heads, size = self.decoder.n_kv_heads, self.decoder.head_dim
        self.input(f"key.{layer}", 1, n_heads, size, self.context)
        self.input(f"value.{layer}", 1, n_heads, self.context, size)
        for state in ("key", "value"):
            self.output(f"{state}.{layer}.new", 1, self.width, n_heads, size)

    def mixed(self, layer: int, query: str) -> str:
        """Values weighted by attention, [1, n_kv_heads, G * T, head_dim].

        The new rows are multiplied apart from the cached ones: joining them would copy the cache.
        """
        graph, at = self.graph, f"blk.{layer}"
        keys = graph.add("Transpose", [f"key.{layer}.new"], f"{at}.keys", perm=[0, 2, 3, 1])
        values = graph.add("Transpose", [f"value.{layer}.new"], f"{at}.values", perm=[0, 2, 1, 3])
        old = graph.add("MatMul", [query, f"key.{layer}"], f"{at}.scores_old")
        new = graph.add("MatMul", [query, keys], f"{at}.scores_new")
        scores = graph.add("Concat", [old, new], f"{at}.scores", axis=-1)
        masked = graph.add("Add", [scores, "mask"], f"{at}.masked")
        probs = graph.add("Softmax", [masked], f"{at}.probs", axis=-1)
        sizes = [self.context, self.width]
        old, new = graph.split(probs, sizes, [f"{at}.probs_old", f"{at}.probs_new"])
        old = graph.add("MatMul", [old, f"value.{layer}"], f"{at}.mixed_old")
        new = graph.add("MatMul", [new, values], f"{at}.mixed_new")
        return graph.add("Add", [old, new], f"{at}.mixed")

    def feed_forward(self, layer: int, residual: str) -> str:
        """The residual plus what the gated neurons add to it."""
        graph, at = self.graph, f"blk.{layer}"
        x = self.norm(f"{at}.ffn_norm", residual, f"{at}.ffn_norm")
        gate, up = self.linear(at, "ffn_gate", x), self.linear(at, "ffn_up", x)
        share = graph.add("Sigmoid", [gate], f"{at}.share")
        opened = graph.add("Mul", [gate, share], f"{at}.opened")
        neurons = graph.add("Mul", [opened, up], f"{at}.neurons")
        written = self.linear(at, "ffn_down", neurons)
        return graph.add("Add", [residual, written], f"{at}.ffn_out")

    def norm(self, name: str, x: str, output: str) -> str:
        """x over its root mean square, times the weight."""
        self.weight(f"{name}.weight")
        # ONNX Runtime's name for it, which all its providers know; ONNX's own came with opset 23.
        return self.graph.add(
            "SimplifiedLayerNormalization",
            [x, f"{name}.weight"],
            output,
            axis=-1,
            epsilon=self.decoder.rms_eps,
        )

    def linear(self, at: str, part: str, x: str) -> str:
        """x times a matrix, plus its bias if it has one."""
        name = f"{at}.{part}"
        matrix = self.weight(f"{name}.weight")
        if f"{name}.bias" not in self.checkpoint.tensors:
            return self.graph.add("MatMul", [x, matrix], name)
        product = self.graph.add("MatMul", [x, matrix], f"{name}.product")
        return self.graph.add("Add", [product, self.weight(f"{name}.bias")], name)

    def heads(self, at: str, part: str, x: str, n_heads: int, output: str) -> str:
        """Queries, keys or values [1, T, n_heads, head_dim], normed if the model does so."""
        shape = [1, self.width, n_heads, self.decoder.head_dim]
        out = self.graph.reshape(self.linear(at, part, x), shape, output)
        name = f"{at}.{part}_norm"
        if f"{name}.weight" not in self.checkpoint.tensors:
            return out
        return self.norm(name, out, name)

    def turned(self, at: str, part: str, x: str, n_heads: int, output: str) -> str:
        """Queries or keys turned by their positions: v * cos + swapped(v) * sin."""
        graph, decoder = self.graph, self.decoder
        v = self.heads(at, part, x, n_heads, f"{at}.{part}.heads")
        half, name = decoder.rope_dim // 2, f"{at}.{part}"
        rest = decoder.head_dim - decoder.rope_dim
        sizes = [half, half, rest] if rest else [half, half]
        low, high, *still = graph.split(v, sizes, [f"{name}.cut{i}" for i in range(len(sizes))])
        swapped = graph.add("Concat", [high, low, *still], f"{name}.swapped", axis=-1)
        kept = graph.add("Mul", [v, "cos"], f"{name}.by_cos")
        crossed = graph.add("Mul", [swapped, "sin"], f"{name}.by_sin")
        return graph.add("Add", [kept, crossed], output)

    def weight(self, name: str) -> str:
        """A weight as the operators here want it."""
        self.graph.weights[name] = lambda: self.adjusted(name)
        return name

    def adjusted(self, name: str) -> NDArray[np.float32]:
        """The weight, matrices [n_in, n_out]; queries scaled, rotated pairs put half a head apart.

        With queries and keys reordered alike, their products are the same.
        """
        decoder = self.decoder
        values = self.checkpoint[name].floats()
        part = name.rsplit(".", 2)[-2]
        if part in ("attn_q", "attn_k") and decoder.rope_interleaved:
            values = _halves(values, decoder)
        normed = name.replace("attn_q.", "attn_q_norm.") in self.checkpoint.tensors
        if part == "attn_q_norm" or (part == "attn_q" and not normed):
            values = values * np.float32(decoder.head_dim**-0.5)
        return np.ascontiguousarray(values.T)


def rotation(decoder: Decoder, n_context: int) -> tuple[Array, Array]:
    """Factors [n_context, head_dim] for v and for v with its halves swapped."""
    pairs = np.arange(0, decoder.rope_dim, 2, dtype=np.float64)
    frequencies = decoder.rope_scale * decoder.rope_base ** (-pairs / decoder.rope_dim)
    if decoder.rope_factors:
        frequencies = frequencies / np.asarray(decoder.rope_factors, np.float64)
    angles = np.arange(n_context)[:, None] * frequencies
    cos = np.ones((n_context, decoder.head_dim), np.float32)
    sin = np.zeros_like(cos)
    cos[:, : decoder.rope_dim] = np.concatenate([np.cos(angles)] * 2, axis=1)
    sin[:, : decoder.rope_dim] = np.concatenate([-np.sin(angles), np.sin(angles)], axis=1)
    return cos, sin


def _halves(values: Array, decoder: Decoder) -> Array:
    """Rows of each head with pairs (2i, 2i + 1) moved to (i, i + rope_dim / 2)."""
    order = np.arange(decoder.head_dim)
    order[: decoder.rope_dim] = order[: decoder.rope_dim].reshape(-1, 2).T.ravel()
    heads = values.reshape(-1, decoder.head_dim, *values.shape[1:])
    return heads[:, order].reshape(values.shape)


def _half_type(kind: Any) -> Any:
    return np.float16 if kind == np.float32 else kind


def _halved(weight: Callable[[], Array]) -> Callable[[], Array]:
    def half() -> Array:
        values = weight()
        return values.astype(np.float16) if values.dtype == np.float32 else values

    return half
