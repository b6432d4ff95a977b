"""What every drafter must do, whatever it drafts with; a new one adds a line to DRAFTERS."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from bridge_worlds import PieceTokenizer

from edgespec.backends.fake import TableModel
from edgespec.decode.sampling import law_of
from edgespec.decode.uniforms import Uniforms, pick
from edgespec.drafters import DRAFTERS as NAMES
from edgespec.drafters import find_drafter
from edgespec.drafters.bridges import find_bridge
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.mixed import Mixed
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.ngram import NgramDrafter
from edgespec.errors import UsageError
from edgespec.pace.controller import FixedController
from edgespec.pace.cost import CostTable
from edgespec.pace.planner import AutoPlanner
from edgespec.protocols import Drafter, Drawing
from edgespec.text.vocabulary import Vocabulary
from edgespec.types import Draft, FloatArray, Round, SamplingParams, Verdict

V = 5
N_CONTEXT = 48
LAW = law_of(SamplingParams(temperature=0.8, top_k=4, repeat_penalty=1.2))


@cache
def table(prefix: tuple[int, ...]) -> FloatArray:
    """A law after every prefix that depends on all of it."""
    rng = np.random.default_rng([len(prefix), *prefix])
    return rng.dirichlet(np.full(V, 0.4)).astype(np.float32)


def model() -> ModelDrafter:
    return ModelDrafter(TableModel(table, V, N_CONTEXT))


class TrimmedTable(TableModel):
    """Has logits for two of the five tokens alone."""

    token_ids = np.array([1, 3], np.int32)

    def forward(self, tokens, parents=None, *, n_rows=None):
        return super().forward(tokens, parents)[:, self.token_ids]


class OfSeveral:
    """A speculator of several drafters, asked as one drafter."""

    def __init__(self, planner: AutoPlanner | FixedController) -> None:
        self._mixed = Mixed([NgramDrafter(), model()], planner)
        self.name, self.n_leaves = self._mixed.name, self._mixed.n_leaves
        self.observe, self.close = self._mixed.observe, self._mixed.close

    def draft(self, context, k, drawing=None):
        return self._mixed.propose(context, k, drawing)


def translated(bridge: str) -> Translated:
    """Over two vocabularies of the same five letters, so that all laws are comparable."""
    letters = [bytes((letter,)) for letter in b"abcde"]
    mapping = Mapping(*(Vocabulary(PieceTokenizer(letters), V) for _ in range(2)))
    cache, kind = NgramCache(), find_bridge(bridge)
    parts = Ledger(mapping, on_token=cache.learn), kind(mapping, cache)
    return Translated(TableModel(table, V, N_CONTEXT), lambda: parts, kind)


DRAFTERS: dict[str, Callable[[], Drafter]] = {
    "model": model,
    "model-p_min": lambda: ModelDrafter(TableModel(table, V, N_CONTEXT), p_min=0.3),
    "model-trimmed": lambda: ModelDrafter(TrimmedTable(table, V, N_CONTEXT)),
    "ngram": NgramDrafter,
    "ngram-tree": lambda: NgramDrafter(tree=True),
    "translated-exact": lambda: translated("exact"),
    "translated-omnidraft": lambda: translated("omnidraft"),
    "translated-text": lambda: translated("text"),
    "translated-tli": lambda: translated("tli"),
    "mixed-fixed": lambda: OfSeveral(FixedController(6)),
    "mixed-auto": lambda: OfSeveral(AutoPlanner(CostTable((1.0, *[1.1] * 16)))),
}
LOOP = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]


@pytest.fixture(params=DRAFTERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Drafter]:
    return DRAFTERS[request.param]


def contexts(seed: int, n: int) -> list[list[int]]:
    """Contexts that grow, shrink, change in the middle and start anew, at most N_CONTEXT long."""
    rng = np.random.default_rng(seed)
    context, out = [0], []
    for _ in range(n):
        change = rng.integers(5)
        if change == 0:
            context = context[: 1 + rng.integers(len(context))]
        elif change == 1:
            i = rng.integers(len(context))
            context = [*context[:i], int(rng.integers(V)), *context[i + 1 :]]
        elif change == 2:
            context = rng.integers(V, size=1 + rng.integers(20)).tolist()
        context = [*context, *rng.integers(V, size=rng.integers(12)).tolist()][-N_CONTEXT:]
        out.append(list(context))
    return out


def check(draft: Draft, k: int) -> None:
    assert len(draft) <= k
    assert all(isinstance(token, int) and 0 <= token < V for token in draft.tokens)
    assert len(draft.sources) == len(draft)
    assert len(draft.confidence) in (0, len(draft))
    assert list(draft.confidence) == sorted(draft.confidence, reverse=True)
    assert all(0 <= c <= 1 for c in draft.confidence)


def test_drafts_are_well_formed_after_any_change_of_context(make):
    drafter, n_drafted = make(), 0
    for i, context in enumerate(contexts(1, 60)):
        k = 1 + i % 6
        draft = drafter.draft(context, k)
        check(draft, k)
        assert draft.probs is None
        n_drafted += len(draft)
        drafter.observe(Round([*context, i % V], draft, Verdict((i % V,), (), min(1, len(draft)))))
    assert n_drafted > 0


def test_the_context_is_not_changed(make):
    drafter, context = make(), list(LOOP)
    draft = drafter.draft(context, 4)
    drafter.observe(Round(context, draft, Verdict((2,), (), 0)))
    assert context == LOOP
    assert make().draft(tuple(LOOP), 4).tokens == make().draft(LOOP, 4).tokens


def test_no_tokens_are_drafted_when_none_are_wanted(make):
    drafter = make()
    assert drafter.draft(LOOP, 0) == Draft()
    assert drafter.draft([1], 0, Drawing(LAW, Uniforms(*np.empty(0)))) == Draft()


def test_a_stop_token_inside_a_draft_does_no_harm(make):
    drafter, twin = make(), make()
    draft = drafter.draft(LOOP, 4)
    assert len(draft) >= 1
    stop = draft.tokens[0]
    verdict = Verdict((*draft.path(0), 0), (0,), 1).until(frozenset({stop}), 99)
    assert verdict.tokens == (stop,)
    drafter.observe(Round([*LOOP, stop], draft, verdict))
    check(drafter.draft([0, 1], 4), 4)
    check(twin.draft([*LOOP, stop], 4), 4)


@pytest.mark.slow
def test_drawn_drafts_come_with_the_law_they_were_drawn_from(make):
    drafter, rng = make(), np.random.default_rng(2)
    for context in contexts(3, 30):
        u = rng.random(5)
        draft = drafter.draft(context, 5, Drawing(LAW, Uniforms(*u)))
        check(draft, 5)
        ids = getattr(getattr(drafter, "model", None), "token_ids", None)
        if draft.probs is not None:
            assert draft.is_chain
            assert draft.probs.shape == (len(draft), V)
            assert draft.probs.sum(axis=1) == pytest.approx(1, abs=1e-5)
            for i, token in enumerate(draft.tokens):
                before = (*context, *draft.tokens[:i])
                with np.errstate(divide="ignore"):
                    logits = np.log(table(before))
                if ids is not None:
                    logits[np.setdiff1d(np.arange(V), ids)] = -np.inf
                row = LAW(logits, before)
                assert draft.probs[i] == pytest.approx(row, abs=1e-6)
                assert token == pick(draft.probs[i], u[i])
        drafter.observe(Round([*context, 1], draft, Verdict((1,), (), min(1, len(draft)))))


def test_a_context_beyond_the_drafters_own_is_survived(make):
    drafter = make()
    for n in (N_CONTEXT - 1, N_CONTEXT, N_CONTEXT + 1, 200, 3):
        context = [i % 3 for i in range(n)]
        draft = drafter.draft(context, 6)
        check(draft, 6)
        drafter.observe(Round([*context, 1], draft, Verdict((1,), (), min(1, len(draft)))))


def test_closing_twice_is_allowed(make):
    drafter = make()
    drafter.draft(LOOP, 2)
    drafter.close()
    drafter.close()


@pytest.mark.parametrize("p_min", [0.0, 0.3])
def test_a_model_drafts_the_same_with_and_without_a_cache(p_min: float):
    kept = ModelDrafter(TableModel(table, V, N_CONTEXT), p_min=p_min)
    for context in contexts(4, 80):
        fresh = ModelDrafter(TableModel(table, V, N_CONTEXT), p_min=p_min)
        assert kept.draft(context, 4) == fresh.draft(context, 4)


@pytest.mark.parametrize("name", NAMES)
def test_registered_names_are_classes_with_a_draft(name: str):
    assert callable(find_drafter(name).draft)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match="drafter 'nrgam': expected one of model, ngram"):
        find_drafter("nrgam")
