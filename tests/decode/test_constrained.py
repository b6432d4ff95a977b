"""Constrained decoding keeps the constrained target's law, however it is drafted."""

from __future__ import annotations

import itertools
from dataclasses import fields

import numpy as np
import pytest
from bridge_worlds import World, branches, distance, drafts, emitted, plain_law, world_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine import TreeDrafter, ids, random_table
from test_verify import kept_chances, law_of_picks, uniforms_keeping

from edgespec.backends.fake import TableModel
from edgespec.decode import constrained as grammar
from edgespec.decode.constrained import best_first, law_of
from edgespec.decode.engine import Engine
from edgespec.decode.sampling import Chain, Laws, penalized, probabilities, score
from edgespec.decode.verify import accept
from edgespec.drafters import mixed as mixed_module
from edgespec.drafters.bridges.exact import ExactBridge
from edgespec.drafters.bridges.tli import TliBridge
from edgespec.drafters.mixed import Mixed
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.ngram import NgramDrafter
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import TokenizerError
from edgespec.pace.controller import AutoController, FixedController
from edgespec.pace.cost import CostTable
from edgespec.pace.planner import AutoPlanner
from edgespec.types import Draft, Round, SamplingParams, Times, Verdict

PROMPT = (2, 1)


class Some:
    """Allows about half of the tokens after each text, at least one, by a hash of the text."""

    def __init__(self, n_vocab: int, seed: int = 0) -> None:
        self.n_vocab, self.seed, self.n_checked = n_vocab, seed, 0

    def after(self, generated) -> np.ndarray:
        rng = np.random.default_rng((self.seed, len(generated), *generated[-3:]))
        out = rng.random(self.n_vocab) < 0.5
        out[rng.integers(self.n_vocab)] = True
        return out

    def allowed(self, generated, ids):
        self.n_checked += len(ids)
        return self.after(tuple(generated))[ids]


class Only:
    """Allows these ids everywhere."""

    def __init__(self, *allowed: int) -> None:
        self.ids = allowed

    def allowed(self, generated, ids):
        return np.isin(ids, self.ids)


def some_logits(seed: int, n_vocab: int, *, holes: bool = False):
    """Logits [V] as a function of the context; with holes as a trimmed head has them."""

    def logits(context) -> np.ndarray:
        rng = np.random.default_rng((seed, *context))
        out = rng.normal(size=n_vocab, scale=1.5).astype(np.float32)
        if holes:
            out[rng.random(n_vocab) < 0.4] = -np.inf
            out[rng.integers(n_vocab)] = 0
        return out

    return logits


CHAINS = [
    {}, {"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.4}, {"top_p": 0.8, "min_p": 0.2},
    {"temperature": 0.6, "top_k": 3, "repeat_penalty": 1.5},
]  # fmt: skip


def check_law_of_a_round(rule, chain, holes, heeds, seed, n_vocab, k):
    """Drafts are enumerated, uniforms bisected. heeds: the draft's law knows the constraint."""
    params = SamplingParams(**{"temperature": 1.0, **chain}, constraint=Some(n_vocab, seed))
    law = law_of(params, len(PROMPT))
    p, q = some_logits(seed, n_vocab), some_logits(seed + 9, n_vocab, holes=holes)
    draws = law.drafting() if heeds else Chain(params)
    emitted = law_of_a_round(rule, law, draws, p, q, n_vocab, k)
    expected: dict[tuple[int, ...], float] = {}
    finish(expected, law, p, (), 1.0, n_vocab, k)
    assert sum(emitted.values()) == pytest.approx(1)
    for text in emitted.keys() | expected.keys():
        assert emitted.get(text, 0.0) == pytest.approx(expected.get(text, 0.0), abs=1e-6)


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("heeds", [False, True])
def test_one_round_has_the_constrained_targets_law(rule, chain, heeds):
    for seed, holes in ((0, False), (1, True)):
        check_law_of_a_round(rule, chain, holes, heeds, seed, 3, 2)


def finish(out, law, p, done, weight, n_vocab, k):
    """Add to `out` the law of plain decoding from `done` on, up to k + 1 tokens."""
    if weight == 0 or len(done) == k + 1:
        out[done] = out.get(done, 0.0) + weight
        return
    row = law(p((*PROMPT, *done)), (*PROMPT, *done))
    for token in range(n_vocab):
        finish(out, law, p, (*done, token), weight * float(row[token]), n_vocab, k)


class Kept:
    """Rows of the target's law, each worked out once."""

    def __init__(self, laws: Laws) -> None:
        self._laws, self._rows = laws, {}

    def __len__(self) -> int:
        return len(self._laws)

    def __getitem__(self, row):
        if row not in self._rows:
            self._rows[row] = self._laws[row]
        return self._rows[row]


def law_of_a_round(rule, law, draws, p, q, n_vocab: int, k: int):
    """Law of k + 1 tokens: one round of drafts, cut and verified, then plain decoding."""
    out: dict[tuple[int, ...], float] = {}

    for x in itertools.product(range(n_vocab), repeat=k):
        befores = [(*PROMPT, *x[:i]) for i in range(k)]
        rows = np.stack([draws(q(before), before) for before in befores])
        weight = float(np.prod([rows[i, x[i]] for i in range(k)]))
        if weight == 0:
            continue
        draft = law.cut(Draft(x, probs=rows), PROMPT)
        n = len(draft)
        rows = np.stack([p((*PROMPT, *x[:i])) for i in range(n + 1)])
        laws = Kept(Laws(law, rows, PROMPT, draft))

        def verdict(tests, u=0.0, draft=draft, laws=laws, n=n) -> Verdict:
            pairs = [*zip(tests, [u] * n, strict=True), (0.0, u)]
            return accept(draft, laws, np.array(pairs, float), rule=rule)

        for n_kept, chance in enumerate(kept_chances(rule, n, verdict)):
            if chance == 0:
                continue
            tests = uniforms_keeping(rule, n, n_kept)
            picks = law_of_picks(lambda u, t=tests, v=verdict: v(t, u).tokens[-1], n_vocab)
            for token, share in enumerate(picks):
                done = (*x[:n_kept], token)
                finish(out, law, p, done, weight * chance * share, n_vocab, k)
    return out


class Masked(World):
    """A world whose target follows a constraint after the prompt."""

    def after(self, context) -> np.ndarray:
        generated = tuple(context[len(self.prompt) :])
        return Some(self.mapping.target.n_vocab).after(generated)

    def target_law(self, context):
        row = World.target_law(self, context) * self.after(context)
        return row / row.sum()


@pytest.mark.slow
@pytest.mark.parametrize("bridge", [ExactBridge, TliBridge])
@pytest.mark.parametrize("kind", ["flat", "text"])
def test_drafts_from_another_vocabulary_keep_the_constrained_law(bridge, kind):
    """Enumerated as for the bridges; the law of merged tokens is cut like any other."""
    n_cut = 0
    for seed in range(3):
        made = world_of(
            [b"a", b"b", b"ba", b"bb"], [b"a", b"b", b"ab", b"bab", b"c"],
            [([b"a", b"b"], b"ab"), ([b"ba", b"b"], b"bab")], kind=kind, seed=seed,
        )  # fmt: skip
        world = Masked(**{one.name: getattr(made, one.name) for one in fields(made)})
        some = Some(world.mapping.target.n_vocab)
        cut = law_of(SamplingParams(constraint=some), len(world.prompt)).cut
        law: dict[tuple[int, ...], float] = {}
        for share, drawn in drafts(world, bridge(world.mapping, world.cache), world.prompt, 2):
            draft = cut(drawn, world.prompt)
            n_cut += draft.n_cut
            run = lambda chances, w=world, d=draft: tuple(emitted(w, w.prompt, d, chances))  # noqa: E731
            for part, tokens in branches(run):
                for done, more in going_on(world, tokens, 3):
                    law[done] = law.get(done, 0.0) + share * part * more
        assert distance(law, plain_law(world)) < 1e-9
    assert n_cut > 0


def going_on(world, tokens, n):
    """Texts of n tokens that begin with `tokens`, with their probability."""
    if len(tokens) >= n:
        yield tokens[:n], 1.0
        return
    for token, p in enumerate(world.target_law((*world.prompt, *tokens))):
        for done, more in going_on(world, (*tokens, token), n) if p > 0 else ():
            yield done, float(p) * more


@given(
    seed=st.integers(0, 10_000),
    top_k=st.sampled_from([0, 0, 1, 3, 12]),
    top_p=st.sampled_from([1.0, 0.9, 0.5]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    scale=st.sampled_from([0.0, 1.0, 8.0]),
    sizes=st.sampled_from([(2, 5), (1, 3, 9, 20), (32,)]),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_checking_the_likeliest_first_changes_nothing(
    seed, top_k, top_p, min_p, temperature, scale, sizes
):
    n_vocab = 24
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, logit_bias={5: -np.inf},
        presence_penalty=0.5, constraint=Some(n_vocab, seed),
    )  # fmt: skip
    logits = np.round(some_logits(seed, n_vocab)(PROMPT) * scale).astype(np.float32)
    context = (*PROMPT, 7)
    mask = params.constraint.after((7,))
    expected = penalized(logits, context, params).copy()
    expected[~mask] = -np.inf
    before, grammar.SIZES = grammar.SIZES, sizes
    try:
        if expected.max() == -np.inf:
            return
        row = law_of(params, len(PROMPT))(logits, context)
    finally:
        grammar.SIZES = before
    assert row == pytest.approx(probabilities(expected, params), abs=2e-7)


def test_greedy_and_top_k_check_few_tokens():
    n_vocab = 20_000
    logits = np.random.default_rng(0).normal(size=n_vocab).astype(np.float32)
    for chain, most in (({"temperature": 0.0}, 40), ({"top_k": 40}, 600), ({"top_p": 0.9}, 21_000)):
        some = Some(n_vocab)
        law = law_of(SamplingParams(**{"temperature": 1.0, **chain}, constraint=some), 0)
        law(logits * 3, ())
        assert 0 < some.n_checked < most


def test_only_what_has_less_than_a_float_can_tell_is_left_out():
    """Without a filter the rest counts until it has less than 2^-24 of what was found."""
    params = SamplingParams(temperature=1.0, constraint=Only(0, 1, 7, 9))
    for gap, n_kept in ((12.0, 4), (25.0, 2)):  # e^-12 is 6e-6, e^-25 is 1e-11
        logits = np.float32([5, 4, *[4 - gap] * 8])
        before, grammar.SIZES = grammar.SIZES, (2,)
        try:
            row = law_of(params, 0)(logits, ())
        finally:
            grammar.SIZES = before
        weights = np.exp(logits.astype(np.float64)) * np.isin(np.arange(10), params.constraint.ids)
        assert row == pytest.approx(weights / weights.sum(), abs=1e-7)
        assert np.count_nonzero(row) == n_kept


def test_portions_hold_every_token_once_best_first():
    logits = np.float32([0, 3, 3, -np.inf, 1, 2, 0])
    before, grammar.SIZES = grammar.SIZES, (3, 4)
    try:
        portions = [(list(part), edge) for part, edge in best_first(logits)]
    finally:
        grammar.SIZES = before
    assert portions == [([1, 2], 3.0), ([5], 2.0), ([4], 1.0), ([0, 6], -np.inf)]


def speculators(seed: int, k: int):
    other, same = random_table(seed + 50, 4), random_table(seed, 4)
    drafters = {
        "model": ModelDrafter(TableModel(other, 4)),
        "same model": ModelDrafter(TableModel(same, 4)),
        "ngram": NgramDrafter(),
        "tree": TreeDrafter(4),
        "ngram tree": NgramDrafter(tree=True),
    }
    both = [NgramDrafter(), ModelDrafter(TableModel(same, 4))]
    paced = {name: Paced(one, FixedController(k)) for name, one in drafters.items()}
    return paced | {"mixed": Mixed(both, FixedController(k))}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(speculators(0, 4)))
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_matched_text_is_that_of_plain_constrained_decoding(name, temperature):
    n_accepted = n_cut = 0
    for seed in range(2):
        table, some = random_table(seed, 4), Some(4, seed)
        params = SamplingParams(
            temperature=temperature, seed=seed, max_tokens=40, constraint=some,
            logit_bias={t: 1e-6 for t in range(4)},
        )  # fmt: skip
        soft = lambda prefix, table=table: table(prefix) * 0.9 + np.float32(0.025)  # noqa: E731
        plain = ids(Engine(TableModel(soft, 4), Plain()), [1, 2, 3], params)
        assert all(some.after(tuple(plain[:i]))[plain[i]] for i in range(len(plain)))
        for k in (2, 4):
            engine = Engine(TableModel(soft, 4), speculators(seed, k)[name])
            steps = list(engine.stream([1, 2, 3], params))
            assert [t for step in steps for t in step.verdict.tokens] == plain
            n_accepted += engine.stats.n_accepted
            n_cut += sum(step.draft.n_cut for step in steps)
            assert engine.stats.n_tested <= engine.stats.n_drafted
    assert n_accepted > 0 and n_cut > 0


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_drawn_text_never_breaks_the_constraint(rule):
    for seed in range(6):
        soft = lambda prefix, seed=seed: random_table(seed, 4)(prefix) * 0.9 + np.float32(0.025)  # noqa: E731
        some = Some(4, seed)
        params = SamplingParams(
            temperature=1.0, top_k=3 * (seed % 2), max_tokens=40, verification=rule,
            constraint=some,
        )  # fmt: skip
        engine = Engine(
            TableModel(soft, 4),
            Paced(ModelDrafter(TableModel(random_table(9, 4), 4)), FixedController(3)),
        )
        out = ids(engine, [1], params)
        assert all(some.after(tuple(out[:i]))[out[i]] for i in range(40))
        assert engine.stats.n_accepted > 0


def cut(draft: Draft, *allowed: int, stop=frozenset()) -> Draft:
    params = SamplingParams(constraint=Only(*allowed), stop_tokens=stop)
    return law_of(params, 1).cut(draft, [0])


def test_a_matched_draft_is_cut_before_what_is_refused_a_drawn_one_after_it():
    told = {"sources": ("m",) * 4, "confidence": (0.9, 0.8, 0.7, 0.6)}
    out = cut(Draft((1, 2, 3, 1), **told), 1, 2)
    assert (out.tokens, out.n_cut, out.confidence) == ((1, 2), 2, (0.9, 0.8, 0.7))
    out = cut(Draft((1, 3, 2, 1), probs=np.full((4, 4), 0.25, np.float32), sources=("m",) * 4), 1)
    assert (out.tokens, out.n_cut, out.probs.shape) == ((1, 3), 2, (2, 4))
    whole = Draft((1, 2))
    assert cut(whole, 1, 2) is whole
    assert cut(Draft((3,), sources=("m",)), 1) == Draft(sources=("m",), n_cut=1)


def test_what_follows_a_stop_token_is_not_judged():
    draft = Draft((1, 2, 3))
    assert cut(draft, 1, 2, stop=frozenset({2})) is draft
    law = law_of(SamplingParams(constraint=Only(1), stop_tokens=frozenset({2})), 0)
    assert law(np.float32([3, 2, 1, 0]), (1, 2)).tolist() == [1, 0, 0, 0]


def test_refused_branches_of_a_tree_go_with_all_below_them():
    tree = Draft((1, 3, 2, 1, 2), (-1, -1, 0, 1, 2), sources=("m",) * 5)
    out = cut(tree, 1, 2)
    assert (out.tokens, out.parents, out.n_cut) == ((1, 2, 2), (-1, 0, 1), 2)
    assert cut(tree, 0) == Draft(sources=("m",), n_cut=5)


def test_a_token_that_was_cut_counts_as_tested_once_all_before_it_are_accepted():
    p = np.float32([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    u = np.zeros((3, 2))
    assert accept(Draft((1, 2), n_cut=3), p, u, rule="match") == Verdict((1, 2, 0), (0, 1), 3)
    assert accept(Draft((0, 2), n_cut=3), p, u, rule="match") == Verdict((1,), (), 1)
    assert accept(Draft(n_cut=1), p[:1], u, rule="match") == Verdict((1,), (), 1)


def test_a_grammar_that_no_token_can_follow_ends_in_one_line():
    class Dead:
        def allowed(self, generated, ids):
            return np.full(len(ids), len(generated) < 5)

    engine = Engine(TableModel(random_table(1, 4), 4), Paced(TreeDrafter(4), FixedController(4)))
    with pytest.raises(TokenizerError, match="after 5 tokens the grammar allows none of the .* 4"):
        ids(engine, [1], SamplingParams(max_tokens=20, constraint=Dead()))
    assert len(ids(engine, [1], SamplingParams(max_tokens=20))) == 20


def test_a_drafter_that_has_no_allowed_token_draws_others():
    params = SamplingParams(temperature=1.0, top_k=2, constraint=Only(3))
    logits = np.float32([0, 1, 2, -np.inf])  # of a trimmed head
    law = law_of(params, 0)
    assert law.drafting()(logits, ()) == pytest.approx(Chain(params)(logits, ()))
    with pytest.raises(TokenizerError, match="none of the vocabulary's 4"):
        law(logits, ())


PLAIN_S, STEP_S = 0.011, 0.0006


def test_a_drafter_that_always_breaks_the_grammar_is_paused():
    """Alone and as one of several; what it costs stays under 1 %."""
    table = CostTable(tuple(PLAIN_S * (1 + 0.05 * n) for n in range(17)))
    for alone in (False, True):
        controller = AutoController(table) if alone else AutoPlanner(table)
        spent, n_drafts = 0.0, 0
        for i in range(2000):
            k = controller.next_length() if alone else controller.plan("model", (), STEP_S).width
            if not (alone or k) and controller.may_score("model"):
                k = 1
                controller.pay("model", STEP_S)
            draft = Draft(sources=("model",) * bool(k), confidence=(0.9,) * bool(k), n_cut=k)
            controller.observe(
                Round((), draft, Verdict((0,), (), int(k > 0)), Times(k * STEP_S, PLAIN_S))
            )
            if k and not alone:
                controller.learn("model", draft.confidence, (0,))
            if i >= 100:
                spent += k * STEP_S
                n_drafts += k > 0
        assert n_drafts > 0
        assert spent < 0.01 * 1900 * PLAIN_S
        assert "drafting paused" in controller.reason


def test_a_paid_drafter_that_never_finds_anything_is_asked_less_and_less(monkeypatch):
    class Empty:
        name, n_leaves, n_asked, now = "model", 1, 0, 0.0

        def draft(self, context, k, drawing=None):
            self.n_asked += 1
            self.now += 3e-4
            return Draft()

        def observe(self, done):
            pass

    planner, empty = AutoPlanner(CostTable((1e-3, *[1.1e-3] * 16))), Empty()
    monkeypatch.setattr(mixed_module, "perf_counter", lambda: empty.now)
    mixed = Mixed([empty], planner)
    for i in range(400):
        if i == 100:
            empty.n_asked = 0
        before = empty.now
        draft = mixed.propose([0], 16, None)
        times = Times(empty.now - before, 1e-3)
        mixed.observe(Round([0, 0], draft, Verdict((0,), (), 0), times))
    assert 0 < empty.n_asked < 20


def test_a_grammar_that_later_fits_the_drafts_reopens_drafting():
    table = CostTable(tuple(PLAIN_S * (1 + 0.05 * n) for n in range(17)))
    controller = AutoController(table)
    widths = []
    for i in range(900):
        k = controller.next_length()
        widths.append(k)
        if i < 400:
            draft, verdict = Draft(sources=("m",) * bool(k), n_cut=k), Verdict((0,), (), int(k > 0))
        else:
            draft = Draft((1,) * k, sources=("m",) * k)
            verdict = Verdict((1,) * (k + 1), tuple(range(k)), k)
        controller.observe(Round((), draft, verdict, Times(k * STEP_S, table.seconds[len(draft)])))
    assert sum(widths[300:400]) <= 20  # probes
    assert min(widths[-50:]) >= 4


def test_scores_are_the_log_softmax_of_the_raw_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=50, scale=4).astype(np.float32)
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    found = score(logits, 7, 5)
    order = np.argsort(-logits)[:5]
    assert found.logprob == pytest.approx(expected[7], abs=1e-6)
    assert [one for one, _ in found.top] == order.tolist()
    assert [value for _, value in found.top] == pytest.approx(expected[order], abs=1e-6)
    assert score(logits, 7, 0).top == ()
    assert len(score(logits, 7, 99).top) == 50
    equal = score(np.zeros(4, np.float32), 3, 2)
    assert [one for one, _ in equal.top] == [0, 1]
    assert equal.logprob == pytest.approx(np.log(0.25))


@pytest.mark.parametrize("drafter", ["same model", "ngram tree"])
def test_each_emitted_token_comes_with_the_score_of_its_own_place(drafter):
    table = random_table(2, 4)
    params = SamplingParams(
        max_tokens=30, repeat_penalty=1.3, constraint=Some(4), n_top=2, logit_bias={0: 1e-6}
    )
    soft = lambda prefix: table(prefix) * 0.9 + np.float32(0.025)  # noqa: E731
    engine = Engine(TableModel(soft, 4), speculators(2, 3)[drafter])
    context = [1]
    for step in engine.stream(context[:], params):
        assert len(step.scores) == len(step.verdict.tokens)
        for token, found in zip(step.verdict.tokens, step.scores, strict=True):
            row = np.log(soft(tuple(context)) / soft(tuple(context)).sum())
            assert found.logprob == pytest.approx(row[token], abs=1e-5)
            assert [one for one, _ in found.top] == np.argsort(-row, kind="stable")[:2].tolist()
            context.append(token)
    assert engine.stats.n_accepted > 0
    assert next(engine.stream([1], SamplingParams(max_tokens=1))).scores == ()
