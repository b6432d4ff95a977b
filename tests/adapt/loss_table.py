"""What each loss gives on a synthetic pair of heads: the table of edgespec/adapt/README.md.

`OMP_NUM_THREADS=1 python tests/adapt/loss_table.py [RATE]`, two minutes. Acceptance is the mean of
sum min(p, q) over all columns at 2,048 fresh positions; agreement is how often both have one best.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from head_pair import HeadPair, law, taught

from edgespec.adapt.adamw import Settings
from edgespec.adapt.adapter import fresh
from edgespec.adapt.losses import LOSSES, Loss, hybrid, reward
from edgespec.adapt.schedule import Scheduled
from edgespec.adapt.trainer import Recipe, Trainer

N_STEPS, N_ROWS = 500, 4096


def recipes(rate: float) -> dict[str, Recipe]:
    """By the names of the table's lines."""
    plain = {name: Recipe(loss=loss) for name, loss in LOSSES.items() if name != "nll"}
    plain["hybrid, filter 0.4"] = Recipe(loss=hybrid, share=0.4)
    plain["reverse-kl, then reward"] = Recipe(loss=Scheduled())
    plain["reward, drawn anew"] = Recipe(loss=drawn_anew(reward))
    plain["reverse-kl, then reward, drawn anew"] = Recipe(loss=drawn_anew(Scheduled()))
    settings = Settings(rate=rate)
    return {name: replace(recipe, optimizer=settings) for name, recipe in plain.items()}


def drawn_anew(loss: Loss) -> Loss:
    """The same where each step drafts with the adapter as it is, as if nothing were replayed."""
    rng = np.random.default_rng(5)

    def scored(z, labels):
        q, line = law(z), np.arange(len(z))
        drafted = (q.cumsum(axis=1) > rng.random((len(q), 1))).argmax(axis=1)
        p = np.concatenate(
            [labels.probs, np.zeros((len(z), z.shape[1] - labels.probs.shape[1]))], 1
        )
        accepted = rng.random(len(z)) < p[line, drafted] / q[line, drafted]
        drafted = np.where(drafted == z.shape[1] - 1, -1, drafted)  # which of the others: unknown
        return loss(z, replace(labels, drafted=drafted, accepted=accepted))

    return scored


def main(rate: float) -> None:
    """Print the table's lines."""
    pair = HeadPair(n=N_ROWS, d=64)
    examples = taught(pair, n_requests=400)
    frozen = pair.acceptance(fresh(np.arange(N_ROWS), pair.d), m=2048)
    print(f"| frozen | {frozen[0]:.3f} | {frozen[1]:.3f} |")
    for name, recipe in recipes(rate).items():
        learner = Trainer(fresh(np.arange(N_ROWS), pair.d, rank=32), recipe)
        for _ in range(N_STEPS):
            learner.step(examples)
        lifted = pair.acceptance(learner.adapter, m=2048)
        print(f"| {name} | {lifted[0]:.3f} | {lifted[1]:.3f} |", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3e-3)
