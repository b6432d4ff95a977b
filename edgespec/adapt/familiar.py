"""Whether a prompt is like those of a topic, and whether strangers are of a kind of their own.

A topic's prompts are known by how many of them have each feature. Features count the less, the more
prompts of all topics have them: a template's tokens and a system prompt say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.answer import Answer
from edgespec.adapt.features import BUCKETS, Buckets

LIKE = 0.55  # of what a topic's own prompts are like it, or a prompt is strange
LATELY = 1 / 32  # what the latest prompt counts of how like its topic prompts are
MEMORY = 64  # prompts of a topic, about, that it is known by
YOUNG = 8  # prompts; a topic with fewer takes all that is most like it
STRANGERS = 4  # prompts that are more like each other than like any topic open a new one
LATEST, AGO = 8, 24  # strangers that are remembered, and for how many requests

Floats = NDArray[np.float32]


class Familiar:
    """counts: [topics] prompts of each. means: [topics, BUCKETS] shares of those with each feature,
    the later ones counting more. usual: [topics] how like it they were. seen: [BUCKETS] of
    all n prompts those with each feature.
    """

    def __init__(self, n_topics: int) -> None:
        self.counts, self.usual = np.zeros(n_topics, np.int64), np.zeros(n_topics, np.float32)
        self.means = np.zeros((n_topics, BUCKETS), np.float32)
        self.seen = np.zeros(BUCKETS, np.float32)
        self.strangers: list[Answer] = []

    def likeness(self, of: Buckets, topics: Sequence[int]) -> Floats:
        """[n] cosines of a prompt and the means of some topics."""
        return self._cosines(of, self.means[topics])

    def expected(self, of: Buckets, topics: Sequence[int]) -> float:
        """How like its topic a prompt has to be, or it is strange; -1 where that topic is young."""
        best = topics[int(self.likeness(of, topics).argmax())]
        return LIKE * float(self.usual[best]) if self.counts[best] >= YOUNG else -1.0

    def is_like(self, of: Buckets, topic: int) -> bool:
        """Whether a prompt is like those of a topic, or that is young."""
        like = float(self.likeness(of, [topic])[0])
        return self.counts[topic] < YOUNG or like > LIKE * float(self.usual[topic])

    def are_a_kind(self, new: Answer, topics: Sequence[int]) -> bool:
        """Remember a stranger; whether there are enough that are more like each other than like
        any topic.
        """
        self.strangers = [one for one in self.strangers if one.request > new.request - AGO]
        kind = np.zeros((1, BUCKETS), np.float32)
        for one in self.strangers:
            kind[0, one.of] += 1
        is_one = self._cosines(new.of, kind)[0] > self.likeness(new.of, topics).max()
        self.strangers = [*self.strangers, new][-LATEST:]
        return bool(is_one) and len(self.strangers) >= STRANGERS

    def add(self, of: Buckets, topic: int) -> None:
        """A prompt was of a topic."""
        like = self.likeness(of, [topic])[0]
        self.counts[topic] += 1
        share = np.float32(1 / min(self.counts[topic], MEMORY))
        self.usual[topic] += max(share, np.float32(LATELY)) * (like - self.usual[topic])
        self.means[topic] *= 1 - share
        self.means[topic, of] += share

    def meet(self, of: Buckets) -> None:
        """A prompt comes, whatever it is of."""
        self.seen[of] += 1

    def forget(self, topic: int) -> None:
        """It is another topic from now on."""
        self.counts[topic] = self.usual[topic] = 0
        self.means[topic] = 0

    def _cosines(self, of: Buckets, others: Floats) -> Floats:
        """[n] of a prompt and others [n, BUCKETS], by what features are worth."""
        worth = np.log((self.seen.max() + 2) / (self.seen + 1))
        length = worth[of].sum() * (others**2 @ worth)
        return np.asarray(others[:, of] @ worth[of] / np.sqrt(np.maximum(length, 1e-9)), np.float32)
