"""What a forward is given, checked: token ids as an array, parents as the shape of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ShapeError

Ids = NDArray[np.int32]


def ids_of(tokens: Sequence[int], n_vocab: int) -> Ids:
    """The tokens [n] as an array. Raises: ShapeError for an id outside the vocabulary."""
    try:
        ids = np.asarray(tokens, np.int32)
    except (OverflowError, ValueError, TypeError) as error:
        raise ShapeError(f"tokens are not ids ({error}): expected whole numbers") from error
    if len(ids) and not (ids.min() >= 0 and ids.max() < n_vocab):
        seen = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise ShapeError(f"token {seen} is unknown: expected 0 to {n_vocab - 1}")
    return ids


@dataclass(frozen=True)
class Tree:
    """Nodes below the cache's last token; leaf number i (from 1) is a sequence of its own."""

    parents: tuple[int, ...]
    depths: tuple[int, ...]
    leaves: tuple[int, ...]  # node of each leaf
    below: tuple[tuple[int, ...], ...]  # for each node the numbers of the leaves below it

    def path(self, rows: Sequence[int]) -> tuple[int, ...]:
        """The nodes from the top to the last of `rows`."""
        found: list[int] = []
        node = rows[-1] if rows else -1
        while 0 <= node < len(self.parents):
            found.append(node)
            node = self.parents[node]
        return tuple(reversed(found))

    def leaf_below(self, node: int) -> int:
        """The number of a leaf at or below `node`."""
        return self.below[node][0]


def tree_of(parents: Sequence[int], n: int) -> Tree | None:
    """The tree that `parents` describe, None for a chain.

    Raises: ShapeError unless there is one parent for each of n nodes, each before its child.
    """
    if len(parents) != n:
        raise ShapeError(f"{len(parents)} parents for {n} tokens: expected one for each")
    if all(parent == node - 1 for node, parent in enumerate(parents)):
        return None
    if not all(-1 <= parent < node for node, parent in enumerate(parents)):
        raise ShapeError(f"parents {list(parents)[:20]}: expected each before its child, from -1")
    inner = set(parents)
    leaves = tuple(node for node in range(n) if node not in inner)
    depths: list[int] = []
    for parent in parents:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    below: list[list[int]] = [[] for _ in range(n)]
    for number, leaf in enumerate(leaves, 1):
        node = leaf
        while node >= 0:
            below[node].append(number)
            node = parents[node]
    return Tree(tuple(parents), tuple(depths), leaves, tuple(map(tuple, below)))
