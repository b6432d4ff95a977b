"""What real text makes of a static graph's values: the range of each.

A graph as wide as a piece of text, with nothing cached, computes what the graphs to be quantized
compute step by step; it also gives the least and the greatest of each of its values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgespec.types import Progress

from ..read.checkpoint import TOKENS, Checkpoint
from .file import opened
from .graph import FLOAT_MASK, Array, Graph, rotation, static_graph
from .qdq import Ranges

WIDTH = 256  # tokens read at once


def seen_ranges(
    checkpoint: Checkpoint, pieces: Sequence[Sequence[int]], context: int, progress: Progress
) -> Ranges:
    """The range of every value over `pieces` of text, spread over the positions of `context`.

    Tokens of a piece beyond WIDTH are left out.
    """
    width = min(WIDTH, context)
    decoder = checkpoint.decoder
    graph = watched(static_graph(checkpoint, width, 1))
    table = checkpoint[TOKENS].floats() * np.float32(decoder.embedding_scale)
    cos, sin = rotation(decoder, context)
    names = list(graph.outputs)
    low, high = np.full(len(names) // 2, np.inf), np.full(len(names) // 2, -np.inf)
    with opened(graph) as session:
        for i, piece in enumerate(pieces):
            start = i * (context - width) // max(len(pieces) - 1, 1)
            feeds = inputs(graph, table[np.array(piece[:width])], cos[start:], sin[start:])
            found = np.array(session.run(names, feeds), np.float64)
            low, high = np.minimum(low, found[0::2]), np.maximum(high, found[1::2])
            progress("reading text", (i + 1) / len(pieces))
    values = [name.removesuffix(".least") for name in names[0::2]]
    ranges = {n: (float(a), float(b)) for n, a, b in zip(values, low, high, strict=True)}
    # Texts name few tokens; the table is known whole.
    return ranges | {"x": (float(table.min()), float(table.max())), "cos": (-1, 1), "sin": (-1, 1)}


def watched(graph: Graph) -> Graph:
    """The graph giving out nothing but the least and the greatest of each value."""
    graph.outputs = {}
    values = [*graph.inputs, *(out for node in graph.nodes for out in node.outputs)]
    for value in values:
        for kind, end in (("ReduceMin", "least"), ("ReduceMax", "greatest")):
            graph.outputs[graph.add(kind, [value], f"{value}.{end}", keepdims=0)] = (np.float32, ())
    return graph


def inputs(graph: Graph, vectors: Array, cos: Array, sin: Array) -> dict[str, Array]:
    """Inputs of a graph that reads `vectors` [n, n_embd] with nothing before them.

    Rows beyond n repeat the first vector and see only themselves, as that does.
    """
    feeds = {name: np.zeros(shape, kind) for name, (kind, shape) in graph.inputs.items()}
    n, width = len(vectors), feeds["x"].shape[1]
    feeds["x"][0] = vectors[0]
    feeds["x"][0, :n] = vectors
    feeds["cos"][0, :, 0], feeds["sin"][0, :, 0] = cos[0], sin[0]
    feeds["cos"][0, :n, 0], feeds["sin"][0, :n, 0] = cos[:n], sin[:n]
    seen = np.tril(np.ones((width, width), bool))
    seen[n:] = np.eye(width, dtype=bool)[n:]
    group = feeds["mask"].shape[2] // width
    feeds["mask"][:] = FLOAT_MASK
    feeds["mask"][0, 0, :, -width:][np.tile(seen, (group, 1))] = 0
    return feeds
