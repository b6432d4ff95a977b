"""ngrams.py: the packed trie against a plain dictionary, what it forgets, and what it weighs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import (
    AGEING,
    FORGET,
    MAX_PIECES,
    MEMO,
    MIN_BYTES,
    NODE_BYTES,
    NgramCache,
)
from edgespec.errors import ShapeError, UsageError
from edgespec.text.vocabulary import Vocabulary

Pieces = tuple[int, ...]
PIECES = st.lists(
    st.one_of(st.integers(0, 2), st.integers(0, 40), st.sampled_from([127, 32_000, 2**31 - 1])),
    min_size=2,
    max_size=MAX_PIECES,
).map(tuple)


class Model:
    """What the cache should hold: entries by pieces, and every beginning with when it was made."""

    def __init__(self, max_bytes: int) -> None:
        self.most = max_bytes // NODE_BYTES
        self.entries: dict[Pieces, list[int]] = {}  # target, hits
        self.made: dict[Pieces, int] = {(): 0}
        self.n_sightings = self.n_made = 0

    def learn(self, pieces: Pieces, target: int) -> bool:
        """Whether anything is there now, or gone, that was not."""
        if len(self.made) + len(self.missing(pieces)) > self.most:
            n_forgotten = max(len(self.entries) // FORGET, 1)
            while len(self.made) + MAX_PIECES > self.most:
                self.forget(n_forgotten)
        for beginning in self.missing(pieces):
            self.n_made += 1
            self.made[beginning] = self.n_made
        seen = self.entries.get(pieces, [-1, 0])
        hits = min(seen[1] + 1, 255) if seen[0] == target else 1
        self.entries[pieces] = [target, hits]
        self.n_sightings += 1
        if self.n_sightings >= AGEING * len(self.entries):
            self.n_sightings = 0
            for entry in self.entries.values():
                entry[1] -= entry[1] // 2
        return seen[0] != target

    def missing(self, pieces: Pieces) -> list[Pieces]:
        return [pieces[:n] for n in range(1, len(pieces) + 1) if pieces[:n] not in self.made]

    def forget(self, n: int) -> None:
        worst = sorted(
            self.entries, key=lambda pieces: (self.entries[pieces][1], self.made[pieces])
        )
        for pieces in worst[:n]:
            del self.entries[pieces]
        needed = {pieces[:n] for pieces in self.entries for n in range(len(pieces) + 1)} | {()}
        self.made = {beginning: at for beginning, at in self.made.items() if beginning in needed}

    def below(self, beginning: Pieces) -> set[int]:
        return {one[-1] for one in self.made if one and one[:-1] == beginning}

    def longest(self, pieces: Pieces, at: int) -> tuple[int, int, bool]:
        ends = [n for n in range(len(pieces) - at + 1) if pieces[at : at + n] in self.entries]
        n = max(ends, default=0)
        target = self.entries[pieces[at : at + n]][0] if n else -1
        return n, target, bool(self.below(pieces[at:]))


class Machine(RuleBasedStateMachine):
    """Any order of learning and looking up."""

    @initialize(n_bytes=st.integers(MIN_BYTES, MIN_BYTES + 700) | st.just(1 << 20))
    def open(self, n_bytes: int) -> None:
        self.cache, self.model = NgramCache(max_bytes=n_bytes), Model(n_bytes)

    def learn(self, pieces: Pieces, target: int) -> None:
        before, n_before = self.cache.version, len(self.cache)
        changed = self.model.learn(pieces, target)
        self.cache.learn(pieces, target)
        assert (self.cache.version != before) == (changed or len(self.cache) < n_before)

    @rule(pieces=PIECES, token=st.integers(0, 5))
    def learn_any(self, pieces: Pieces, token: int) -> None:
        self.learn(pieces, token)

    @rule(first=st.integers(0, 40), n=st.integers(1, 24))
    def learn_many(self, first: int, n: int) -> None:
        for i in range(n):
            self.learn((first, 100 + i), i)

    @rule(at=st.integers(0, 1000), times=st.integers(1, 40))
    def see_again(self, at: int, times: int) -> None:
        if self.model.entries:
            pieces = list(self.model.entries)[at % len(self.model.entries)]
            for _ in range(times):
                self.learn(pieces, self.model.entries[pieces][0])

    @rule(at=st.integers(0, 1000), token=st.integers(0, 5))
    def change(self, at: int, token: int) -> None:
        if self.model.entries:
            self.learn(list(self.model.entries)[at % len(self.model.entries)], token)

    @rule(at=st.integers(0, 1000), n=st.integers(2, 8), more=PIECES)
    def lengthen_or_shorten(self, at: int, n: int, more: Pieces) -> None:
        if self.model.entries:
            pieces = list(self.model.entries)[at % len(self.model.entries)]
            self.learn((*pieces, *more)[:n], n)

    @rule(at=st.integers(0, 1000), before=PIECES, n=st.integers(0, 8), more=PIECES)
    def look_up(self, at: int, before: Pieces, n: int, more: Pieces) -> None:
        known = list(self.model.entries)[at % len(self.model.entries)] if self.model.entries else ()
        for pieces in ((*before, *known[:n]), (*before, *known, *more), more[:n]):
            for i in range(len(pieces) + 1):
                assert self.cache.longest(pieces, i) == self.model.longest(pieces, i)

    @invariant()
    def agrees(self) -> None:
        cache, model = self.cache, self.model
        in_order = sorted(model.entries, key=model.made.__getitem__)
        expected = [(pieces, *model.entries[pieces]) for pieces in in_order]
        assert list(cache.entries()) == expected
        assert len(cache) == len(expected)
        assert cache.n_bytes <= cache.max_bytes
        for pieces, target, _ in expected:
            assert cache.longest(pieces, 0) == (len(pieces), target, bool(model.below(pieces)))
        targets, firsts = cache.firsts()
        assert targets.tolist() == [target for _, target, _ in expected]
        assert firsts.tolist() == [pieces[0] for pieces, _, _ in expected]

    @rule()
    def walk_everywhere(self) -> None:
        cache, model = self.cache, self.model
        for beginning in model.made:
            node = walked(cache, beginning)
            assert cache.token(node) == model.entries.get(beginning, [-1])[0]
            assert set(cache.children(node).tolist()) == model.below(beginning)
            assert len(cache.children(node)) == len(model.below(beginning))
            assert cache.child(node, 77) == -1
        for target in range(6):
            spelled = [p for p, entry in model.entries.items() if entry[0] == target]
            assert sorted(cache.spellings(target)) == sorted(spelled)


Machine.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
test_the_trie_agrees_with_a_dictionary = Machine.TestCase


def walked(cache: NgramCache, pieces: Pieces) -> int:
    node = 0
    for piece in pieces:
        node = cache.child(node, piece)
        assert node > 0
    return node


def test_hits_saturate() -> None:
    cache = NgramCache()
    cache.learn((1, 2), 3, hits=250)
    for _ in range(9):
        cache.learn((1, 2), 3)
    assert list(cache.entries()) == [((1, 2), 3, 255)]


def test_what_is_seen_often_outlives_any_number_of_chance_finds() -> None:
    cache = NgramCache(max_bytes=2048)
    for i in range(3000):
        cache.learn((i % 7, 1), i % 7)
        cache.learn((5000, 5000 + i), 9)
    assert all(cache.longest((i, 1), 0) == (2, i, False) for i in range(7))


def test_an_old_favourite_can_leave() -> None:
    cache = NgramCache(max_bytes=2048)
    cache.learn((1, 2), 3, hits=255)
    n_rounds = 0
    while cache.longest((1, 2), 0)[0] and n_rounds < 1000:
        n_rounds += 1
        for i in range(30):  # a text that is read again and again, and new words
            cache.learn((7, i), i)
        cache.learn((8, n_rounds), 1)
    assert 50 < n_rounds < 1000


def test_a_sequence_stands_for_its_last_target() -> None:
    cache = NgramCache()
    cache.learn((1, 2), 3, hits=9)
    version = cache.version
    cache.learn((1, 2), 4)
    assert list(cache.entries()) == [((1, 2), 4, 1)]
    assert (len(cache), cache.version) == (1, version + 1)
    assert (cache.spellings(3), cache.spellings(4)) == ([], [(1, 2)])


def test_results_that_are_shared_cannot_be_written_to() -> None:
    cache = NgramCache()
    cache.learn((1, 2), 3)
    for array in (cache.children(0), cache.children(2), *cache.firsts()):
        with pytest.raises(ValueError, match="read-only"):
            array += 1


def test_the_longest_entry_wins_wherever_it_begins() -> None:
    cache = NgramCache()
    for pieces in ((1, 2), (1, 2, 3, 4), (2, 3)):
        cache.learn(pieces, len(pieces))
    assert cache.longest((9, 1, 2, 3, 4, 5), 1) == (4, 4, False)
    assert cache.longest((9, 1, 2, 3, 5), 1) == (2, 2, False)
    assert cache.longest((9, 1, 2, 3), 1) == (2, 2, True)
    assert cache.longest((9, 1, 2, 3), 2) == (2, 2, False)
    assert cache.longest((9, 1), 1) == (0, -1, True)
    assert cache.longest((9, 1), 2) == (0, -1, True)


def test_the_children_that_are_remembered_do_not_grow_without_end() -> None:
    cache = NgramCache()
    for piece in range(2 * MEMO):
        cache.learn((piece, 1), piece)
    for piece in range(2 * MEMO):
        assert cache.children(cache.child(0, piece)).tolist() == [1]
    assert 0 < len(cache._children) <= MEMO


def test_the_children_that_are_remembered_are_those_of_now() -> None:
    cache = NgramCache()
    for n in range(1, 9):
        cache.learn((5, n), n)
        assert sorted(cache.children(cache.child(0, 5)).tolist()) == list(range(1, n + 1))


def test_an_interrupt_leaves_no_way_that_ends_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NgramCache()
    cache.learn((1, 2), 3)
    version = cache.version
    append, n_left = NgramCache._append, iter((0, 0, 1))

    def interrupted(self: NgramCache, parent: int, piece: int) -> int:
        if next(n_left):
            raise KeyboardInterrupt
        return append(self, parent, piece)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt, match="^$"):
        patched.setattr(NgramCache, "_append", interrupted)
        cache.learn((1, 7, 8, 9), 4)
    assert list(cache.entries()) == [((1, 2), 3, 1)]
    assert cache.version > version
    assert cache.longest((1, 7), 0) == (0, -1, False)
    assert cache.children(cache.child(0, 1)).tolist() == [2]
    cache.learn((1, 7, 8, 9), 4)
    assert cache.longest((1, 7, 8, 9), 0) == (4, 4, False)


@pytest.mark.parametrize(
    ("pieces", "target"), [((1,), 2), ((1,) * 9, 2), ((1, -1), 2), ((1, 2), -1), ((), 2)]
)
def test_what_is_no_ngram_is_refused(pieces: Pieces, target: int) -> None:
    with pytest.raises(ShapeError, match="expected 2 to 8 ids, none negative"):
        NgramCache().learn(pieces, target)


def test_the_bytes_never_exceed_what_is_allowed() -> None:
    for n_bytes in (*range(1024, 1125), 5000, 99_999):
        cache, n_before = NgramCache(max_bytes=n_bytes), -1
        while len(cache) > n_before:
            n_before = len(cache)
            cache.learn((7, n_before), 1)
        assert n_bytes - 100 < cache.n_bytes <= n_bytes


def test_too_few_bytes_are_refused() -> None:
    with pytest.raises(UsageError, match="cache of 1023 bytes: expected at least 1024"):
        NgramCache(max_bytes=1023)


@pytest.fixture(scope="module")
def real(data_folder: Path) -> list[tuple[Pieces, int]]:
    """What GPT-2's tokens of 150 kB of fairy tales are to Phi-3, as often as they occur."""
    sides = []
    for name in ("phi-3", "gpt-2"):
        tokenizer = LlamaCppTokenizer.open(data_folder / "vocab" / f"ggml-vocab-{name}.gguf")
        sides.append(Vocabulary(tokenizer, tokenizer.n_vocab))
    seen: list[tuple[Pieces, int]] = []
    ledger = Ledger(Mapping(*sides), on_token=lambda *one: seen.append(one))
    text = (data_folder / "text" / "fairytaleqa_stories.txt").read_bytes()[:150_000]
    ledger.sync(sides[1].encode(text, start=True))
    return seen


@pytest.mark.slow
def test_an_entry_takes_at_most_40_bytes_on_real_text(real: list[tuple[Pieces, int]]) -> None:
    cache, worst = NgramCache(), 0.0
    for pieces, target in real:
        cache.learn(pieces, target)
        if len(cache) >= 300:
            worst = max(worst, cache.n_bytes / len(cache))
    assert len(cache) == len({pieces for pieces, _ in real}) > 1000
    assert worst <= 40


@pytest.mark.slow
def test_the_bytes_are_counted_honestly(real: list[tuple[Pieces, int]]) -> None:
    entries = sorted(set(real))
    tracemalloc.start()
    try:
        cache = NgramCache()
        for pieces, target in entries:
            cache.learn(pieces, target)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.n_bytes <= taken < cache.n_bytes + 8000  # objects, and what numpy keeps free


@pytest.mark.slow
def test_a_quarter_of_the_bytes_keeps_most_of_the_finds(real: list[tuple[Pieces, int]]) -> None:
    whole = NgramCache()
    for pieces, target in real:
        whole.learn(pieces, target)
    shares = []
    for n_bytes in (1 << 20, whole.n_bytes // 4):
        cache = NgramCache(max_bytes=n_bytes)
        found = np.zeros(len(real), np.bool_)
        for i, (pieces, target) in enumerate(real):
            found[i] = cache.longest(pieces, 0)[1] == target
            cache.learn(pieces, target)
        shares.append(found.mean())
    assert shares[1] > 0.8 * shares[0]
