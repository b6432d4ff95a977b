"""How far a drafter's law is from its target's, with exact slopes: what training makes smaller.

Every loss is a pure function of logits z [m, n] and labels. A label names at most K columns; the
rest of the target's mass, the tail, lies somewhere among the others. It is spread there in
proportion to the drafter's own mass q: p_j = tail q_j / q_T with q_T = sum of q_j over the others.
Then p_j / q_j is one number for all of them, so a divergence sum_j q_j f(p_j / q_j) is that of two
laws over K + 1 events, q' = (q of the columns, q_T) and p' = (p of the columns, tail): the least it
can be for any spread (data processing). It depends on z by way of q' alone. So with w_c the slope
in log q'_c, and W their sum,

    dz_j = w_c - q_j W                  column j is event c
    dz_j = w_T q_j / q_T - q_j W        column j is in the tail

and a change of z that moves mass within the tail only changes no loss: there nothing is learned.
Where nothing is known (no ids, tail 1) both laws are one event: no loss and no slope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.labels import Labels, only_pieces

Floats = NDArray[np.floating[Any]]

TINY = 1e-30  # below the smallest probability that float32 logits give; only guards log(0)
FLOOR = 1e-6  # least target probability in the reverse divergence, which is infinite at 0
PIECES = 0.2  # weight of pieces, for every task and model: OmniDraft, arXiv 2507.02659, section 4


@dataclass(frozen=True)
class Scored:
    """loss: [m]. dz: [m, n] slope of the sum of all losses in the logits."""

    loss: Floats
    dz: Floats


Loss = Callable[[Floats, Labels], Scored]


@dataclass(frozen=True)
class Coarse:
    """Both laws over the label's columns and the tail, which is the last event.

    q, log_q, p: [m, K + 1], zeros where an id is unused. law: [m, n] the drafter's. inside: [m,
    n + 1] the drafter's mass in the tail, 0 at the label's columns and in the last, spare column.
    """

    q: Floats
    log_q: Floats
    p: Floats
    law: Floats
    inside: Floats

    def scored(self, loss: Floats, w: Floats, ids: NDArray[np.int64]) -> Scored:
        """loss: [m]. w: [m, K + 1] its slopes in log q, which become slopes in the logits."""
        share = w[:, -1:] / np.maximum(self.q[:, -1:], TINY)
        dz = self.inside * share
        np.put_along_axis(dz, ids, w[:, :-1], axis=1)  # -1 writes to the spare column
        return Scored(loss, dz[:, :-1] - self.law * w.sum(axis=1, keepdims=True))


def coarse(z: Floats, labels: Labels) -> Coarse:
    """The laws that divergences compare. z: [m, n]."""
    log_law = _log_softmax(z)
    law = np.exp(log_law)
    inside = np.concatenate([law, np.zeros((len(z), 1), z.dtype)], axis=1)
    ids = np.asarray(labels.ids)
    known = np.take_along_axis(inside, ids, axis=1)  # -1 reads the spare column: 0
    np.put_along_axis(inside, ids, z.dtype.type(0), axis=1)
    tail = inside.sum(axis=1, keepdims=True)
    log_known = np.take_along_axis(log_law, np.maximum(ids, 0), axis=1)
    log_q = np.concatenate([np.where(ids < 0, 0, log_known), _log(tail)], axis=1)
    p = np.concatenate([labels.probs, labels.tail[:, None]], axis=1).astype(z.dtype)
    return Coarse(np.concatenate([known, tail], axis=1), log_q, p, law, inside)


def forward_kl(z: Floats, labels: Labels) -> Scored:
    """KL(p || q): the drafter covers all that the target may say."""
    c = coarse(z, labels)
    return c.scored((c.p * (_log(c.p) - c.log_q)).sum(axis=1), -c.p, labels.ids)


def reverse_kl(z: Floats, labels: Labels) -> Scored:
    """KL(q || p): the drafter says only what the target may say; p is held above FLOOR.

    Source: OmniDraft, arXiv 2507.02659, section 4, for tokens that map directly.
    """
    c = coarse(z, labels)
    w = c.q * (c.log_q - np.log(np.maximum(c.p, FLOOR)))  # less q, which moves no logit
    return c.scored(w.sum(axis=1), w, labels.ids)


def jsd(z: Floats, labels: Labels) -> Scored:
    """Jensen-Shannon divergence with equal weights.

    Source: DistillSpec, Zhou et al. 2023, arXiv 2310.08461, section 3.
    """
    c = coarse(z, labels)
    log_mean = _log((c.p + c.q) / 2)
    above, below = c.p * (_log(c.p) - log_mean), c.q * (_log(c.q) - log_mean)
    return c.scored((above + below).sum(axis=1) / 2, below / 2, labels.ids)


def tvd(z: Floats, labels: Labels) -> Scored:
    """Total variation distance: 1 minus the probability that a drafted token is accepted.

    Source: DistillSpec, arXiv 2310.08461, section 3; the tail may hide some of the distance.
    """
    c = coarse(z, labels)
    return c.scored(abs(c.p - c.q).sum(axis=1) / 2, c.q * np.sign(c.q - c.p) / 2, labels.ids)


def tvd_plus(z: Floats, labels: Labels) -> Scored:
    """TVD++: the policy gradient of the acceptance, its reward made even over the batch.

    reward 1 where p > q, less its mean under q over the positions, by its deviation: a; the loss
    is -sum q a log q, and the slope that of log q alone: q and a are held fixed. All rows of
    the tail have one reward, as p / q is the same for them. The mean moves no slope, as the sum of
    q times the slopes of log q is 0; the deviation scales them, and is that of the positions that
    are scored at once.
    Source: Goel et al. 2024, arXiv 2403.00858, section 3; the expectation is taken over the whole
    vocabulary, which the paper samples.
    """
    c = coarse(z, labels)
    known = (labels.ids.max(axis=1) >= 0)[:, None]  # elsewhere there is one event and no reward
    reward = np.asarray((c.p > c.q) & known, z.dtype)
    mean = (c.q * reward).sum() / z.dtype.type(max(int(known.sum()), 1))
    even = (reward - mean) / np.sqrt(np.maximum(mean * (1 - mean), z.dtype.type(FLOOR)))
    w = -c.q * even * known
    return c.scored((w * c.log_q).sum(axis=1), w, labels.ids)


def nll(z: Floats, labels: Labels) -> Scored:
    """-log q of the piece, 0 where there is none: what an n-gram's pieces are learned by."""
    return _chosen(z, labels.piece, np.ones(len(z), z.dtype))


def hybrid(
    z: Floats, labels: Labels, *, weight: float = PIECES, divergence: Loss = reverse_kl
) -> Scored:
    """A divergence where tokens map, plus `weight` times the NLL of n-grams' pieces.

    Source: OmniDraft, Ramakrishnan et al. 2025, arXiv 2507.02659, section 4, with reverse KL.
    """
    found, some = divergence(z, labels), np.flatnonzero(labels.piece >= 0)
    if len(some):  # few rows have a piece, and one costs as much as a row of the divergence
        pieces = nll(z[some], only_pieces(labels.piece[some]))
        found.loss[some] += weight * pieces.loss
        found.dz[some] += weight * pieces.dz
    return found


def covering(z: Floats, labels: Labels) -> Scored:
    """`hybrid` with forward KL, which also finds what the drafter gave no chance."""
    return hybrid(z, labels, divergence=forward_kl)


def reward(z: Floats, labels: Labels, *, baseline: float = 0.0) -> Scored:
    """-(r - baseline) log q of the token that was drafted; r is 1 if it was accepted, else 0.

    0 where nothing was drafted. A policy gradient, for tokens drawn from q as it is now: replayed
    positions ruin a drafter by it (adapt/README.md), as each refusal lowers q again and again.
    """
    gain = np.asarray(labels.accepted, z.dtype) - z.dtype.type(baseline)
    return _chosen(z, labels.drafted, gain)


LOSSES: dict[str, Loss] = {
    "covering": covering,
    "forward-kl": forward_kl,
    "hybrid": hybrid,
    "jsd": jsd,
    "nll": nll,
    "reverse-kl": reverse_kl,
    "reward": reward,
    "tvd": tvd,
    "tvd++": tvd_plus,
}


def _chosen(z: Floats, column: NDArray[np.int64], weight: Floats) -> Scored:
    """-weight log q of one column each, nothing where that is -1. column, weight: [m]."""
    log_law = _log_softmax(z)
    weight = np.where(column < 0, z.dtype.type(0), weight)
    at = np.maximum(column, 0)[:, None]
    dz = np.exp(log_law) * weight[:, None]
    np.put_along_axis(dz, at, np.take_along_axis(dz, at, 1) - weight[:, None], axis=1)
    return Scored(-weight * np.take_along_axis(log_law, at, 1)[:, 0], dz)


def _log_softmax(z: Floats) -> Floats:
    """log q, [m, n]."""
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _log(values: Floats) -> Floats:
    """log, and a large negative number at 0."""
    return np.asarray(np.log(np.maximum(values, values.dtype.type(TINY))))
