"""The gate: what helps is adopted, what does not leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from head_pair import HeadPair, taught
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.adapt.adamw import Settings
from edgespec.adapt.adapter import fresh
from edgespec.adapt.examples import Examples
from edgespec.adapt.gate import FEWEST, PIECE, Gate, expected, rates
from edgespec.adapt.labels import labels
from edgespec.adapt.trainer import Recipe, Trainer

PAIR = HeadPair()
RECIPE = Recipe(optimizer=Settings(rate=0.01), n_positions=128)


def judged(examples, *, greedy=True, n_steps=20, seed=0, held=None):
    """An adapter trained on the examples, its gate, and what the gate says of it."""
    adapter = fresh(np.arange(PAIR.n), PAIR.d, rank=8, seed=seed)
    gate, learner = Gate(adapter, greedy=greedy), Trainer(adapter, RECIPE, seed=seed)
    for _ in range(n_steps):
        learner.step(examples)
    return adapter, gate, gate.decide(adapter, held or examples.held_out())


@pytest.mark.parametrize("greedy", [True, False])
def test_what_is_there_to_learn_is_adopted(greedy):
    adapter, gate, verdict = judged(taught(PAIR, n_requests=64), greedy=greedy)
    assert verdict.adopted and verdict.n_requests == 8
    assert verdict.after > verdict.before + 0.2
    assert np.array_equal(gate.good.up, adapter.up) and gate.good.up is not adapter.up


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_are_rejected(greedy, seed):
    true, rng, wrong = taught(PAIR, n_requests=64), np.random.default_rng(seed), Examples(PAIR.d)
    for request in range(64):
        hidden = PAIR.hidden(32, rng)
        wrong.add(request, hidden, PAIR.drafted(hidden), PAIR.labels(rng.permutation(hidden), rng))
    held = true.held_out()
    adapter, _, verdict = judged(wrong, greedy=greedy, n_steps=60, seed=seed, held=held)
    assert not verdict.adopted
    assert not adapter.up.any()


@pytest.mark.slow
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_random_tokens_change_nothing(greedy, seed):
    examples, rng = Examples(PAIR.d), np.random.default_rng(seed)
    for request in range(64):
        hidden = PAIR.hidden(32, rng)
        tokens = rng.integers(0, PAIR.n, (32, 1))
        examples.add(
            request, hidden, PAIR.drafted(hidden), labels(tokens, np.ones((32, 1), np.float32))
        )
    adapter, gate, verdict = judged(examples, greedy=greedy, seed=seed)
    assert not verdict.adopted
    assert not adapter.up.any() and not adapter.bias.any()
    untouched = fresh(np.arange(PAIR.n), PAIR.d, rank=8, seed=seed)
    assert adapter.down.tobytes() == untouched.down.tobytes() == gate.good.down.tobytes()


def test_a_bad_update_falls_back_to_the_last_good_one():
    examples = taught(PAIR, n_requests=64)
    adapter, gate, _ = judged(examples)
    good = adapter.up.copy()
    adapter.up[:] = -adapter.up
    adapter.hold(np.arange(10))
    assert not gate.decide(adapter, examples.held_out()).adopted
    assert np.array_equal(adapter.up, good) and len(adapter.rows) == PAIR.n


def test_the_same_adapter_again_is_no_improvement():
    examples = taught(PAIR, n_requests=64)
    adapter, gate, _ = judged(examples)
    assert not gate.judge(adapter, examples.held_out()).adopted


def test_judging_piece_by_piece_says_the_same():
    examples = taught(PAIR, n_requests=64)
    adapter = fresh(np.arange(PAIR.n), PAIR.d, rank=8)
    gate, held = Gate(adapter), examples.held_out()
    adapter.bias += np.random.default_rng(0).standard_normal(PAIR.n).astype(np.float32)
    judging, n_pieces = gate.judging(adapter, held), 0
    with pytest.raises(StopIteration) as ended:
        while True:
            next(judging)
            n_pieces += 1
    assert n_pieces == 2 * -(-len(held) // PIECE) > 2
    assert ended.value.value == gate.judge(adapter, held)


def test_few_requests_prove_nothing():
    examples = taught(PAIR, n_requests=8 * (FEWEST - 1))
    assert not judged(examples)[2].adopted


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=9), st.integers(1, 5))
def test_what_is_expected_ends_with_the_request(positions, n_draft):
    positions.sort(key=lambda pair: pair[0])
    request = np.array([r for r, _ in positions], int)
    rate = np.array([x for _, x in positions])
    found = expected(rate, request, n_draft)
    for start in range(len(rate)):
        runs = [
            rate[start : start + i].prod()
            for i in range(1, n_draft + 1)
            if start + i <= len(rate) and request[start + i - 1] == request[start]
        ]
        assert found[start] == pytest.approx(sum(runs))


def test_rates_never_exceed_the_true_acceptance():
    adapter, rng = fresh(np.arange(PAIR.n), PAIR.d, rank=8), np.random.default_rng(0)
    examples, hidden = Examples(PAIR.d, held_out=1), PAIR.hidden(40, rng)
    examples.add(0, hidden, PAIR.drafted(hidden), PAIR.labels(hidden, rng))
    found = rates(adapter, examples.held_out(), greedy=False)
    q, p = (np.exp(z - np.logaddexp.reduce(z, 1)[:, None]) for z in both(hidden))
    true = np.minimum(p, q).sum(axis=1)
    assert (found < true + 1e-3).all() and (found > true - 0.1).all()
    same = PAIR.drafted(hidden).argmax(1) == PAIR.said(hidden).argmax(1)
    assert rates(adapter, examples.held_out(), greedy=True).tolist() == same.tolist()


def both(hidden):
    """Logits of drafter and target."""
    return PAIR.drafted(hidden).astype(float), PAIR.said(hidden).astype(float)


def test_the_mass_of_all_other_columns_is_no_best_column():
    examples, logits = Examples(2, kept=1, n_top=0, held_out=1), np.zeros((1, 50), np.float32)
    logits[0, 3] = 1
    examples.add(0, np.zeros((1, 2)), logits, labels(np.array([[3]]), np.ones((1, 1))))
    adapter = fresh(np.arange(50), 2, rank=8)
    assert rates(adapter, examples.held_out(), greedy=True).tolist() == [1]


def test_a_piece_counts_as_the_whole_law():
    examples, hidden = Examples(PAIR.d, held_out=1), PAIR.hidden(3, np.random.default_rng(1))
    logits = PAIR.drafted(hidden)
    piece = logits.argmax(axis=1)
    none = labels(np.full((3, 1), -1), np.zeros((3, 1)), piece=piece)
    examples.add(0, hidden, logits, replace(none, piece=np.array([piece[0], 199, piece[2]])))
    adapter = fresh(np.arange(PAIR.n), PAIR.d, rank=8)
    assert rates(adapter, examples.held_out(), greedy=True).tolist() == [1, 0, 1]
    law = np.exp(logits[0] - np.logaddexp.reduce(logits[0]))
    assert rates(adapter, examples.held_out(), greedy=False)[0] == pytest.approx(
        law.max(), rel=1e-2
    )


@pytest.mark.parametrize(("prob", "right"), [(0.7, 1), (0.4, 0)])
def test_where_the_target_may_prefer_a_token_without_a_column_no_guess_is_right(prob, right):
    examples, logits = Examples(2, kept=1, n_top=0, held_out=1), np.zeros((1, 50), np.float32)
    logits[0, 3] = 9
    examples.add(0, np.zeros((1, 2)), logits, labels(np.array([[3]]), np.full((1, 1), prob)))
    adapter = fresh(np.arange(50), 2, rank=8)
    assert rates(adapter, examples.held_out(), greedy=True).tolist() == [right]
