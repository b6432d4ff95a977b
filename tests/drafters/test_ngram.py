"""Prompt lookup against brute force: matches, SuffixDecoding's score, forgetting, new contexts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.drafters.ngram import NgramDrafter, Trust, tally
from edgespec.drafters.suffix import BREAK, SuffixIndex
from edgespec.types import Draft, Round, Verdict

DONE = Verdict((0,), (), 0)
ids = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def followed(drafter: NgramDrafter, context: list[int]) -> None:
    drafter.observe(Round(context, Draft(), DONE))


def places_of(tokens: list[int], depth: int) -> set[int]:
    """Earlier places that end with the last `depth` tokens, by looking everywhere."""
    tail = tokens[len(tokens) - depth :]
    return {i for i in range(depth - 1, len(tokens) - 1) if tokens[i + 1 - depth : i + 1] == tail}


@settings(max_examples=60, deadline=None)
@given(ids)
def test_matches_are_all_earlier_places_by_length(tokens: list[int]):
    index = SuffixIndex(1000)
    index.extend(tokens)
    found = {depth: set(places) for places, depth in index.matches(64, 1000)}
    expected = {}
    for depth in range(1, len(tokens)):
        places = places_of(tokens, depth)
        if places and places != places_of(tokens, depth + 1):
            expected[depth] = places
    assert found == expected
    assert list(found) == sorted(found, reverse=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(ids, min_size=1, max_size=4), st.integers(20, 60))
def test_matches_stay_within_texts_and_within_memory(texts: list[list[int]], max_tokens: int):
    index = SuffixIndex(max_tokens)
    for text in texts:
        index.begin(text)
    assert len(index.tokens) <= max_tokens + 1
    assert index.tokens == [t for text in texts for t in (BREAK, *text)][-len(index.tokens) :]
    for places, depth in index.matches(64, 1000):
        tail = index.tokens[len(index.tokens) - depth :]
        assert BREAK not in tail
        assert all(index.tokens[place + 1 - depth : place + 1] == tail for place in places)


def test_forgotten_tokens_leave_no_keys():
    index = SuffixIndex(100)
    for token in range(10_000):
        index.extend((token,))
    assert len(index.tokens) <= 101
    assert all(len(last) <= 101 for last in index._last)
    assert all(len(before) == len(index.tokens) for before in index._before)


def test_only_the_most_recent_places_are_counted():
    index = SuffixIndex(1000)
    index.extend([1, 2] * 50)
    places, depth = next(index.matches(4, 3))
    assert (places, depth) == ([97, 95, 93], 4)


@settings(max_examples=60, deadline=None)
@given(ids, st.integers(1, 8))
def test_score_is_the_suffix_tree_score(tokens: list[int], k: int):
    """Sum over nodes of the product of child counts over parent counts, best over match lengths."""
    drafter = NgramDrafter(factor=1.0, min_p=0.1, min_sure=0.0, max_places=1000)
    draft = drafter.draft(tokens, k)
    best, best_tokens = 0.0, ()
    for depth in range(len(tokens) - 1, 0, -1):
        places = [i for i in sorted(places_of(tokens, depth), reverse=True)]
        known, path, score = list(tokens), 1.0, 0.0
        drafted: list[int] = []
        while places and len(drafted) < min(k, depth):
            places = [place + 1 for place in places]
            counts = Counter(known[place] for place in places)
            token, n_same = counts.most_common(1)[0]
            path *= n_same / len(places)
            if path < 0.1:
                break
            score += path
            known.append(token)
            drafted.append(token)
            places = [place for place in places if known[place] == token]
        if score > best:
            best, best_tokens = score, tuple(drafted)
    assert draft.tokens == best_tokens
    assert drafter._guess.score == pytest.approx(best)


def test_the_longest_match_wins_and_is_continued():
    context = [1, 2, 3, 9, 8, 7, 5, 2, 3, 4, 4, 4, 1, 2, 3]
    assert NgramDrafter(factor=1.0).draft(context, 8).tokens == (9, 8, 7)


def test_a_majority_beats_the_most_recent():
    context = [1, 2, 7, 1, 2, 7, 1, 2, 8, 1, 2]
    assert NgramDrafter(factor=1.0).draft(context, 1).tokens == (7,)
    assert NgramDrafter(factor=1.0, max_places=1).draft(context, 1).tokens == (8,)


def test_a_loop_is_drafted_beyond_its_last_token():
    assert NgramDrafter().draft([1, 2, 3] * 3, 9).tokens == (1, 2, 3) * 3


def test_earlier_generations_are_remembered_and_reset_forgets():
    drafter = NgramDrafter()
    followed(drafter, [5, 1, 2, 3, 4, 5, 6, 7])
    assert drafter.draft([9, 1, 2, 3], 4).tokens == (4, 5, 6, 7)
    drafter.reset()
    assert drafter.draft([9, 1, 2, 3], 4).tokens == ()


def test_a_shared_beginning_is_stored_once():
    drafter = NgramDrafter(max_depth=4)
    system = list(range(500))
    for turn in range(20):
        followed(drafter, [*system, 1000 + turn])
    assert len(drafter._index.tokens) == 501 + 19 * (1 + 4 + 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=30), min_size=1, max_size=8))
def test_only_seen_ids_are_drafted_whatever_the_context_becomes(contexts: list[list[int]]):
    for tree in (False, True):
        drafter = NgramDrafter(max_tokens=40, tree=tree)
        seen: set[int] = set()
        for context in contexts:
            seen.update(context)
            draft = drafter.draft(context, 5)
            assert seen.issuperset(draft.tokens)
            assert drafter._index.tokens[-min(len(context), 40) :] == context[-40:]
            followed(drafter, [*context, 7])
            seen.add(7)


def test_a_tree_branches_where_counts_do():
    context = [1, 2, 7, 5, 0, 1, 2, 8, 6, 3, 1, 2, 7, 5, 4, 1, 2]
    draft = NgramDrafter(tree=True, min_sure=0.0, factor=2.0).draft(context, 4)
    paths = {draft.path(node) for node in range(len(draft))}
    assert paths == {(7,), (7, 5), (8,), (8, 6)}
    assert draft.confidence == tuple(sorted(draft.confidence, reverse=True))
    assert draft.probs is None


def test_confidence_learns_how_often_certainty_was_right():
    drafter = NgramDrafter(max_places=1)
    assert drafter.draft([1, 2, 1], 1).tokens == (2,)
    context = [1]
    for i in range(150):  # after 1 comes something new each time, whatever came before
        context += [1, 100 + i]
        followed(drafter, context)
        drafter.draft([*context, 1], 1)
        followed(drafter, [*context, 1, 10_000 + i])
        context += [1, 10_000 + i]
    assert min(drafter._trust.rates) < 0.15
    assert drafter.draft([*context, 1], 1).tokens == ()  # below min_sure


def test_an_unused_draft_teaches_too():
    drafter = NgramDrafter()
    context = [1, 2, 3, 4, 1, 2, 3]
    before = list(drafter._trust.rates)
    draft = drafter.draft(context, 3)
    assert draft.tokens == (4, 1, 2)
    drafter.observe(Round([*context, 4, 9, 2], Draft(), Verdict((4, 9, 2), (), 0)))
    keep = 4 * Trust.KEEP
    expected = list(before)
    expected[2] = (before[2] * keep + 1) / (keep + 1)  # after a match of 3: right
    expected[3] = (before[3] * keep + 0) / (keep + 1)  # of 4: wrong, and the rest was not seen
    assert drafter._trust.rates == pytest.approx(expected)


def test_trust_is_a_running_share():
    trust = Trust()
    for i in range(2000):
        trust.learn(3, 0.5, i % 4 == 0)
    assert trust.rates[3] == pytest.approx(0.5, abs=0.05)
    assert trust.rates[2] == Trust.PRIOR[2]
    assert trust.cell(1, 1) != trust.cell(1, 2) != trust.cell(40, 2)


def test_tally_leaves_out_the_end_of_a_text():
    assert tally([5, 6, BREAK, 6], [1, 3]) == (6, 2, 2)
    assert tally([5, 6, BREAK, 6], [2, 1, 0, 3]) == (6, 2, 3)
    assert tally([BREAK, BREAK], [0, 1]) == (BREAK, 0, 0)
