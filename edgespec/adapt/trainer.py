"""Steps that bring an adapter nearer to its target, from positions the target has judged.

The same stream of examples and the same seed give bit-equal adapters on one machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adamw import AdamW, Settings
from edgespec.adapt.adapter import HeadAdapter
from edgespec.adapt.corrected import backward, corrected
from edgespec.adapt.examples import Batch, Examples
from edgespec.adapt.losses import Floats, Loss, Scored, covering

POSITIONS = 256  # of a step


@dataclass(frozen=True)
class Recipe:
    """How it learns.

    share: of a batch that is learned from, those whose loss is most above the slow average's; 1
    learns from all and keeps no average. AdaSPEC, Hu et al. 2025, arXiv 2510.19779, section 3,
    keeps 0.4 and has a reference trained before; here it is the average of the adapter itself.
    memory: of that average, for each step.
    """

    loss: Loss = covering
    optimizer: Settings = field(default_factory=Settings)
    share: float = 1.0
    memory: float = 0.98
    n_positions: int = POSITIONS


@dataclass(frozen=True)
class Trained:
    """What a step did. loss: mean over the positions learned from, before the step."""

    n_positions: int
    n_kept: int
    loss: float


class Trainer:
    """Owns what training needs beside the adapter, which it changes in place."""

    def __init__(self, adapter: HeadAdapter, recipe: Recipe | None = None, *, seed: int = 0):
        self.adapter, self.recipe = adapter, Recipe() if recipe is None else recipe
        self._rng = np.random.default_rng(seed)
        self.restart()

    def restart(self) -> None:
        """Forget moments and average: the adapter has become another one."""
        self._optimizer = AdamW(self.adapter.parameters, self.recipe.optimizer)
        self._slow = self.adapter.copy() if self.recipe.share < 1 else None

    def step(self, examples: Examples, topic: int = 0) -> Trained:
        """Learn from a sample of a topic's examples."""
        return self.learn(examples.sample(self.recipe.n_positions, self._rng, topic))

    def learn(self, batch: Batch) -> Trained:
        """One step on these positions; none without any."""
        if len(batch) == 0:
            return Trained(0, 0, 0.0)
        seen = corrected(self.adapter, batch)
        scored = self.recipe.loss(seen.z, batch.labels)
        kept = self._worth(batch, scored)
        dz = np.zeros_like(scored.dz)
        dz[kept] = scored.dz[kept] / np.float32(len(kept))
        slopes = backward(self.adapter, batch, seen, dz)
        self._optimizer.step(self.adapter.parameters, slopes.parts)
        self._follow()
        return Trained(len(batch), len(kept), float(scored.loss[kept].mean()))

    def hold(self, rows: NDArray[np.int64]) -> None:
        """Hold these rows of the head instead; what training knows of them moves along."""
        origin = self.adapter.hold(rows)
        self._optimizer.move(1, origin)
        self._optimizer.move(2, origin)
        if self._slow is not None:
            self._slow.hold(rows)

    def _worth(self, batch: Batch, scored: Scored) -> NDArray[np.int64]:
        """Which positions to learn from, rising."""
        if self._slow is None:
            return np.arange(len(batch))
        reference = score(self._slow, batch, self.recipe.loss)
        return most_above(scored.loss, reference.loss, self.recipe.share)

    def _follow(self) -> None:
        """Move the average a little towards the adapter."""
        if self._slow is not None:
            for slow, now in zip(self._slow.parameters, self.adapter.parameters, strict=True):
                slow += (1 - self.recipe.memory) * (now - slow)


def score(adapter: HeadAdapter, batch: Batch, loss: Loss) -> Scored:
    """Losses of a batch under an adapter."""
    return loss(corrected(adapter, batch).z, batch.labels)


def most_above(losses: Floats, reference: Floats, share: float) -> NDArray[np.int64]:
    """The share of positions whose losses are most above the reference's, rising; one at least.

    Of equal ones those of the largest loss. losses, reference: [m].
    """
    order = np.lexsort((-losses, reference - losses))
    return np.sort(order[: max(1, round(share * len(losses)))])
