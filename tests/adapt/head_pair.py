"""A drafter and a target that are two heads over the same hidden states.

The target's head lies near the drafter's; hidden states come from a seeded mixture, so there is
something to learn, and a law to compare with.
"""

from __future__ import annotations

import numpy as np

from edgespec.adapt.examples import Examples
from edgespec.adapt.labels import Labels, labels, mapped


class HeadPair:
    """n columns, d numbers of hidden state."""

    def __init__(self, n=200, d=16, apart=0.5, seed=0):
        rng = np.random.default_rng(seed)
        self.n, self.d, scale = n, d, 2.2 / np.sqrt(d)
        self.drafter = (scale * rng.standard_normal((n, d))).astype(np.float32)
        change = apart * scale * rng.standard_normal((n, d))
        self.target = (1.25 * (self.drafter + change)).astype(np.float32)
        self.bias = -np.log(np.arange(n) + 10).astype(np.float32)
        self.centres = rng.standard_normal((20, d))

    def hidden(self, m, rng):
        """[m, d]."""
        near = self.centres[rng.integers(0, len(self.centres), m)]
        return (near + rng.standard_normal((m, self.d)) / 2).astype(np.float32)

    def drafted(self, hidden):
        """Logits [m, n] of the drafter."""
        return hidden @ self.drafter.T + self.bias

    def said(self, hidden):
        """Logits [m, n] of the target."""
        return hidden @ self.target.T + self.bias

    def labels(self, hidden, rng, kept=64):
        """The target's law of m positions and what the drafter drew there."""
        q, p = law(self.drafted(hidden)), law(self.said(hidden))
        found = mapped(self.said(hidden), np.arange(self.n), kept=kept)
        given = labels(found.ids, found.probs)
        drawn = (q.cumsum(axis=1) > rng.random((len(q), 1))).argmax(axis=1)
        at = np.arange(len(q)), drawn
        accepted = rng.random(len(q)) < np.minimum(1, p[at] / q[at])
        return Labels(given.ids, given.probs, given.piece, drawn, accepted)

    def acceptance(self, adapter, m=512, seed=99):
        """Sum of min(p, q) over all columns, and how often both have one best; means of fresh."""
        hidden = self.hidden(m, np.random.default_rng(seed))
        z, goal = self.drafted(hidden), self.said(hidden)
        for logits, state in zip(z, hidden, strict=True):
            adapter.correct(logits, state)
        same = z.argmax(axis=1) == goal.argmax(axis=1)
        return float(np.minimum(law(z), law(goal)).sum(axis=1).mean()), float(same.mean())


def law(logits):
    """Softmax of [m, n]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def taught(pair, n_requests=40, length=32, seed=1, **options):
    """Examples of some requests; options of `Examples`."""
    examples, rng = Examples(pair.d, **options), np.random.default_rng(seed)
    for request in range(n_requests):
        hidden = pair.hidden(length, rng)
        examples.add(request, hidden, pair.drafted(hidden), pair.labels(hidden, rng))
    return examples
