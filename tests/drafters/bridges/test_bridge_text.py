"""The round trip through text: what is proposed, and that the target's law is kept."""

from __future__ import annotations

import pytest
from bridge_worlds import (
    LawModel,
    PieceTokenizer,
    distance,
    drafts,
    first_tokens_law,
    plain_law,
    saying,
    world_of,
    worlds,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.decode.follow import Reader
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.drafters.bridges.retold import LOOK_BEHIND, Retold
from edgespec.drafters.bridges.text import MAX_PIECES, TextBridge
from edgespec.text.vocabulary import Vocabulary

LETTERS = [b"a", b"b", b"c"]


def bridge_of(world):
    return TextBridge(world.mapping, world.cache)


class Two:
    """Two vocabularies named by their pieces, b"" for the end of the text."""

    def __init__(self, draft, target, *, spaces=(False, False)):
        eos = b"" in draft, b"" in target
        self.draft, self.target = ([p for p in pieces if p] for pieces in (draft, target))
        tokenizers = (
            PieceTokenizer(pieces, eos=ends, adds_space=adds)
            for pieces, ends, adds in zip((self.draft, self.target), eos, spaces, strict=True)
        )
        self.mapping = Mapping(*(Vocabulary(one, len(one.pieces)) for one in tokenizers))
        self.model = None

    def drafted(self, context, said, k, *, share=1.0):
        """The draft after a context of the target's pieces when the drafter says these."""
        ids = [self.mapping.draft.pieces.index(piece) for piece in said]
        n_vocab = self.mapping.draft.n_vocab
        self.model = LawModel(saying(ids, n_vocab, share), n_vocab)
        before = [self.mapping.target.pieces.index(piece) for piece in context]
        bridge = TextBridge(self.mapping, NgramCache())
        return bridge.draft(Reader(self.model), [0], before, k, None)

    def proposed(self, *given):
        """The same as the target's pieces."""
        draft = self.drafted(*given)
        return [self.mapping.target.pieces[token] for token in draft.tokens]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(worlds(), st.integers(1, 2), st.integers(1, 2))
def test_sampling_keeps_the_targets_law(world, k, n_rounds):
    law = first_tokens_law(world, bridge_of(world), k, n_rounds=n_rounds)
    assert distance(law, plain_law(world)) < 1e-9


@settings(max_examples=10, deadline=None, derandomize=True)
@given(worlds(trimmed=True))
def test_a_trimmed_head_keeps_the_targets_law(world):
    law = first_tokens_law(world, bridge_of(world), 1, 2)
    assert distance(law, plain_law(world, 2)) < 1e-9


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.booleans().flatmap(lambda trimmed: worlds(trimmed=trimmed)), st.integers(1, 4))
def test_a_draft_spells_what_the_drafter_says(world, k):
    """The likeliest, sampling or not, as far as the target has the letters."""
    ((_, draft),) = drafts(world, bridge_of(world), world.prompt, k, drawn=False)
    assert list(drafts(world, bridge_of(world), world.prompt, k)) == [(1.0, draft)]
    spelled, pieces = world.spelled(world.prompt), world.mapping.draft.pieces
    rows = list(world.rows or range(len(pieces)))
    text, sure, covered = b"", 1.0, []
    for _ in range(MAX_PIECES * k if spelled else 0):
        law = world.q(spelled)[rows]
        spelled.append(rows[int(law.argmax())])
        text += pieces[spelled[-1]] or b"\0"
        sure *= law.max() / law.sum()
        covered.append((len(text), sure))
    end = 0
    for token, confidence in zip(draft.tokens, draft.confidence, strict=True):
        piece = world.mapping.target.pieces[token] or b"\0"
        assert text[end : end + len(piece)] == piece
        end += len(piece)
        assert confidence == pytest.approx(next(s for n, s in covered if n >= end))
    assert not draft.is_drawn


@pytest.mark.parametrize(
    ("context", "said", "k", "expected"),
    [
        ("x", ["f", "la", "ke"], 1, ["f"]),  # the target's one token covers k = 1
        ("x", ["f", "la", "ke"], 2, ["f", "la"]),
        ("x", ["f", "la", "ke"], 3, ["flake", "f", "la"]),
        ("x", ["flakes", "x"], 3, ["flake", "s", "x"]),
        ("x", ["flakes", "x"], 2, ["flake", "s"]),
        ("f", ["la", "ke", "x"], 2, ["la", "ke"]),  # "flake" would reach over the context's end
        (["f", "la"], ["ke", "s"], 2, ["ke", "s"]),
        # Of x x s the target now makes xx s, in which the context's first x seems to come last.
        (["x", "x"], ["s", "x"], 2, ["s", "x"]),
        (["x", "f", "la", "ke"], ["s", "f", "x"], 3, ["s", "f", "x"]),  # "flake" when read again
    ],
)
def test_what_follows_is_read_together_with_the_end_of_the_context(context, said, k, expected):
    two = Two(
        [b"f", b"la", b"ke", b"flakes", b"x", b"s"],
        [b"flake", b"f", b"la", b"ke", b"s", b"x", b"xx"],
    )
    found = two.proposed([c.encode() for c in context], [s.encode() for s in said], k)
    expected = [piece.encode() for piece in expected]
    assert found[: len(expected)] == expected
    assert len(found) <= k


def test_what_follows_depends_on_what_it_follows():
    """As where digits are grouped from the left: here b after x is another token."""
    two = Two([b"x", b"b"], [b"x", b"b", b"b"])
    tokenizer = two.mapping.target.tokenizer
    alone = tokenizer.encode

    def encode(text, **options):
        ids = alone(text, **options)
        return [2 if i and ids[i - 1 : i + 1] == [0, 1] else token for i, token in enumerate(ids)]

    tokenizer.encode = encode
    assert two.drafted([b"x"], [b"b", b"b"], 2).tokens == (2, 1)
    assert two.drafted([b"b"], [b"b", b"x"], 2).tokens == (1, 0)


def test_no_more_pieces_are_drafted_than_the_tokens_take():
    two = Two([b"f", b"la", b"ke", b"flakes", b"x", b"s"], [b"flake", b"s", b"x", b"f"])
    two.drafted([b"x"], [b"flakes", b"x"], 2)
    assert two.model.length == 1  # two tokens by one piece, which needs no reading
    two.drafted([b"x"], [b"x", b"s", b"x"], 3)
    assert two.model.length == 3


def test_a_run_that_stays_one_token_ends_the_draft():
    two = Two([b"x"], [b"x" * n for n in range(1, 40)])
    draft = two.drafted([b"x"], [b"x"], 2)
    assert two.model.length == MAX_PIECES * 2
    assert draft.tokens == (MAX_PIECES * 2 - 1,)


CHARACTERS = ["é".encode(), b"\xc3", b"\xa9", b"x", b"\xe2\x82\xac"]


def test_a_character_cut_in_half_is_not_proposed():
    two = Two([b"\xc3", b"\xa9", b"x"], CHARACTERS)
    assert two.proposed([b"x"], [b"x", b"\xc3"], 2)[:1] == [b"x"]
    assert two.proposed([b"x"], [b"\xc3", b"\xa9", b"x"], 1) == ["é".encode()]
    two.model.n_context = 1
    bridge, reader = TextBridge(two.mapping, NgramCache()), Reader(two.model)
    assert len(bridge.draft(reader, [0], [3], 1, None)) == 0


def test_a_character_that_the_context_has_begun_is_finished_in_its_way():
    two = Two([b"\xc3", b"\xa9", b"x"], CHARACTERS)
    assert two.proposed([b"x", b"\xc3"], [b"\xa9", b"x"], 2) == [b"\xa9", b"x"]


def test_the_window_begins_with_a_whole_character():
    two = Two([b"x"], [*CHARACTERS, b"\x82", b"\xac", b"\xe2"])
    context = [b"\xe2", b"\x82", b"\xac", *[b"x"] * (LOOK_BEHIND - 2)]
    ids = [two.mapping.target.pieces.index(piece) for piece in context]
    window = Retold(two.mapping, ids)
    window.add(0)
    assert window._behind == b"x" * (LOOK_BEHIND - 2)
    assert window.following() == [3]


def test_an_end_of_text_crosses_and_ends_the_draft():
    two = Two([b"a", b"b", b""], [b"ab", b"a", b""])
    assert two.proposed([b"a"], [b"a", b"b", b"", b"a"], 4) == [b"ab", b""]
    draft = two.drafted([b"a"], [b"a", b"b", b"", b"a"], 4, share=0.8)
    assert draft.confidence == pytest.approx([0.64, 0.512])
    assert two.model.length == 3  # nothing is drafted after it


def test_an_end_of_text_after_what_the_target_cannot_write_is_not_proposed():
    two = Two([b"a", b"\xc3", b""], [b"a", b"\xc3", b""])
    assert two.proposed([b"a"], [b"a", b"\xc3", b""], 4) == [b"a"]


def test_an_end_of_text_without_a_counterpart_only_ends_the_draft():
    two = Two([b"a", b"b", b""], [b"ab", b"a"])
    assert two.proposed([b"a"], [b"a", b"b", b"", b"a"], 4) == [b"ab"]


def test_what_comes_before_a_letter_that_the_target_lacks_is_proposed():
    two = Two([b"a", b"z"], [b"a", b"b"])
    assert two.proposed([b"b"], [b"a", b"a", b"z", b"a"], 4) == [b"a", b"a"]
    assert two.proposed([b"b"], [b"a", b"z", b"a"], 2) == [b"a"]
    assert two.proposed([b"b"], [b"z", b"a"], 4) == []


SPACED, BARE = [b"", b" a", b"a", b" ", b"b", b" b"], [b"", b"a", b"b", b" b", b" "]


@pytest.mark.parametrize(
    ("spaces", "context", "expected"),
    [
        # At the start of a text the drafter's first space is none.
        ((True, True), b"", [b" a", b" b"]),
        ((True, False), b"", [b"a", b" b"]),
        ((False, True), b"", [b" ", b" a", b" b"]),  # it meant the space, and one more is added
        ((True, True), b"b", [b" a", b" b"]),
        ((True, False), b"b", [b" ", b"a", b" b"]),
    ],
)
def test_a_space_that_a_vocabulary_adds_is_not_text(spaces, context, expected):
    two = Two(SPACED, SPACED if spaces[1] else BARE, spaces=spaces)
    draft = two.drafted([context], [b" a", b" b"], len(expected), share=0.8)
    assert [two.mapping.target.pieces[token] for token in draft.tokens] == expected
    n_pieces = [1] * (len(expected) - 1) + [2]
    assert draft.confidence == pytest.approx([0.8**n for n in n_pieces])


def test_the_drafters_context_bounds_the_draft():
    world = world_of(LETTERS, LETTERS, prompt=[b"a", b"b"])
    reader = world.reader()
    for n_context, n_drafted in ((5, 4), (3, 2), (2, 1), (1, 0)):
        reader.model.n_context = n_context
        draft = bridge_of(world).draft(reader, [0, 1], world.prompt, 4, None)
        assert len(draft) == n_drafted
        assert draft.sources == ("model",) * n_drafted
