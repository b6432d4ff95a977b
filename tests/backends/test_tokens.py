"""tokens.py: what a forward may be given, and the shape of a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgespec.backends.tokens import Tree, ids_of, tree_of
from edgespec.errors import ShapeError


def test_ids_come_as_one_array() -> None:
    ids = ids_of([0, 7, 9], 10)
    assert ids.dtype == np.int32
    assert ids.tolist() == [0, 7, 9]
    assert ids_of([], 10).shape == (0,)


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ([1, 10], "token 10 is unknown: expected 0 to 9"),
        ([1, -1], "token -1 is unknown: expected 0 to 9"),
        ([1 << 40], "tokens are not ids .*: expected whole numbers"),
        (["a"], "tokens are not ids .*: expected whole numbers"),
    ],
)
def test_what_is_no_id_is_named(tokens: Any, line: str) -> None:
    with pytest.raises(ShapeError, match=line):
        ids_of(tokens, 10)


def test_a_chain_is_no_tree() -> None:
    assert tree_of([-1, 0, 1], 3) is None
    assert tree_of([], 0) is None


def test_each_node_knows_the_leaves_below_it() -> None:
    #   0 - 1 - 3
    #     \ 2       4
    tree = tree_of([-1, 0, 0, 1, -1], 5)
    assert tree == Tree(
        (-1, 0, 0, 1, -1), (0, 1, 1, 2, 0), (2, 3, 4), ((1, 2), (2,), (1,), (2,), (3,))
    )
    assert [tree.leaf_below(node) for node in range(5)] == [1, 2, 1, 2, 3]
    assert tree.path([0, 1, 3]) == (0, 1, 3)
    assert tree.path([]) == ()


def test_parents_that_are_none_are_refused() -> None:
    with pytest.raises(ShapeError, match="1 parents for 2 tokens: expected one for each"):
        tree_of([-1], 2)
    with pytest.raises(ShapeError, match="expected each before its child, from -1"):
        tree_of([-1, 1], 2)
    with pytest.raises(ShapeError, match="expected each before its child, from -1"):
        tree_of([-2, 0], 2)
