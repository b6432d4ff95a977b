"""The verification rules emit the target's law. No random numbers: thresholds are bisected."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.decode.uniforms import pick
from edgespec.decode.verify import accept, residual
from edgespec.errors import ShapeError
from edgespec.types import Draft, Verdict

ALMOST_ONE = np.nextafter(1.0, 0.0)


def laws(n_vocab: int):
    """Laws [V] with zeros allowed, in hypothesis' shrinking order."""
    weights = st.lists(st.integers(0, 7), min_size=n_vocab, max_size=n_vocab).filter(any)
    return weights.map(lambda w: (np.array(w) / sum(w)).astype(np.float32))


@st.composite
def chains(draw):
    """(p, q) as tables over prefixes up to length k, for V of 2 to 3 and k of 1 to 2."""
    n_vocab, k = draw(st.integers(2, 3)), draw(st.integers(1, 2))
    prefixes = [s for n in range(k + 1) for s in itertools.product(range(n_vocab), repeat=n)]
    p = {s: draw(laws(n_vocab)) for s in prefixes}
    q = {s: draw(laws(n_vocab)) for s in prefixes if len(s) < k}
    return n_vocab, k, p, q


def threshold(holds) -> float:
    """Largest u in [0, 1] below which `holds(u)`, for a test that holds up to a point."""
    low, high = 0.0, 1.0
    if holds(ALMOST_ONE):
        return 1.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low if low > 1e-12 else 0.0


def law_of_picks(token_at, n_vocab: int) -> np.ndarray:
    """Law of token_at(u) for a function that grows with u."""
    at_most = [threshold(lambda u, v=v: token_at(u) <= v) for v in range(n_vocab)]
    return np.diff([0.0, *at_most])


def emitted_law(rule: str, n_vocab: int, k: int, p, q) -> dict[tuple[int, ...], float]:
    """Law of k + 1 tokens: one round by `rule`, then plain decoding from p."""
    law: dict[tuple[int, ...], float] = {}

    def finish(prefix: tuple[int, ...], weight: float) -> None:
        if weight == 0 or len(prefix) == k + 1:
            law[prefix] = law.get(prefix, 0.0) + weight
            return
        for token in range(n_vocab):
            finish((*prefix, token), weight * float(p[prefix][token]))

    for x in itertools.product(range(n_vocab), repeat=k):
        weight = float(np.prod([q[x[:i]][x[i]] for i in range(k)]))
        if weight == 0:
            continue
        draft = Draft(x, probs=np.stack([q[x[:i]] for i in range(k)]))
        rows = np.stack([p[x[:i]] for i in range(k + 1)])

        def verdict(tests, u_pick=0.0, draft=draft, rows=rows) -> Verdict:
            u = np.array([*zip(tests, [u_pick] * k, strict=True), (0.0, u_pick)], float)
            return accept(draft, rows, u, rule=rule)

        for n_kept, chance in enumerate(kept_chances(rule, k, verdict)):
            if chance == 0:
                continue
            tests = uniforms_keeping(rule, k, n_kept)
            picks = law_of_picks(lambda u, t=tests: verdict(t, u).tokens[-1], n_vocab)
            for token, share in enumerate(picks):
                finish((*x[:n_kept], token), weight * chance * share)
    return law


def uniforms_keeping(rule: str, k: int, n_kept: int) -> list[float]:
    """Acceptance uniforms that keep n_kept tokens, where that is possible at all."""
    if rule == "block":  # the longest passing prefix counts, whatever came before
        return [0.0 if i == n_kept - 1 else ALMOST_ONE for i in range(k)]
    return [0.0 if i < n_kept else ALMOST_ONE for i in range(k)]


def kept_chances(rule: str, k: int, verdict) -> list[float]:
    """Probability that exactly 0..k tokens are kept, from bisected thresholds."""
    if rule == "block":
        passes = [
            threshold(
                lambda u, i=i: (
                    len(verdict([u if j == i else ALMOST_ONE for j in range(k)]).accepted) > i
                )
            )
            for i in range(k)
        ]
        return [
            (passes[n - 1] if n else 1.0) * float(np.prod([1 - c for c in passes[n:]]))
            for n in range(k + 1)
        ]
    passes = [
        threshold(
            lambda u, i=i: (
                len(
                    verdict(
                        [0.0 if j < i else u if j == i else ALMOST_ONE for j in range(k)]
                    ).accepted
                )
                > i
            )
        )
        for i in range(k)
    ]
    return [float(np.prod(passes[:n])) * (1 - passes[n] if n < k else 1.0) for n in range(k + 1)]


@pytest.mark.parametrize("rule", ["rejection", "block"])
@given(chain=chains())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_output_law_ignores_the_draft(rule, chain):
    n_vocab, k, p, q = chain
    law = emitted_law(rule, n_vocab, k, p, q)
    for s in itertools.product(range(n_vocab), repeat=k + 1):
        expected = float(np.prod([float(p[s[:i]][s[i]]) for i in range(k + 1)]))
        assert law.get(s, 0.0) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@given(chain=chains())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_block_verification_keeps_at_least_as_many_tokens(chain):
    n_vocab, k, p, q = chain
    mean = {"rejection": 0.0, "block": 0.0}
    for rule in mean:
        for x in itertools.product(range(n_vocab), repeat=k):
            weight = float(np.prod([q[x[:i]][x[i]] for i in range(k)]))
            if weight == 0:
                continue
            draft = Draft(x, probs=np.stack([q[x[:i]] for i in range(k)]))
            rows = np.stack([p[x[:i]] for i in range(k + 1)])

            def verdict(tests, draft=draft, rows=rows, rule=rule):
                return accept(
                    draft,
                    rows,
                    np.array([*zip(tests, [0.0] * k, strict=True), (0, 0)], float),
                    rule=rule,
                )

            chances = kept_chances(rule, k, verdict)
            mean[rule] += weight * sum(n * chance for n, chance in enumerate(chances))
    assert mean["block"] >= mean["rejection"] - 1e-6


@st.composite
def trees(draw):
    """A draft tree of 1 to 6 nodes over 3 tokens, repeated siblings allowed."""
    n = draw(st.integers(1, 6))
    parents = tuple(draw(st.integers(-1, node - 1)) for node in range(n))
    return Draft(tuple(draw(st.integers(0, 2)) for _ in range(n)), parents)


@pytest.mark.slow
@given(draft=trees(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_matched_tree_emits_what_plain_decoding_emits(draft, seed):
    """For all uniforms on a grid the verdict is a prefix of plain decoding with the same ones."""

    def law(prefix: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, *prefix])
        return rng.dirichlet(np.ones(3)).astype(np.float32)

    p = np.stack([law(()), *(law(draft.path(node)) for node in range(len(draft)))])
    grid = (np.arange(5) + 0.5) / 5
    for picks in itertools.product(grid, repeat=3):
        u = np.zeros((len(draft) + 1, 2))
        u[:3, 1] = picks[: len(u)]
        u[3:, 1] = 0.3
        plain: tuple[int, ...] = ()
        while len(plain) < len(draft) + 1:
            plain = (*plain, pick(law(plain), u[len(plain), 1]))
        verdict = accept(draft, p, u, rule="match")
        assert verdict.tokens == plain[: len(verdict.tokens)]
        assert draft.path(verdict.accepted[-1] if verdict.accepted else -1) == verdict.tokens[:-1]
        if len(verdict.tokens) < len(plain):  # it stopped because nobody drafted the token
            node = verdict.accepted[-1] if verdict.accepted else -1
            below = [
                t for t, above in zip(draft.tokens, draft.parents, strict=True) if above == node
            ]
            assert verdict.tokens[-1] not in below


@given(p=laws(5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pick_has_the_law_it_is_given(p):
    picked = law_of_picks(lambda u: pick(p, u), 5)
    assert picked == pytest.approx(p, abs=1e-6)


@given(p=laws(4), u=st.sampled_from([0.0, 0.5, ALMOST_ONE]))
def test_pick_never_takes_an_impossible_token(p, u):
    assert p[pick(p, u)] > 0


def test_pick_scales_a_law_that_does_not_sum_to_one():
    assert [pick(np.float32([0.1, 0.1]), u) for u in (0.49, 0.51)] == [0, 1]


def test_a_draft_with_the_targets_law_is_accepted_whole():
    p = np.float32([[0.2, 0.8], [0.5, 0.5], [1, 0]])
    verdict = accept(Draft((1, 0), probs=p[:2]), p, np.full((3, 2), ALMOST_ONE))
    assert verdict == Verdict((1, 0, 0), (0, 1), 2)


def test_a_refused_token_counts_as_tested_and_the_rest_do_not():
    p = np.float32([[1, 0], [1, 0], [1, 0]])
    assert accept(Draft((1, 0)), p, np.zeros((3, 2))) == Verdict((0,), (), 1)


def test_rounding_in_the_residual_falls_back_to_the_target():
    p = np.float32([0.25, 0.75])
    assert (residual(p, p) == p).all()


def test_until_cuts_after_a_stop_token_inside_the_draft():
    verdict = Verdict((5, 2, 7), (0, 1), 2).until(frozenset({2}), 9)
    assert verdict == Verdict((5, 2), (0, 1), 2)
    assert Verdict((5, 2, 7), (0, 1), 2).until(frozenset(), 1) == Verdict((5,), (0,), 1)


def test_a_wrong_number_of_rows_is_an_error():
    with pytest.raises(ShapeError, match="expected 2"):
        accept(Draft((1,)), np.ones((1, 2), np.float32), np.zeros((2, 2)))
