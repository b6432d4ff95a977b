"""Which drafted tokens are kept and what follows them: pure functions of (draft, p, uniforms).

Whatever the draft, the emitted tokens have the law of p, the target's. Three rules: `match` for
any draft, chain or tree; `reject` and `block` for a chain whose own law q is known.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.uniforms import Uniforms, pick
from edgespec.errors import ShapeError
from edgespec.types import Chances, Draft, DraftLaw, FloatArray, Verdict


class Rows(Protocol):
    """Anything that gives the target's law [V] by row: an array [k + 1, V] or `sampling.Laws`."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> FloatArray: ...


def accept(draft: Draft, p: Rows, u: NDArray[np.float64], *, rule: str = "rejection") -> Verdict:
    """Drafted tokens the target agrees to, plus one token of its own.

    p: row 0 is the target's law after the context, row i + 1 after draft node i. u: [k + 1, 2]
    independent uniforms in [0, 1) by depth. rule: "match", "rejection" or "block"; a draft
    without `probs` or `law` is always matched, one with a `law` never judged as a block.
    Raises: ShapeError if p has not k + 1 rows or u fewer.
    """
    k = len(draft)
    if len(p) != k + 1 or len(u) < k + 1:
        raise ShapeError(
            f"{k} drafted tokens with {len(p)} rows of p and {len(u)} of u: expected {k + 1}"
        )
    if not draft.is_drawn or rule == "match":
        return match(draft, p, u)
    if not draft.is_chain:
        raise ShapeError(
            "a branching draft came with `probs`: leave them out, its tokens are matched"
        )
    if draft.probs is None:
        assert draft.law is not None
        return reject(draft, draft.law, p, u)  # `block` needs whole rows
    if rule == "block":
        return block(draft, draft.probs, p, u)
    return reject(draft, Dense(draft.probs), p, u)


def match(draft: Draft, p: Rows, u: NDArray[np.float64]) -> Verdict:
    """Draw the target's token at every node and follow it as long as it was drafted.

    The emitted tokens are a function of p and u[:, 1] alone: any draft, or none, gives the same.
    Source: recursive rejection with point-mass proposals, as in EAGLE-2, arXiv 2406.16858.
    """
    nodes = zip(draft.parents, draft.tokens, strict=True)
    children = {place: node for node, place in enumerate(nodes)}  # of equal siblings the last
    parents = set(draft.parents)
    tokens: list[int] = []
    accepted: list[int] = []
    node = -1
    while True:
        token = pick(p[node + 1], u[len(tokens), 1])
        tokens.append(token)
        child = children.get((node, token))
        if child is None:
            refused = node in parents or (draft.is_cut and draft.is_chain)
            return Verdict(tuple(tokens), tuple(accepted), len(accepted) + refused)
        accepted.append(child)
        node = child


def reject(draft: Draft, q: DraftLaw, p: Rows, u: NDArray[np.float64]) -> Verdict:
    """Keep token x with probability min(1, p(x) / q(x)); at the first refusal draw from (p - q)+.

    q: the law each token was drawn from.
    Source: Leviathan et al. 2022, arXiv 2211.17192, algorithm 1.
    """
    k = len(draft)
    for i, x in enumerate(draft.tokens):
        p_i = p[i]
        if not q.keeps(i, x, float(p_i[x]), float(u[i, 0])):
            token = q.residual(i, p_i, Uniforms(u[i, 1]))
            return Verdict((*draft.tokens[:i], token), tuple(range(i)), i + 1)
    return Verdict((*draft.tokens, pick(p[k], u[k, 1])), tuple(range(k)), k)


class Dense:
    """Implements types.DraftLaw by rows q [k, V]."""

    def __init__(self, q: FloatArray) -> None:
        self._q = q

    def keeps(self, i: int, token: int, p: float, u: float) -> bool:
        return u * float(self._q[i, token]) < p

    def residual(self, i: int, p: FloatArray, chances: Chances) -> int:
        return chances.pick(residual(p, self._q[i]))

    def shared(self, p: FloatArray) -> float:
        return overlap(self._q[0], p)


def block(draft: Draft, q: FloatArray, p: Rows, u: NDArray[np.float64]) -> Verdict:
    """Keep the longest prefix that passes a joint test: on average no fewer tokens than `reject`.

    q: [k, V] the law each token was drawn from. Identical to `reject` when greedy.
    Source: Sun et al. 2024, arXiv 2403.10444, algorithm 2.
    """
    k = len(draft)
    ratio, ratios, n_kept = 1.0, [1.0], 0
    for i, x in enumerate(draft.tokens):
        ratio = min(1.0, ratio * float(p[i][x]) / float(q[i, x]))
        ratios.append(ratio)
        if i + 1 == k:
            chance = ratio
        else:
            gain = float(np.maximum(ratio * p[i + 1].astype(np.float64) - q[i + 1], 0).sum())
            chance = gain / (gain + 1 - ratio) if gain + 1 - ratio > 0 else 1.0
        if u[i, 0] < chance:
            n_kept = i + 1
    share = np.float32(ratios[n_kept])
    law = p[k] if n_kept == k else residual(share * p[n_kept], q[n_kept])
    token = pick(law, u[n_kept, 1])
    return Verdict((*draft.tokens[:n_kept], token), tuple(range(n_kept)), min(n_kept + 1, k))


def overlap(q: FloatArray, p: FloatArray) -> float:
    """The chance that a token drawn from q [V] is accepted by p [V]: the sum of the lesser ones.

    Source: Leviathan et al. 2022, arXiv 2211.17192, theorem 3.5.
    """
    return float(np.minimum(q, p).sum()) / max(float(q.sum()), 1e-9)


def residual(p: FloatArray, q: FloatArray) -> FloatArray:
    """(p - q)+ [V], not normalised; p itself where rounding leaves nothing."""
    rest = np.maximum(p - q, 0)
    return rest if rest.any() else p
