"""A draft model that drafts for several texts: what it drafts for one, it drafts alone."""

from __future__ import annotations

import pytest
from table_texts import TableShared, law_of

from edgespec.backends.fake import TableModel
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.together import Together, Wish
from edgespec.drafters.window import FEW, PART

TABLE = law_of(3)
FIRST = (1e-3, 1.5e-3, 1.6e-3)
TEXTS = [[1, 2, 3], [4], [5, 6, 7, 0, 1]]


def wish(who: int, k: int, *, context=None, pays=lambda confidence: True) -> Wish:
    return Wish(who, TEXTS[who] if context is None else context, k, None, pays)


def alone(context, k):
    return ModelDrafter(TableModel(TABLE, 8, 256)).draft(context, k)


def test_drafts_are_those_of_each_alone_by_as_many_passes_as_the_longest():
    shared = TableShared(TABLE, 3)
    drafts = Together(shared, FIRST).drafts([wish(0, 4), wish(2, 2), wish(1, 5)])
    for draft, who, k in zip(drafts, (0, 2, 1), (4, 2, 5), strict=True):
        expected = alone(TEXTS[who], k)
        assert draft.tokens == expected.tokens and draft.sources == expected.sources
        assert draft.confidence == pytest.approx(expected.confidence)
    assert list(map(len, shared.rows)) == [3, 3, 2, 2, 1]


def test_only_what_is_new_is_read():
    shared = TableShared(TABLE, 3)
    together = Together(shared, FIRST)
    first = together.drafts([wish(0, 3)])[0]
    context = [*TEXTS[0], *first.tokens[:2], 6]
    assert together.n_unread(0, context) == 1
    assert together.drafts([wish(0, 3, context=context)])[0].tokens == alone(context, 3).tokens
    assert shared.sequences[0].length == len(context) + 2


def test_a_draft_ends_where_no_more_pays():
    drafts = Together(TableShared(TABLE, 3), FIRST).drafts(
        [wish(0, 5, pays=lambda confidence: len(confidence) < 2), wish(1, 5)]
    )
    assert list(map(len, drafts)) == [2, 5]


def test_a_long_text_is_read_in_parts_while_others_draft():
    shared = TableShared(TABLE, 2, n_batch=256)
    together = Together(shared, FIRST)
    long = [1, 2, 3, 4] * 40
    n_read = 0
    for _ in range(9):
        n_before = together.n_unread(0, long)
        mine, other = together.drafts([wish(0, 2, context=long), wish(1, 2)])
        assert len(other) == 2
        if len(mine):
            break
        n_read = n_before - together.n_unread(0, long)
        assert 0 < n_read <= PART
    assert mine.tokens == alone(long, 2).tokens
    assert n_before <= FEW


def test_times_of_passes_are_kept_by_how_many_draft():
    together = Together(TableShared(TABLE, 3, token_s=2e-3), FIRST)
    assert together.step_s(3) == 1.6e-3
    for _ in range(3):
        together.drafts([wish(0, 6), wish(1, 6), wish(2, 6)])
    assert together.step_s(3) > 5e-3
    assert (together.step_s(1), together.step_s(2)) == FIRST[:2]
    assert together.read_s(10) == pytest.approx(10 * together.read_s(1))
    assert together.read_s(9) > 5e-3
