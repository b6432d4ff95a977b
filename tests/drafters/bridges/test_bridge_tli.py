"""Token-level intersection: the law of what is emitted, by enumeration, and what is proposed."""

from __future__ import annotations

import numpy as np
import pytest
from bridge_worlds import (
    Chain,
    LawModel,
    distance,
    drafts,
    first_tokens_law,
    plain_law,
    round_law,
    saying,
    world_of,
    worlds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.decode.follow import Reader
from edgespec.decode.uniforms import Uniforms
from edgespec.drafters.bridges.tli import TliBridge
from edgespec.protocols import Drawing

LETTERS = [b"a", b"b", b"c"]
# Of the drafter's four tokens the target has two, in another order and with others between.
DRAFT, TARGET = [b"ab", b"a", b"bb", b"b"], [b"b", b"aa", b"a"]
IMAGE = [-1, 2, -1, 0]


def bridge_of(world):
    return TliBridge(world.mapping, world.cache)


def one_draft(world, k, law=None, reader=None):
    """The draft after the prompt; with a law one that is drawn."""
    reader = reader or world.reader()
    drawing = None if law is None else Drawing(law, Uniforms(*np.linspace(0.1, 0.9, k)))
    bridge = bridge_of(world)
    return bridge.draft(reader, world.spelled(world.prompt), list(world.prompt), k, drawing)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(worlds(), st.integers(1, 2), st.integers(1, 2))
def test_sampling_keeps_the_targets_law(world, k, n_rounds):
    law = first_tokens_law(world, bridge_of(world), k, n_rounds=n_rounds)
    assert distance(law, plain_law(world)) < 1e-9


@settings(max_examples=10, deadline=None, derandomize=True)
@given(worlds(trimmed=True))
def test_a_trimmed_head_keeps_the_targets_law(world):
    law = first_tokens_law(world, bridge_of(world), 2)
    assert distance(law, plain_law(world)) < 1e-9


@settings(max_examples=25, deadline=None, derandomize=True)
@given(worlds(), st.integers(1, 3))
def test_rows_are_the_laws_that_tokens_were_drawn_from(world, k):
    """What rejection and block verification both rest on; how a draft ends depends on no draw."""
    found, rows = {}, {}
    for share, draft in drafts(world, bridge_of(world), world.prompt, k):
        for n in range(len(draft) + 1):
            found[draft.tokens[:n]] = found.get(draft.tokens[:n], 0.0) + share
            if n < len(draft):
                known = rows.setdefault(draft.tokens[:n], draft.probs[n])
                assert np.array_equal(known, draft.probs[n])
    assert found.pop(()) == pytest.approx(1)
    before = {(): 1.0, **found}
    for tokens, share in found.items():
        assert share == pytest.approx(before[tokens[:-1]] * rows[tokens[:-1]][tokens[-1]])
    for row in rows.values():
        assert row.sum() == pytest.approx(1)
        assert not row[world.mapping.preimage < 0].any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.booleans().flatmap(lambda trimmed: worlds(trimmed=trimmed)), st.integers(1, 4))
def test_greedy_takes_the_likeliest_token_that_both_have(world, k):
    ((_, draft),) = drafts(world, bridge_of(world), world.prompt, k, drawn=False)
    spelled, sure, image = world.spelled(world.prompt), 1.0, world.mapping.image
    rows = np.array(world.rows or range(len(image)))
    for token, confidence in zip(draft.tokens, draft.confidence, strict=True):
        law = world.q(spelled)[rows]
        best = int(np.where(image[rows] >= 0, law, -1).argmax())
        sure *= law[best] / law.sum()
        assert token == image[rows[best]]
        assert confidence == pytest.approx(sure)
        spelled.append(int(rows[best]))
    assert draft.probs is None
    common = rows[image[rows] >= 0]
    assert len(draft) == k or not spelled or not world.q(spelled)[common].any()


def test_the_same_law_over_the_same_vocabulary_is_always_accepted():
    world = world_of(LETTERS, LETTERS, kind="text", seed=5)
    rounds = round_law(world, bridge_of(world), world.prompt, 3)
    refused = sum(share for tokens, share in rounds.items() if len(tokens) < 4)
    assert refused < 1e-6  # the logits are rounded to single precision on the way


def test_a_draft_is_in_the_targets_ids_and_read_in_the_drafters():
    world = world_of(DRAFT, TARGET, prompt=[b"a"])
    assert world.mapping.image.tolist() == IMAGE
    model = LawModel(saying([3, 1, 3], 4), 4)
    draft = one_draft(world, 3, reader=Reader(model))
    assert draft.tokens == (0, 2, 0)
    assert draft.sources == ("model",) * 3
    assert model._tokens == [1, 3, 1]  # the prompt, and all but the last


def test_confidence_counts_what_the_target_cannot_say():
    world = world_of(DRAFT, TARGET, prompt=[b"a"])
    law = saying([0], 4, 0.7)  # for what only the drafter has; 0.1 for each other
    draft = one_draft(world, 2, reader=Reader(LawModel(law, 4)))
    assert draft.confidence == pytest.approx([0.1, 0.01])


def test_the_sampling_chain_sees_the_targets_ids():
    world = world_of(DRAFT, TARGET, prompt=[b"aa", b"a"])
    seen = []

    class Spy(Chain):
        def __call__(self, logits, context):
            seen.append((list(context), np.flatnonzero(logits > -np.inf).tolist()))
            return super().__call__(logits, context)

    draft = one_draft(world, 2, Spy())
    assert seen == [([1, 2], [0, 2]), ([1, 2, draft.tokens[0]], [0, 2])]


def test_a_filter_chooses_among_the_tokens_that_both_have():
    world = world_of(DRAFT, TARGET, prompt=[b"a"])
    law = saying([0], 4, 0.7)
    draft = one_draft(world, 1, Chain(top_k=1, bias=(2, 0.5)), Reader(LawModel(law, 4)))
    assert draft.probs.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("drawn", [False, True])
def test_a_draft_ends_where_no_common_token_is_left(drawn):
    world = world_of(DRAFT, TARGET, prompt=[b"a"])
    reader = Reader(LawModel(saying([3, 0], 4), 4))
    draft = one_draft(world, 4, Chain() if drawn else None, reader)
    assert draft.tokens == (0,)


def test_what_was_left_before_does_not_count():
    """The lifted logits are kept from row to row."""
    world = world_of(DRAFT, TARGET, prompt=[b"a"])
    reader = Reader(LawModel(saying([3, 1], 4), 4))
    assert one_draft(world, 2, Chain(), reader).probs.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("drawn", [False, True])
def test_vocabularies_with_nothing_in_common_give_no_drafts(drawn):
    world = world_of([b"a", b"b"], [b"aa", b"bb", b"ab"], prompt=[b"ab"])
    assert len(one_draft(world, 3, Chain() if drawn else None)) == 0


@pytest.mark.parametrize("drawn", [False, True])
def test_the_drafters_context_bounds_the_draft(drawn):
    world = world_of(LETTERS, LETTERS, prompt=[b"a", b"b"])
    reader = world.reader()
    for n_context, n_drafted in ((5, 4), (3, 2), (2, 1), (1, 0)):
        reader.model.n_context = n_context
        law = Chain() if drawn else None
        assert len(one_draft(world, 4, law, reader)) == n_drafted


def test_a_trimmed_head_proposes_what_it_has_rows_for():
    world = world_of(LETTERS, [b"c", b"b", b"a"], rows=(2, 0), seed=2)
    q = world.q(world.spelled(world.prompt))[[2, 0]]
    for share, draft in drafts(world, bridge_of(world), world.prompt, 1):
        assert draft.probs[0] == pytest.approx([q[0] / q.sum(), 0, q[1] / q.sum()], rel=1e-6)
        assert share == pytest.approx(draft.probs[0, draft.tokens[0]])
