"""The likeliest text: tokens that end apart, ends that are open, and breaks spelled again."""

from __future__ import annotations

import numpy as np
import pytest
from bridge_worlds import distance, drafts, first_tokens_law, plain_law, world_of

from edgespec.drafters.bridges.exact import ExactBridge
from edgespec.drafters.bridges.healing import Healing
from edgespec.drafters.bridges.retold import Retold

# A drafter that writes a break together with the next line's indentation, a target that writes it
# together with what stands before it.
DRAFT = [b"a", b"{", b"b", b"\n", b"\n  ", b"\n\n"]
TARGET = [b"a", b"{", b"b", b"{\n", b"{\n\n", b"  ", b"\n", b"\n\n"]


class After:
    """A drafter's law that is given by what is read: pieces and their shares, the rest alike."""

    def __init__(self, pieces, rows):
        self.pieces, self.rows, self.asked = pieces, rows, []

    def __call__(self, context):
        read = tuple(self.pieces[token] for token in context)
        self.asked.append(read)
        law = np.full(len(self.pieces), 1e-3)
        for piece, share in self.rows.get(read, {}).items():
            law[self.pieces.index(piece)] = share
        return law / law.sum()


def drafted(rows, prompt, k, *, draft=DRAFT, target=TARGET, ngrams=(), kept=None, eos=False):
    """What is drafted as bytes, the draft, and the drafter's law."""
    kept = None if kept is None else tuple(draft.index(one) for one in kept)
    world = world_of(draft, target, ngrams, prompt=prompt, rows=kept, eos=(eos, eos))
    law = After(world.q.pieces, rows)
    object.__setattr__(world, "q", law)
    bridge = ExactBridge(world.mapping, world.cache)
    ((_, one),) = drafts(world, bridge, world.prompt, k, drawn=False)
    return [world.mapping.target.pieces[token] for token in one.tokens], one, law


INDENTED = {
    (b"a",): {b"{": 0.9},
    (b"a", b"{"): {b"\n  ": 0.8, b"\n": 0.1},
    (b"a", b"{", b"\n  "): {b"b": 0.7},
    (b"a", b"{", b"\n  ", b"b"): {b"a": 0.6},
}


def test_tokens_that_end_apart_are_the_targets_own():
    tokens, draft, _ = drafted(INDENTED, [b"a"], 3)
    assert tokens == [b"{\n", b"  ", b"b"]
    assert len(draft.confidence) == 3
    assert draft.confidence[0] == draft.confidence[1] > draft.confidence[2]  # of the same piece
    assert draft.pieces == ((), (), ())  # nobody is taught where several are several


def test_what_may_become_a_part_of_another_waits_for_a_piece_more():
    tokens, _, law = drafted(INDENTED, [b"a"], 1)
    assert tokens == [b"{\n"]
    assert law.asked[-1] == (b"a", b"{")
    same, _, law = drafted(INDENTED, [b"a"], 1, target=[b"a", b"{", b"b", b"  ", b"\n"])
    assert same == [b"{"]
    assert law.asked[-1] == (b"a",)  # no token of a brace and a break: nothing to wait for


def test_an_ngram_that_goes_on_is_waited_for():
    rows = {(b"a",): {b"{": 0.9}, (b"a", b"{"): {b"b": 0.9}, (b"a", b"{", b"b"): {b"a": 0.9}}
    target = [b"a", b"{", b"b", b"{b"]
    assert drafted(rows, [b"a"], 1, target=target)[0] == [b"{"]
    learned = [((b"{", b"b"), b"{b")]
    assert drafted(rows, [b"a"], 1, target=target, ngrams=learned)[0] == [b"{b"]


def test_a_break_at_the_end_is_spelled_again_with_what_follows():
    tokens, draft, law = drafted(INDENTED, [b"a", b"{\n"], 2)
    assert tokens == [b"  ", b"b"]
    assert (b"a", b"{", b"\n") not in law.asked
    assert draft.confidence == pytest.approx((0.8 / 0.902, 0.8 / 0.902 * 0.7 / 0.705), abs=2e-3)
    assert draft.pieces == ((), (DRAFT.index(b"b"),))


def test_a_break_that_stays_is_read():
    rows = {(b"a", b"{"): {b"\n": 0.9, b"\n  ": 0.1}, (b"a", b"{", b"\n"): {b"b": 0.9}}
    tokens, draft, _ = drafted(rows, [b"a", b"{\n"], 1)
    assert tokens == [b"b"]
    assert draft.pieces == ((DRAFT.index(b"b"),),)


def test_a_break_may_be_spelled_by_several():
    """Two breaks and an indentation are one break and the other with it."""
    rows = {
        (b"a", b"{"): {b"\n": 0.8, b"\n\n": 0.1},
        (b"a", b"{", b"\n"): {b"\n  ": 0.9},
        (b"a", b"{", b"\n", b"\n  "): {b"b": 0.9},
    }
    tokens, draft, _ = drafted(rows, [b"a", b"{\n\n"], 2)
    assert tokens == [b"  ", b"b"]
    assert draft.pieces == ((), ())  # the drafter has read a token more than was counted


def test_what_the_target_would_have_written_in_one_is_passed_over():
    rows = {(b"a", b"{"): {b"\n": 0.9, b"b": 0.05}}
    assert drafted(rows, [b"a", b"{"], 1)[0] == [b"b"]
    apart = [b"a", b"{", b"b", b"\n", b"  "]
    assert drafted(rows, [b"a", b"{"], 1, target=apart)[0] == [b"\n"]


def test_a_break_before_what_cannot_follow_gives_way_to_a_longer_token():
    def rows(share):
        after = {b"\n": share, b"b": 0.99 - share}  # a second break would be in the target's token
        return {(b"a", b"{"): {b"\n": 0.7, b"\n  ": 0.25}, (b"a", b"{", b"\n"): after}

    assert drafted(rows(0.9), [b"a", b"{\n"], 1)[0] == [b"  "]
    assert drafted(rows(0.5), [b"a", b"{\n"], 1)[0] == [b"b"]


def test_a_head_without_what_could_stand_there_drafts_on():
    rows = {(b"a", b"{", b"\n"): {b"b": 0.9}}
    tokens, _, _ = drafted(rows, [b"a", b"{\n"], 1, kept=[b"a", b"b"])
    assert tokens == [b"b"]


def test_a_head_without_anything_to_translate_drafts_nothing():
    draft, target = [b"b", b"{", b"a"], [b"a", b"{"]
    assert drafted({}, [b"a"], 2, draft=draft, target=target, kept=[b"b"])[0] == []


def test_an_end_of_the_text_ends_the_draft():
    rows = {(b"a",): {b"b": 0.9}, (b"a", b"b"): {b"": 0.9}}
    tokens, draft, _ = drafted(rows, [b"a"], 4, eos=True)
    assert tokens == [b"b", b""]
    assert draft.pieces == ((DRAFT.index(b"b"),), (len(DRAFT),))


def test_several_of_the_targets_for_one_piece_are_told_with_the_first():
    rows = {(b"a",): {b"\n\n": 0.9}, (b"a", b"\n\n"): {b"b": 0.9}}
    tokens, draft, _ = drafted(rows, [b"a"], 3, target=[b"a", b"b", b"\n"])
    assert tokens == [b"\n", b"\n", b"b"]
    assert draft.pieces == ((DRAFT.index(b"\n\n"),), (), (DRAFT.index(b"b"),))


@pytest.mark.parametrize("kind", ["flat", "peaked", "text"])
@pytest.mark.parametrize("k", [1, 2])
def test_sampling_keeps_the_law_behind_a_break(kind, k):
    world = world_of(DRAFT[:5], TARGET[:6], prompt=[b"a", b"{\n"], kind=kind)
    bridge = ExactBridge(world.mapping, world.cache)
    assert next(drafts(world, bridge, world.prompt, k))[1].law is None  # spelled again, not drawn
    law = first_tokens_law(world, bridge, k)
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-9)
    assert distance(law, plain_law(world)) < 1e-9


def test_what_is_taken_back():
    healing = Healing(world_of(DRAFT, TARGET).mapping.draft)
    brace, broken, twice = map(DRAFT.index, (b"{", b"\n", b"\n\n"))
    assert healing.taken_back([brace, broken]) == b"\n"
    assert healing.taken_back([brace, twice]) == b"\n\n"
    assert healing.taken_back([broken]) == b""  # nothing is read before it
    assert healing.taken_back([brace]) == b""
    assert np.flatnonzero(healing.able(b"\n")).tolist() == [3, 4, 5]
    assert np.flatnonzero(healing.able(b"\n\n")).tolist() == [3, 5]


def test_nothing_is_taken_back_where_breaks_stand_alone():
    alone = [b"a", b"\n", b"\n\n", b"\r\n", b"  "]
    healing = Healing(world_of(alone, TARGET).mapping.draft)
    assert [healing.taken_back([0, i]) for i in range(len(alone))] == [b""] * len(alone)


def test_pieces_of_the_last_token_begin_where_it_does():
    world = world_of(DRAFT, TARGET, prompt=[b"a"])
    text = Retold(world.mapping, world.prompt)
    for piece in (b"{", b"\n  ", b"b"):
        text.add(DRAFT.index(piece))
    ids = text.following()
    assert text.pieces_of_last(ids) == (DRAFT.index(b"b"),)
    assert text.pieces_of_last(ids[:1]) == ()  # does not end the text, and no piece begins there
