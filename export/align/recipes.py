"""How a drafter is taught, by name: the loss, the positions it learns from, and the schedule.

The data are the same for all, the target's likeliest answers to prompts, labelled with its law.
What the papers do beyond that is not repeated here: FastDraft trains a drafter of its own before,
DistillSpec lets the drafter write, too, and TVD++ mixes other text in. DVI's reward (arXiv
2510.05421) is for drafted tokens that were accepted or refused; nothing is drafted for an answer
that the target wrote alone, so it has no recipe here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgespec.adapt.losses import (
    Loss,
    covering,
    forward_kl,
    hybrid,
    jsd,
    nll,
    reverse_kl,
    tvd,
    tvd_plus,
)
from edgespec.errors import UsageError

FILTERED = 0.4  # of the positions: AdaSPEC's choice


@dataclass(frozen=True)
class Kind:
    """A loss, and what of a batch is learned from.

    share: of the positions where the target's law is known, those whose loss is most above that of
    a reference: a drafter that was trained before, in the same way from all of them. 1: all, and
    those within a token of the target's, too. by_token: from what was said alone, not from its law.
    """

    loss: Loss
    share: float = 1.0
    by_token: bool = False


KINDS = {
    "covering": Kind(covering),  # ours: OmniDraft's with forward KL
    "omnidraft": Kind(hybrid),  # arXiv 2507.02659
    "distillspec": Kind(jsd),  # arXiv 2310.08461, which tries the next three as well
    "forward-kl": Kind(forward_kl),
    "reverse-kl": Kind(reverse_kl),
    "tvd": Kind(tvd),
    "tvd++": Kind(tvd_plus),  # arXiv 2403.00858
    "adaspec": Kind(forward_kl, FILTERED),  # arXiv 2510.19779, section 3
    "fastdraft": Kind(nll, by_token=True),  # arXiv 2411.11055
}


@dataclass(frozen=True)
class Recipe:
    """How to train. name: of KINDS. tokens: of a batch, the padding included.

    Raises: UsageError.
    """

    name: str = "covering"
    epochs: int = 3
    rate: float = 5e-4
    warmup: float = 0.05
    tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise UsageError(f"recipe {self.name!r}: expected one of {', '.join(KINDS)}")

    @property
    def kind(self) -> Kind:
        """Its loss and share."""
        return KINDS[self.name]

    def rate_at(self, step: int, steps: int) -> float:
        """Rises in the first `warmup` of the steps, then falls along half a cosine."""
        start = max(1.0, self.warmup * steps)
        if step < start:
            return self.rate * (step + 1) / start
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, steps - start)))
