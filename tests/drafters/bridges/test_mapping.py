"""Which tokens of two vocabularies mean the same, and what the others are split into."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_maker import GreedyTokenizer, vocabularies, vocabulary

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.drafters.bridges.coverage import Shares, coverage
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.text.vocabulary import Vocabulary

DEMO = Path(__file__).resolve().parents[3] / "models" / "demo"
BOS, EOS, END, WORD = 256, 257, 258, 259  # as `vocabulary` numbers them


@settings(max_examples=40, deadline=None)
@given(vocabularies(), vocabularies())
def test_images_spell_the_same_and_no_two_are_one(draft, target):
    mapping = Mapping(draft, target)
    pairs = [(d, int(t)) for d, t in enumerate(mapping.image) if t >= 0]
    assert pairs == sorted((int(d), t) for t, d in enumerate(mapping.preimage) if d >= 0)
    roles = set()
    for d, t in pairs:
        assert draft.pieces[d] == target.pieces[t]
        if draft.pieces[d]:
            assert (draft.by_bytes[draft.pieces[d]], target.by_bytes[draft.pieces[d]]) == (d, t)
        else:
            assert draft.is_control(d)
            assert target.is_control(t)
            roles.add((d, t))
    names = draft.roles.keys() & target.roles.keys()
    same = {(draft.roles[name], target.roles[name]) for name in names}
    assert roles <= same
    if "end_of_turn" in names:
        assert mapping.image[draft.roles["end_of_turn"]] == target.roles["end_of_turn"]
    if len(same) == 3:
        assert len(roles) == min(len(set(side.roles.values())) for side in (draft, target))
    expected = set(draft.by_bytes) & set(target.by_bytes)
    assert expected == {draft.pieces[d] for d, _ in pairs} - {b""}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(vocabularies(), vocabularies())
def test_splits_are_what_the_target_writes(draft, target):
    mapping = Mapping(draft, target)
    splits, ids = mapping.splits, mapping.split_ids.tolist()
    assert splits == sorted(set(splits))
    assert len(ids) == len(splits) == len(set(ids))
    for token, parts in zip(ids, splits, strict=True):
        assert 2 <= len(parts) <= 8
        assert mapping.image[token] < 0
        assert target.spelling(parts) == draft.pieces[token]
        assert list(parts) == target.encode(draft.pieces[token])
        assert mapping.split_of(token) == parts
    for token in set(range(draft.n_vocab)) - set(ids):
        assert mapping.split_of(token) is None


def test_what_is_split_and_what_is_not():
    words = ["ab", "abcdefgh", "abcdefghi", "語", "é!", b"\xe8\xaa", b"a\xe8", "\n\n"]
    mapping = Mapping(vocabulary(*words), vocabulary("bc"))
    spelled = [mapping.draft.pieces[token] for token in sorted(mapping.split_ids.tolist())]
    # Not what takes more than eight, is no whole character, or is bytes of one character alone.
    assert spelled == [b"ab", b"abcdefgh", b"abcdefghi", "é!".encode(), b"\n\n"]
    assert mapping.split_of(WORD + 1) == (0x61, WORD, *b"defgh")
    assert Mapping(vocabulary("abcdefghij"), vocabulary("bc")).splits == []


@pytest.mark.parametrize("merged", [False, True])
def test_where_one_token_ends_turn_and_text_it_crosses_as_the_end_of_a_turn(merged):
    one = Vocabulary(GreedyTokenizer([b"a", b""], control={1: "</s>"}, eos=1), 2)
    two = vocabulary()
    mapping = Mapping(one, two) if merged else Mapping(two, one)
    if merged:
        assert mapping.image.tolist() == [0x61, END]
        assert mapping.preimage[EOS] == -1
    else:
        assert mapping.image[[EOS, END]].tolist() == [-1, 1]
        assert mapping.preimage.tolist() == [0x61, END]


def test_a_control_token_does_not_cross_to_one_that_spells():
    text = Vocabulary(GreedyTokenizer([b"a", b"</s>"], eos=1), 2)
    mapping = Mapping(text, vocabulary("</s>"))
    assert mapping.image.tolist() == [0x61, WORD]  # as what it spells
    assert mapping.preimage[EOS] == -1


def test_control_tokens_do_not_cross_by_their_spelling():
    control = {1: "<x>", 2: "<y>"}
    ours = Vocabulary(GreedyTokenizer([b"a", b"", b""], control=control), 3)
    assert Mapping(ours, ours).image.tolist() == [0, -1, -1]


def test_a_vocabulary_maps_to_itself():
    demo = LlamaCppTokenizer.open(DEMO / "target.gguf")
    side = Vocabulary(demo, demo.n_vocab)
    mapping = Mapping(side, side)
    for token, image in enumerate(mapping.image):
        assert image == token or (image == -1 and side.by_bytes.get(side.pieces[token]) != token)
    assert mapping.splits == []


def test_coverage_counts_ways_and_habits():
    draft, target = vocabulary("abc", " d", "xyz"), vocabulary("ab", " de", "xy")
    mapping = Mapping(draft, target)
    # The target's: ab c " de" " " xy z !; the drafter's: abc " d" e " " xyz !
    text = b"abc de xyz!"
    assert [target.pieces[i] for i in target.encode(text)] == [
        b"ab", b"c", b" de", b" ", b"xy", b"z", b"!",
    ]  # fmt: skip
    found = coverage(mapping, [text], [])
    assert found.n_tokens == 7
    # Whatever is one byte has an image; "ab c" and "xy z" are splits.
    assert found.possible == Shares(4 / 7, 4 / 7, 6 / 7)
    assert found.natural == Shares(2 / 7, 2 / 7, 6 / 7)
    found = coverage(mapping, [text], {WORD + 1})
    assert found.possible == Shares(4 / 7, 5 / 7, 7 / 7)
    assert found.natural == Shares(2 / 7, 3 / 7, 7 / 7)
    assert found.draft == found.target == 256 / 259
    assert coverage(mapping, [], []).possible == Shares(0, 0, 0)
    added = Mapping(vocabulary(" hi", adds_space=True), vocabulary("hi"))
    assert coverage(added, [b"hi"], []).natural == Shares(0, 0, 0)  # it would say " hi"


@settings(max_examples=30, deadline=None)
@given(vocabularies(), vocabularies(), st.lists(st.text("ab é語\n", max_size=12), max_size=3))
def test_coverage_is_a_share_and_grows_with_the_cache(draft, target, texts):
    mapping = Mapping(draft, target)
    texts = [text.encode() for text in texts]
    before = coverage(mapping, texts, [])
    after = coverage(mapping, texts, range(target.n_vocab))
    for one in (before, after):
        for shares in (one.possible, one.natural):
            assert 0 <= shares.direct <= shares.cached <= shares.split <= 1 + 1e-9
    assert before.possible.direct == before.possible.cached == after.possible.direct
    assert after.possible.split >= before.possible.split
    assert after.natural.split >= before.natural.split
    assert after.possible.cached == pytest.approx(float(before.n_tokens > 0))
    own = coverage(Mapping(draft, draft), texts, [])
    if len(draft.by_bytes) == sum(map(bool, draft.pieces)):  # of two equal ones one has an image
        assert own.natural.direct == pytest.approx(float(own.n_tokens > 0))
