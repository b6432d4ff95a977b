"""Labels: the likeliest tokens of a target in a drafter's columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.adapt.labels import in_columns, labels, mapped, only_pieces
from edgespec.errors import ShapeError


def test_tokens_of_one_column_add_up_and_others_go_to_the_tail():
    law = np.array([[0.4, 0.3, 0.2, 0.06, 0.04]])
    found = mapped(np.log(law), np.array([7, -1, 2, 7, 2]), kept=4)
    assert found.ids.tolist() == [[7, 2, -1, -1]]
    assert found.probs[0] == pytest.approx([0.46, 0.2, 0, 0])
    assert found.mass[0] == pytest.approx(0.66)
    assert labels(found.ids, found.probs).tail[0] == pytest.approx(0.34)


def test_what_is_missing_to_one_stays_missing():
    found = in_columns(np.array([[7, -1, 2, 7]]), np.float32([[0.4, 0.2, 0.1, 0.05]]))
    assert found.ids.tolist() == [[7, 2, -1, -1]]
    assert found.probs[0] == pytest.approx([0.45, 0.1, 0, 0])
    assert labels(found.ids, found.probs).tail[0] == pytest.approx(0.45)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 64), st.integers(0, 10**6))
def test_labels_are_the_targets_law_where_it_maps(n_vocab, kept, seed):
    rng = np.random.default_rng(seed)
    logits, row_of = 3 * rng.standard_normal((2, n_vocab)), rng.integers(-1, 9, n_vocab)
    found = mapped(logits, row_of, kept=kept)
    for line, ids, probs in zip(logits, found.ids, found.probs, strict=True):
        law, used = np.exp(line) / np.exp(line).sum(), ids[ids >= 0]
        top = np.argsort(-law)[:kept]
        sums = {c: law[top[row_of[top] == c]].sum() for c in set(row_of[top]) - {-1}}
        assert dict(zip(used.tolist(), probs, strict=False)) == pytest.approx(sums, abs=1e-6)
        assert (np.diff(probs) <= 0).all() and not probs[ids < 0].any()


def test_a_map_of_another_vocabulary_is_refused():
    with pytest.raises(ShapeError, match=r"\(1, 3\): expected \[m, 2\]"):
        mapped(np.zeros((1, 3)), np.zeros(2, int))
    with pytest.raises(ShapeError, match=r"expected \[m, K\] twice"):
        labels(np.zeros((2, 3), int), np.zeros((2, 4)))


def test_a_piece_has_no_law():
    given = only_pieces(np.array([4, -1]))
    assert given.tail.tolist() == [1, 1] and given.piece.tolist() == [4, -1] and len(given) == 2
