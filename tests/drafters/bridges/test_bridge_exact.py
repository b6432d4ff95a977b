"""The exact bridge: what it proposes, and that sampling over it keeps the target's law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from bridge_worlds import (
    KINDS,
    Branch,
    branches,
    distance,
    drafts,
    first_tokens_law,
    plain_law,
    world_of,
    worlds,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgespec.drafters.bridges.exact import ExactBridge
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.merged import MergedLaw
from edgespec.drafters.bridges.translated import Translated
from edgespec.types import Spent

LETTERS = [b"a", b"b", b"c"]


def bridge_of(world):
    return ExactBridge(world.mapping, world.cache)


class ClosedResidual(MergedLaw):
    """Its residual in one choice: rejection from an envelope has a branch for every order."""

    def residual(self, i, p, chances):
        q = np.array([self.exact(i, token) for token in range(len(p))])
        rest = np.maximum(p - q, 0)
        return chances.pick(rest if rest.sum() > 1e-15 else p)


def error(world, k, n_rounds=1):
    """Total variation between the law with this bridge and the target's own."""
    law = first_tokens_law(world, bridge_of(world), k, n_rounds=n_rounds)
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-9)
    return distance(law, plain_law(world))


@pytest.fixture
def closed(monkeypatch):
    monkeypatch.setattr("edgespec.drafters.bridges.exact.MergedLaw", ClosedResidual)


QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@QUICK
@given(worlds(), st.integers(1, 3))
def test_sampling_keeps_the_law_of_the_target(closed, world, k):
    assert error(world, k) < 1e-9


@pytest.mark.slow
@settings(QUICK, max_examples=300)
@given(worlds(), st.integers(1, 2))
def test_sampling_keeps_the_law_in_many_worlds(closed, world, k):
    assert error(world, k) < 1e-9


@pytest.mark.slow
@QUICK
@given(worlds(trimmed=True), st.integers(1, 3))
def test_a_trimmed_drafter_keeps_the_law(closed, world, k):
    assert error(world, k) < 1e-9


DEEPER = [pytest.param(k, k + 1, marks=pytest.mark.slow) for k in (1, 2)]
DEEP = [
    ((b"a", b"b"), b"ab"),
    ((b"a", b"b", b"c"), b"abc"),
    ((b"b", b"c"), b"bc"),
    ((b"a", b"a", b"b"), b"aab"),
    ((b"ab", b"c"), b"abc"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "k"), [(0, 1), *DEEPER])
def test_merges_of_merges_and_three_pieces_keep_the_law(closed, kind, seed, k):
    draft = [*LETTERS, b"ab", b"ca", b"cab"]
    target = [*LETTERS, b"ab", b"abc", b"bc", b"aab"]
    world = world_of(draft, target, DEEP, kind=kind, seed=seed)
    assert world.mapping.splits  # "ca" and "cab" are split
    assert error(world, k) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_round_keeps_the_law_too(closed, kind):
    world = world_of([*LETTERS, b"ca"], [*LETTERS, b"ab", b"abc"], DEEP[:2], kind=kind)
    assert error(world, 1, n_rounds=2) < 1e-9


SOME = ["text", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:3])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOME)
def test_the_residual_has_its_law(kind):
    """Drawn by rejection from an envelope, in every branch, against p - q worked out whole."""
    draft, target = [*LETTERS, b"ab", b"ca"], [*LETTERS, b"ab", b"abc", b"bc"]
    world = world_of(draft, target, [*DEEP[:3], DEEP[4]], kind=kind)
    for _, draft in itertools.islice(drafts(world, bridge_of(world), world.prompt, 2), 3):
        for i, before in enumerate(draft.tokens):
            p = world.target_law([*world.prompt, *draft.tokens[:i]])
            q = np.array([draft.law.exact(i, token) for token in range(len(p))])
            assert q.sum() == pytest.approx(1.0)
            assert q[before] > 0
            rest = np.maximum(p - q, 0)
            if rest.sum() < 1e-9:
                continue
            found = np.zeros(len(p))
            for share, token in branches(lambda c, i=i, p=p, d=draft: d.law.residual(i, p, c)):
                found[token] += share
            assert found == pytest.approx(rest / rest.sum(), abs=1e-9)


def test_the_enumeration_sees_a_wrong_law(closed, monkeypatch):
    """Without the share of units that go on, the law of a first piece is too large."""
    monkeypatch.setattr("edgespec.drafters.bridges.merged.ends", lambda row, onward: 1.0)
    found = [error(world_of(LETTERS, [*LETTERS, b"ab"], DEEP[:1], seed=s), 2) for s in range(5)]
    assert max(found) > 0.01


def test_bounds_decide_as_the_exact_law_does():
    world = world_of([*LETTERS, b"ab"], [*LETTERS, b"ab", b"abc", b"bc", b"aab"], DEEP)
    n_undecided = 0
    for _, draft in drafts(world, bridge_of(world), world.prompt, 2):
        reader = draft.law._rows._reader
        for i, token in enumerate(draft.tokens):
            before = reader.model.n_forwards
            at_once = [draft.law.keeps(i, token, p, 0.5) for p in (0.0, 1.0)]
            assert at_once == [False, True]
            exact = draft.law.exact(i, token)
            n_undecided += reader.model.n_forwards > before
            for p, u in ((0.2, 0.2 / exact - 1e-9), (0.2, 0.2 / exact + 1e-9), (exact, 1.0)):
                assert draft.law.keeps(i, token, p, u) == (u * exact < p)
    assert n_undecided  # else the bounds were never needed


def test_a_residual_that_needs_no_ngram_reads_nothing():
    world = world_of(LETTERS, [*LETTERS, b"abc"], [((b"a", b"b", b"c"), b"abc")])
    share, draft = next(drafts(world, bridge_of(world), world.prompt, 1))
    assert share > 0
    reader = draft.law._rows._reader
    before = reader.model.n_forwards
    only_c = np.array([0.0, 0.0, 1.0, 0.0])
    assert draft.law.residual(0, only_c, Branch([])) == 2
    assert reader.model.n_forwards == before
    only_merged = np.array([0.0, 0.0, 0.0, 1.0])
    assert [t for _, t in branches(lambda c: draft.law.residual(0, only_merged, c))][0] == 3
    assert reader.model.n_forwards > before


def greedy(world, k):
    ((_, draft),) = drafts(world, bridge_of(world), world.prompt, k, drawn=False)
    return [world.mapping.target.pieces[token] for token in draft.tokens], draft


class Says:
    """A drafter's law that always goes on with the letters of one text."""

    def __init__(self, pieces, text):
        self.pieces, self.text = pieces, text

    def __call__(self, context):
        done = b"".join(self.pieces[token] for token in context)
        rest = self.text[len(done) - 1 :]
        law = np.full(len(self.pieces), 0.01)
        for token, piece in enumerate(self.pieces):
            if piece == rest[: len(piece)]:
                law[token] += len(piece)
        return law / law.sum()


def saying(text, draft, target, ngrams=()):
    world = world_of(draft, target, ngrams, prompt=[b"a"])
    object.__setattr__(world, "q", Says(world.q.pieces, text))
    return world


def test_greedy_takes_the_longest_match():
    world = saying(b"abcabab", LETTERS, [*LETTERS, b"ab", b"abc"], DEEP[:2])
    assert greedy(world, 4)[0] == [b"abc", b"ab", b"ab", b"a"]


def test_greedy_goes_back_to_the_longest_match_that_ended():
    deep = [((b"a", b"b"), b"ab"), ((b"a", b"b", b"c", b"a"), b"abca")]
    world = saying(b"abcb", LETTERS, [*LETTERS, b"ab", b"abca"], deep)
    assert greedy(world, 3)[0] == [b"ab", b"c", b"b"]


def test_greedy_splits_what_is_one_token_of_the_drafters_alone():
    world = saying(b"cabb", [*LETTERS, b"ca"], LETTERS)
    assert greedy(world, 3)[0] == [b"c", b"a", b"b"]


def test_greedy_never_drafts_what_has_no_translation():
    world = saying(b"cab", LETTERS, [b"a", b"b"])
    tokens, draft = greedy(world, 2)
    assert b"c" not in tokens
    assert len(draft) == 2


def test_greedy_with_a_trimmed_head_drafts_what_it_has_rows_for():
    world = saying(b"cab", LETTERS, [b"a", b"c"])
    kept = tuple(sorted(world.mapping.draft.by_bytes[piece] for piece in (b"b", b"c")))
    object.__setattr__(world, "rows", kept)  # of a, b and c the target has no b, the head no a
    tokens, draft = greedy(world, 2)
    assert tokens == [b"c", b"c"]
    assert draft.confidence[0] > draft.confidence[1]


def test_confidence_falls_along_a_draft_and_is_that_of_its_pieces():
    world = saying(b"abcab", LETTERS, [*LETTERS, b"ab"], DEEP[:1])
    _, draft = greedy(world, 3)
    assert len(draft.confidence) == len(draft) == 3
    one = 1.01 / 1.03
    assert draft.confidence == pytest.approx([one**2, one**3, one**5])


def test_a_translated_draft_tells_forwards_from_the_rest(monkeypatch):
    seconds = itertools.count()  # each look at the clock is a second later
    for module in ("decode.follow", "drafters.bridges.translated"):
        monkeypatch.setattr(f"edgespec.{module}.perf_counter", lambda: float(next(seconds)))
    world = saying(b"cab", LETTERS, LETTERS)
    bridge = bridge_of(world)
    parts = Ledger(world.mapping), bridge
    drafter = Translated(world.reader().model, lambda: parts, type(bridge))
    assert drafter.draft(list(world.prompt), 2).spent == Spent(step_s=2.0, translate_s=3.0)
