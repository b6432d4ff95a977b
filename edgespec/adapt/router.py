"""Which topic a prompt is of, by its features: multinomial logistic regression, learned online.

Source: the topic classifier of Online Speculative Decoding, Liu et al. 2023, arXiv 2310.07177, a
DistilBERT there. Here it is linear in hashed features: a phone has no time for more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.features import BUCKETS, Buckets

SHARP = 20.0  # of likeness: cosines of one kind are about 0.35, of two 0.1
WEIGHT = 0.5  # of a position at which one head was right and another was not
DOUBT = 0.05  # probability of each topic, at least, before an answer is looked at
RATE = 4.0  # a prompt that was wrong at even odds moves its own logit by half of that

Floats = NDArray[np.floating[Any]]
Law = NDArray[np.float64]
"""[n] probabilities of some topics, in the order they are given in."""


class Router:
    """weights: [topics, BUCKETS], zero at first: then likeness alone decides.

    likeness: [n] how like a prompt is those of each topic so far (familiar.py), a feature whose
    weight is not learned. That of no topic counts as one of them.
    """

    def __init__(self, n_topics: int) -> None:
        self.weights = np.zeros((n_topics, BUCKETS), np.float32)

    def law(self, of: Buckets, topics: Sequence[int], likeness: Floats) -> Law:
        """How likely a prompt is of each of some topics."""
        z = self.weights[np.ix_(np.array(topics), of)].sum(axis=1, dtype=np.float64)
        z = z / max(len(of), 1) ** 0.5 + SHARP * likeness
        law = np.exp(z - z.max())
        return np.asarray(law / law.sum())

    def learn(self, of: Buckets, topics: Sequence[int], law: Law, right: Floats) -> None:
        """One step from what the law was to what it should have been. right: as of `after`."""
        slope = after(law, right) - doubted(law)
        step = (RATE * slope / max(len(of), 1) ** 0.5).astype(np.float32)
        self.weights[np.ix_(np.array(topics), of)] += step[:, None]

    def forget(self, topic: int) -> None:
        """It is another topic from now on."""
        self.weights[topic] = 0


def after(law: Law, right: Floats) -> Law:
    """That law after an answer at which the topics' heads were right at so many positions, [n]."""
    goal = doubted(law) * np.exp(WEIGHT * (right - right.max()))
    return np.asarray(goal / goal.sum())


def doubted(law: Law) -> Law:
    """A law that is sure of nothing, so that what an answer shows can change it."""
    law = np.maximum(law, DOUBT)
    return np.asarray(law / law.sum())
