"""Drafts that are drawn while their laws promise enough: what is emitted keeps the target's law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from bridge_worlds import KINDS, distance, drafts, first_tokens_law, plain_law, world_of

from edgespec.drafters.bridges.exact import ExactBridge
from edgespec.drafters.bridges.merged import MergedLaw
from edgespec.drafters.bridges.tli import TliBridge
from edgespec.drafters.mixed import Mixed
from edgespec.drafters.model import ModelDrafter
from edgespec.pace.controller import FixedController
from edgespec.types import Draft

LETTERS = [b"a", b"b", b"c"]
NGRAMS = [((b"a", b"b"), b"ab"), ((b"a", b"b", b"c"), b"abc"), ((b"b", b"c"), b"bc")]
WORLDS = {
    "same": (LETTERS, LETTERS, ()),
    "tli": ([*LETTERS, b"ab"], [*LETTERS, b"bc"], ()),
    "exact": ([*LETTERS, b"ca"], [*LETTERS, b"ab", b"abc", b"bc"], NGRAMS),
}


class Same:
    """A drafter of the target's vocabulary as a bridge."""

    def draft(self, reader, spelled, context, k, drawing):
        drafter = ModelDrafter(reader.model)
        drafter.pays = reader.pays
        return drafter.draft(context, k, drawing)


class Selective:
    """A bridge whose drafts go on, or begin, while the next token's law promises enough.

    least: of the share that a law gives its likeliest token. peeks: decides by what was drawn, too.
    """

    def __init__(self, bridge, least: float, *, peeks: bool = False) -> None:
        self._bridge, self._least, self._peeks = bridge, least, peeks

    def draft(self, reader, spelled, context, k, drawing):
        begins = True

        def pays(confidence: Sequence[float], undrawn: bool = False, /) -> bool:
            nonlocal begins
            before = confidence[-2] if len(confidence) > 1 else 1.0
            if not undrawn:  # as many tokens as it takes, whatever they are
                return len(confidence) != 2
            goes_on = confidence[-1] / before > self._least
            begins &= goes_on or len(confidence) > 1
            return goes_on

        reader.pays = pays
        draft = self._bridge.draft(reader, spelled, context, k, drawing)
        begins &= not (self._peeks and draft.tokens and draft.tokens[0] == 1)
        return draft if begins else Draft()


class ClosedResidual(MergedLaw):
    """Its residual in one choice: rejection from an envelope has a branch for every order."""

    def residual(self, i, p, chances):
        rest = np.maximum(p - np.array([self.exact(i, token) for token in range(len(p))]), 0)
        return chances.pick(rest if rest.sum() > 1e-15 else p)


def one_of(name: str, kind: str, seed: int):
    """A world, and the bridge of that name in it."""
    world = world_of(*WORLDS[name], kind=kind, seed=seed)
    found = {"same": Same, "tli": TliBridge, "exact": ExactBridge}[name]
    return world, found() if name == "same" else found(world.mapping, world.cache)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WORLDS)
def test_the_law_is_kept(name: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgespec.drafters.bridges.exact.MergedLaw", ClosedResidual)
    world, bridge = one_of(name, kind, seed=3)
    for least in (0.35, 0.5, 0.7, 0.9):
        law = first_tokens_law(world, Selective(bridge, least), 2)
        assert distance(law, plain_law(world)) < 1e-9


@pytest.mark.parametrize("name", WORLDS)
def test_drafts_differ_in_length(name: str):
    lengths = set[int]()
    for kind in KINDS:
        world, bridge = one_of(name, kind, seed=3)
        for least in (0.35, 0.5, 0.7, 0.9):
            chosen = Selective(bridge, least)
            lengths |= {len(draft) for _, draft in drafts(world, chosen, world.prompt, 3)}
    assert lengths >= {0, 1, 2}


def test_the_enumeration_sees_a_decision_by_what_was_drawn():
    world, bridge = one_of("same", "flat", seed=3)
    law = first_tokens_law(world, Selective(bridge, 0.0, peeks=True), 2)
    assert distance(law, plain_law(world)) > 1e-3


class Choosy(FixedController):
    """Says to draw what a law gives more than so much."""

    def draws(self, source, confidence, step_s, least=0.0) -> bool:
        before = confidence[-2] if len(confidence) > 1 else 1.0
        return confidence[-1] / before > 0.5


class Through:
    """What a speculator proposes with a drafter of the target's vocabulary, as a bridge."""

    def draft(self, reader, spelled, context, k, drawing):
        return Mixed([ModelDrafter(reader.model)], Choosy(3)).propose(context, k, drawing)


@pytest.mark.parametrize("kind", KINDS)
def test_a_speculator_keeps_the_law(kind: str):
    world, _ = one_of("same", kind, seed=3)
    assert distance(first_tokens_law(world, Through(), 2, n_rounds=2), plain_law(world)) < 1e-9


@pytest.mark.parametrize("name", WORLDS)
def test_confidence_is_the_share_of_the_likeliest_before_one_is_drawn(name: str):
    world, bridge = one_of(name, "flat", seed=3)
    found = list(drafts(world, bridge, world.prompt, 2))
    assert len({draft.confidence[0] for _, draft in found}) == 1  # whatever was drawn
    for _, draft in found:
        assert len(draft.confidence) == len(draft)
        assert all(0 < sure <= 1 for sure in draft.confidence)
        assert sorted(draft.confidence, reverse=True) == list(draft.confidence)


@pytest.mark.parametrize("kind", ["flat", "text"])
def test_a_bridges_law_tells_about_its_chance_without_asking_the_drafter(kind: str):
    """Exactly where no n-gram may go on; else of what cannot."""
    for ngrams, off in (((), 1e-6), (NGRAMS[:1], 0.25)):
        world = world_of([*LETTERS, b"ca"], [*LETTERS, b"ab"], ngrams, kind=kind, seed=3)
        bridge = ExactBridge(world.mapping, world.cache)
        p = world.target_law(world.prompt)
        for _, draft in drafts(world, bridge, world.prompt, 1):
            q = [draft.law.exact(0, token) for token in range(len(p))]
            assert draft.law.shared(p) == pytest.approx(np.minimum(q, p).sum(), abs=off)


def test_where_every_token_may_go_on_nothing_is_told():
    ngrams = [((one, b"a"), one + b"a") for one in LETTERS]
    world = world_of(LETTERS, [*LETTERS, b"aa", b"ba", b"ca"], ngrams, seed=3)
    bridge = ExactBridge(world.mapping, world.cache)
    for _, draft in drafts(world, bridge, world.prompt, 1):
        assert draft.law.shared(world.target_law(world.prompt)) is None
