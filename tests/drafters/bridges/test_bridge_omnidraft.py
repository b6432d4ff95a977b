"""OmniDraft as published: what is proposed, equation 2, and how far it is from lossless."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from bridge_worlds import (
    Chain,
    LawModel,
    branches,
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
from edgespec.drafters.bridges.omnidraft import OmniDraftBridge
from edgespec.drafters.bridges.pieces import Pieces
from edgespec.protocols import Drawing

DRAFT = [b"a", b"b", b"c", b"ab", b"x"]  # x is the drafter's alone
TARGET = [b"c", b"b", b"a", b"ab", b"bc", b"abc", b"cab"]
NGRAMS = [
    ((b"a", b"b"), b"ab"),
    ((b"a", b"b", b"c"), b"abc"),
    ((b"b", b"c"), b"bc"),
    ((b"c", b"a", b"b"), b"cab"),
]


def bridge_of(world):
    return OmniDraftBridge(world.mapping, world.cache)


def tried(said, k, *, share=1.0, drawn=False, ngrams=NGRAMS, n_context=64):
    """The draft when the drafter says these pieces, and how many of them it was asked for."""
    world = world_of(DRAFT, TARGET, ngrams, prompt=[b"a"])
    law = saying([DRAFT.index(bytes([c])) for c in said.encode()], len(DRAFT), share)
    model = LawModel(law, len(DRAFT))
    model.n_context = n_context
    drawing = Drawing(Chain(), Uniforms(*[0.5] * 99)) if drawn else None
    draft = bridge_of(world).draft(Reader(model), [0], world.prompt, k, drawing)
    return draft, model.length


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize(
    ("said", "k", "expected", "n_said"),
    [
        ("bac", 1, "b", 2),  # b may go on as bc
        ("abab", 1, "ab", 3),  # ab may go on as abc
        ("abcb", 1, "abc", 3),  # abc may not
        ("cabcc", 2, "cab c", 5),  # from left to right: not c abc
        ("cabcx", 3, "cab c", 5),
        ("ccabab", 2, "c cab", 4),
        ("bcbcbc", 3, "bc bc bc", 6),
        ("axbb", 3, "a", 2),  # x has no image and begins nothing
        ("xab", 2, "", 1),
        ("caxa", 3, "c a", 3),
    ],
)
def test_pieces_are_translated_by_the_longest_match(said, k, expected, n_said, drawn):
    draft, n = tried(said, k, drawn=drawn)
    assert [TARGET[token].decode() for token in draft.tokens] == expected.split()
    assert n == n_said
    assert draft.sources == ("model",) * len(draft)


def test_no_more_is_said_than_fits_the_drafters_context():
    for n_context, expected in ((1, "a"), (2, "ab"), (3, "abc"), (4, "abc b")):
        draft, _ = tried("abcbb", 4, n_context=n_context)
        assert [TARGET[token].decode() for token in draft.tokens] == expected.split()
    assert len(tried("abcbb", 4, n_context=0)[0]) == 0


def test_the_longest_ngrams_are_followed_to_their_ends():
    longest = [((b"a",) * n, b"a" * n) for n in range(2, 9)]
    pieces = [b"a" * n for n in range(1, 9)]
    world = world_of([b"a", b"b"], [*pieces, b"b"], longest, prompt=[b"b"])
    reader = Reader(LawModel(saying([0], 2), 2))
    draft = bridge_of(world).draft(reader, [0], world.prompt, 3, None)
    assert draft.tokens == (7, 7, 7)
    assert reader.model.length == 3 * 8


def test_confidence_is_the_drafters_for_all_pieces_so_far():
    draft, _ = tried("abcbb", 2, share=0.6)
    assert draft.confidence == pytest.approx([0.6**3, 0.6**4])
    assert draft.probs is None


def test_a_piece_without_image_may_begin_an_ngram():
    draft = tried("xab", 2, ngrams=[((b"x", b"a"), b"cab")])[0]
    assert [TARGET[token] for token in draft.tokens] == [b"cab", b"b"]


def test_equation_2_moves_an_ngrams_share_from_its_first_piece():
    """Shares of a, b, c, ab, x are .8 for what is said and .05 for all others."""
    draft, _ = tried("abcb", 1, share=0.8, drawn=True)
    assert [TARGET[token] for token in draft.tokens] == [b"abc"]
    share = 0.8**3
    # c, b, a less the n-gram, ab, bc which was not drawn, abc, cab
    expected = [0.05, 0.05, 0.8 - share, 0.05, 0, share, 0]
    assert draft.probs[0] == pytest.approx(expected)


def test_equation_2_takes_an_ngram_over_the_drafters_own_token_for_it():
    draft, _ = tried("abab", 1, share=0.8, drawn=True)
    assert [TARGET[token] for token in draft.tokens] == [b"ab"]
    assert draft.probs[0] == pytest.approx([0.05, 0.05, 0.8 - 0.64, 0.64, 0, 0, 0])


def test_equation_2_leaves_a_single_piece_its_share():
    draft, _ = tried("ccc", 2, share=0.8, drawn=True, ngrams=[])
    assert draft.probs[0] == pytest.approx([0.8, 0.05, 0.05, 0.05, 0, 0, 0])
    assert draft.probs[1] == pytest.approx([0.8, 0.05, 0.05, 0.05, 0, 0, 0])


def test_equation_2_for_an_ngram_whose_first_piece_has_no_image():
    world = world_of([b"x", b"a"], [b"xa", b"a"], [((b"x", b"a"), b"xa")], prompt=[b"a"])
    reader = Reader(LawModel(saying([0, 1], 2, 0.8), 2))
    drawing = Drawing(Chain(), Uniforms(0.5, 0.5))
    draft = bridge_of(world).draft(reader, [1], world.prompt, 1, drawing)
    assert draft.tokens == (0,)
    assert draft.probs[0] == pytest.approx([0.64, 0.2])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(worlds())
def test_pieces_are_drawn_by_the_drafters_own_law(world):
    spelled, preimage = world.spelled(world.prompt), world.mapping.preimage
    law = world.chain.translated(preimage)

    def run(chances):
        pieces = Pieces(world.reader(), spelled, Drawing(world.chain, chances), preimage)
        return [pieces.say(), pieces.say()], pieces

    for share, (ids, pieces) in branches(run) if spelled else ():
        assert pieces.ids == ids
        assert share == pytest.approx(pieces.shares[0] * pieces.shares[1])
        for n, (piece, row) in enumerate(zip(ids, pieces.rows, strict=True)):
            before = spelled + ids[:n]
            with np.errstate(divide="ignore"):
                assert row == pytest.approx(law(np.log(world.q(before)), before))
            assert pieces.shares[n] == row[piece]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(worlds(), st.integers(1, 3))
def test_matching_keeps_the_targets_law(world, k):
    """Greedy, or with a seed: the draft is verified by equality."""
    law = first_tokens_law(world, bridge_of(world), k, drawn=False)
    assert distance(law, plain_law(world)) < 1e-9


@settings(max_examples=15, deadline=None, derandomize=True)
@given(worlds(trimmed=True), st.integers(1, 2))
def test_drawn_tokens_have_a_chance_in_their_rows(world, k):
    for _, draft in drafts(world, bridge_of(world), world.prompt, k):
        for token, row in zip(draft.tokens, draft.probs if draft else (), strict=True):
            assert 0 < row[token] <= 1
            assert row.min() >= 0


def test_a_trimmed_head_says_what_it_has_rows_for():
    world = world_of(DRAFT, TARGET, NGRAMS, prompt=[b"a"])
    model = LawModel(saying([1, 2, 0], len(DRAFT), 0.8), len(DRAFT), [2, 0, 1])
    draft = bridge_of(world).draft(Reader(model), [0], world.prompt, 1, None)
    assert [TARGET[token] for token in draft.tokens] == [b"bc"]
    assert draft.confidence == pytest.approx([(0.8 / 0.9) ** 2])  # of the rows it has


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 999), st.sampled_from(["flat", "zeros", "peaked", "text"]))
def test_sampling_is_exact_where_every_token_has_an_image_and_the_cache_is_empty(seed, kind):
    world = world_of(DRAFT[:4], TARGET, kind=kind, seed=seed, chain=Chain(top_k=3, penalty=0.5))
    law = first_tokens_law(world, bridge_of(world), 2)
    assert distance(law, plain_law(world)) < 1e-9


def test_the_same_law_over_the_same_vocabulary_is_always_accepted():
    world = world_of(DRAFT, DRAFT, kind="text", seed=5)
    rounds = round_law(world, bridge_of(world), world.prompt, 3)
    assert sum(share for tokens, share in rounds.items() if len(tokens) < 4) < 1e-9


def errors_of(kind, n_worlds, k):
    """Total variation of the first three tokens in small worlds with two n-grams."""
    letters = [b"a", b"b", b"c"]
    ngrams = [((b"a", b"b"), b"ab"), ((b"b", b"c"), b"bc")]
    target = [*letters, b"ab", b"ac", b"bc"]
    made = (world_of(letters, target, ngrams, kind=kind, seed=seed) for seed in range(n_worlds))
    return [distance(first_tokens_law(w, bridge_of(w), k), plain_law(w)) for w in made]


@pytest.mark.parametrize(("kind", "mean", "most"), [("flat", 0.10, 0.25), ("peaked", 0.01, 0.03)])
def test_sampling_is_not_lossless_and_this_is_by_how_much(kind, mean, most):
    """The figures in the module's docstring."""
    assert not OmniDraftBridge.lossless
    errors = errors_of(kind, 25, 1)
    assert statistics.mean(errors) == pytest.approx(mean, rel=0.1)
    assert max(errors) == pytest.approx(most, rel=0.1)
