"""Training: it brings a drafter nearer to its target, and the same stream gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from head_pair import HeadPair, taught

from edgespec.adapt.adamw import Settings
from edgespec.adapt.adapter import fresh
from edgespec.adapt.examples import Examples
from edgespec.adapt.losses import LOSSES, covering
from edgespec.adapt.trainer import Recipe, Trainer, score

PAIR = HeadPair()
FAST = Settings(rate=0.01)


def trainer(seed=0, rows=PAIR.n, **recipe):
    """Of a fresh adapter for all rows."""
    adapter = fresh(np.arange(rows), PAIR.d, rank=8, seed=seed)
    return Trainer(adapter, Recipe(optimizer=FAST, **recipe), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forward-kl", "hybrid", "jsd", "tvd", "tvd++"])
def test_training_lifts_the_acceptance(name):
    examples, learner = taught(PAIR), trainer(loss=LOSSES[name], n_positions=128)
    before = PAIR.acceptance(learner.adapter)
    for _ in range(60):
        done = learner.step(examples)
    after = PAIR.acceptance(learner.adapter)
    assert after[0] > before[0] + 0.1 and after[1] > before[1] + 0.1
    assert done.n_positions == done.n_kept == 128


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_same_stream_gives_bit_equal_adapters(share):
    def run(seed):
        examples, learner = Examples(PAIR.d), trainer(seed, share=share, n_positions=64)
        rng = np.random.default_rng(7)
        for request in range(12):
            hidden = PAIR.hidden(20, rng)
            examples.add(request, hidden, PAIR.drafted(hidden), PAIR.labels(hidden, rng))
            learner.step(examples)
        return [part.tobytes() for part in learner.adapter.parameters]

    assert run(1) == run(1) != run(2)


def test_the_filter_learns_from_the_positions_that_fell_behind():
    learner, batch = trainer(share=0.4), taught(PAIR).sample(50, np.random.default_rng(0))
    reference = score(learner.adapter, batch, covering).loss
    learner.adapter.bias += np.random.default_rng(1).standard_normal(PAIR.n).astype(np.float32)
    loss = score(learner.adapter, batch, covering).loss
    behind = np.argsort(reference - loss)[:20]
    done = learner.learn(batch)
    assert (done.n_positions, done.n_kept) == (50, 20)
    assert done.loss == pytest.approx(loss[behind].mean(), rel=1e-5)


def test_rows_that_are_not_held_stay_as_they_were():
    examples, learner = taught(PAIR), trainer(rows=50)
    for _ in range(10):
        learner.step(examples)
    logits = np.zeros(PAIR.n, np.float32)
    learner.adapter.correct(logits, PAIR.centres[0].astype(np.float32))
    assert logits[:50].any() and not logits[50:].any()


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_training_goes_on_with_other_rows(share):
    examples, learner = taught(PAIR), trainer(rows=50, share=share)
    learner.step(examples)
    kept = learner.adapter.up[40:].copy()
    learner.hold(np.arange(40, 120))
    assert np.array_equal(learner.adapter.up[:10], kept) and not learner.adapter.up[10:].any()
    learner.step(examples)
    assert learner.adapter.up[10:].any()


def test_nothing_is_learned_from_nothing():
    learner = trainer()
    assert learner.step(Examples(PAIR.d)).n_positions == 0
    assert not learner.adapter.up.any()
