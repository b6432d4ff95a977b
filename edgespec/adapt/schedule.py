"""Divergence first, then more and more of what was accepted: the loss changes as training goes on.

A divergence brings the law near; the reward of drafted tokens then weighs what verification kept.
The reward is right for positions drafted since the last step only: see adapt.losses.reward.
Source: DVI (Draft, Verify & Improve), Bhansali and Heck 2025, arXiv 2510.05421: distillation, then
a policy gradient on accept and reject. The numbers here are ours; its cross-entropy of accepted
tokens is left out, as labels hold the target's whole law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.labels import Labels
from edgespec.adapt.losses import Loss, Scored, reverse_kl, reward

MEMORY = 0.95  # of the baseline, for each step


@dataclass
class Scheduled:
    """A loss that knows how often it was called; use one in each trainer.

    first: steps of the divergence alone. rise: steps until the reward has its share, `most`.
    """

    divergence: Loss = reverse_kl
    first: int = 100
    rise: int = 200
    most: float = 0.5
    n_steps: int = 0
    baseline: float = 0.0

    @property
    def share(self) -> float:
        """The reward's, 0 at first."""
        return self.most * min(max(self.n_steps - self.first, 0) / self.rise, 1.0)

    def __call__(self, z: NDArray[np.floating[Any]], labels: Labels) -> Scored:
        """The mixed loss of a batch; the baseline is the mean of rewards before it."""
        share = self.share
        base = self.divergence(z, labels)
        kept = reward(z, labels, baseline=self.baseline)
        self._observe(labels)
        loss = (1 - share) * base.loss + share * kept.loss
        return Scored(loss, (1 - share) * base.dz + share * kept.dz)

    def _observe(self, labels: Labels) -> None:
        """Count the step; move the baseline towards the share that was accepted."""
        drafted = labels.drafted >= 0
        if drafted.any():
            mean = float(labels.accepted[drafted].mean())
            memory = MEMORY if self.n_steps else 0.0
            self.baseline = memory * self.baseline + (1 - memory) * mean
        self.n_steps += 1
