"""The sampling chain under a constraint: what may not be said loses its probability first.

Exactly the target's law given that each token is one that the constraint allows. Tokens are
checked from the likeliest on and only as far as the chain asks: greedy usually one, top-k about
k. Knows no grammar format: a constraint is anything with `allowed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.sampling import Chain, penalized, probabilities
from edgespec.decode.sampling import law_of as chain_of
from edgespec.errors import TokenizerError
from edgespec.protocols import Law
from edgespec.types import Constraint, Draft, FloatArray, Limit, SamplingParams

SIZES = (64, 512, 8192)  # how many of the likeliest tokens are checked, step by step
LEAST = 2.0**-24  # share of a law that rounding it to float32 moves anyway
NEAR = 1e-3  # of a logit: what is nearer to the edge of min-p than this is checked as well
Ids = NDArray[np.intp]


def law_of(params: SamplingParams, n_prompt: int) -> Law:
    """The chain bound to its parameters; its constraint sees the context from n_prompt on.

    Raises: UsageError for parameters out of range, before any logits are seen.
    """
    chain = chain_of(params)
    if params.constraint is None:
        return chain
    return Constrained(chain, params.constraint, n_prompt)


@dataclass(frozen=True)
class Constrained:
    """Implements protocols.Law: `chain` over the logits that are left when masked.

    Where sampling, the least likely tokens, which together have less than 2^-24 of the law, may
    be left out. lenient: where nothing is allowed the law is the chain's own, not an error.
    """

    chain: Chain
    constraint: Constraint
    n_prompt: int
    lenient: bool = False

    def __call__(self, logits: FloatArray, context: Sequence[int], /) -> FloatArray:
        """Raises: TokenizerError where the constraint allows no token at all."""
        generated = list(context[self.n_prompt :])
        if self._is_over(generated):
            return self.chain(logits, context)
        adjusted = penalized(logits, context, self.chain.params)
        ids = self._likeliest(adjusted, generated)
        if not len(ids):
            over = not self.chain.params.stop_tokens.isdisjoint(generated)
            if over or self.lenient:
                return self.chain(logits, context)
            raise TokenizerError(
                f"after {len(generated)} tokens the grammar allows none of the vocabulary's "
                f"{len(logits)}: expected one that this model can write; change the grammar"
            )
        if not self.lenient and isinstance(self.constraint, Limit):
            likelier = np.flatnonzero(adjusted > adjusted[ids].max())
            self.constraint.note(generated, likelier)
        out = np.zeros(len(logits), np.float32)
        out[ids] = probabilities(adjusted[ids], self.chain.params)
        return out

    def translated(self, ids: NDArray[np.int32]) -> Law:
        """The chain alone: other tokens follow no grammar of these; their drafts are cut."""
        return self.chain.translated(ids)

    def drafting(self) -> Law:
        """The same, lenient; the chain alone where it would have to check every token."""
        params = self.chain.params
        lazy = params.greedy or params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        return replace(self, lenient=True) if lazy else self.chain

    def cut(self, draft: Draft, context: Sequence[int]) -> Draft:
        """The draft up to what the constraint refuses.

        Drawn tokens are cut after the first refused one, which verification refuses again: cut
        before it, what is left would depend on what was drawn. What follows a stop token is left
        alone, since it is never emitted.
        """
        generated = list(context[self.n_prompt :])
        if not draft.is_chain:
            return self._pruned(draft, generated)
        for n, token in enumerate(draft.tokens):
            if self._is_over(generated):
                break
            if not self.constraint.allowed(generated, np.array([token]))[0]:
                return first_of(draft, n + draft.is_drawn)
            generated.append(token)
        return draft

    def _pruned(self, draft: Draft, generated: list[int]) -> Draft:
        """A tree without the nodes that are refused and all below them."""
        kept: list[int] = []
        for node, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
            above = [*generated, *draft.path(parent)]
            if parent in (-1, *kept) and (
                self._is_over(above) or self.constraint.allowed(above, np.array([token]))[0]
            ):
                kept.append(node)
        if len(kept) == len(draft):
            return draft
        place = {-1: -1, **{node: i for i, node in enumerate(kept)}}
        told = kept or [0]
        return Draft(
            tuple(draft.tokens[node] for node in kept),
            tuple(place[draft.parents[node]] for node in kept),
            sources=tuple(draft.sources[node] for node in told) if draft.sources else (),
            confidence=tuple(draft.confidence[node] for node in told) if draft.confidence else (),
            n_cut=len(draft) - len(kept),
        )

    def _is_over(self, generated: Sequence[int]) -> bool:
        return bool(generated) and generated[-1] in self.chain.params.stop_tokens

    def _likeliest(self, logits: FloatArray, generated: Sequence[int]) -> Ids:
        """Allowed ids, ascending, that give the chain the same outcome as all that are allowed."""
        found = np.empty(0, np.intp)
        for ids, edge in best_first(logits):
            found = np.concatenate((found, ids[self.constraint.allowed(generated, ids)]))
            known = np.sort(logits[found])[::-1]
            if len(known) and settles(known, logits, edge, self.chain.params):
                break
        return np.sort(found)


def best_first(logits: FloatArray) -> Iterator[tuple[Ids, float]]:
    """The ids of logits [V] in portions, and after each the edge that all further ones are below.

    The first are those of the maximum, then growing numbers; minus infinity is never reached.
    """
    edge = float(logits.max())
    if edge > -np.inf:
        yield np.flatnonzero(logits == edge), edge
    for n in SIZES:
        lower = float(np.partition(logits, -n)[-n]) if n < len(logits) else -np.inf
        if -np.inf < lower < edge:
            yield np.flatnonzero((logits >= lower) & (logits < edge)), lower
            edge = lower
    yield np.flatnonzero((logits > -np.inf) & (logits < edge)), -np.inf


def settles(known: FloatArray, logits: FloatArray, edge: float, params: SamplingParams) -> bool:
    """Whether logits [V] below `edge`, allowed or not, cannot change the outcome of `known`.

    known: logits of allowed tokens, at least one, falling. Nothing is asked of the others than
    how much they weigh: top-p counts a share of a total that lies between that of `known` and
    that with all of them.
    """
    if params.greedy or 0 < params.top_k <= len(known):
        return True
    top_p, heat = params.top_p, max(params.temperature, 1.0)
    below = logits[logits < edge] - known[0]
    weights = np.exp((known - known[0]).astype(np.float64))
    if weight(below / heat) <= LEAST * weight((known - known[0]) / heat):
        return True
    ends = params.min_p > 0 and edge - known[0] < np.log(params.min_p) - NEAR
    if top_p >= 1:
        return ends
    total, rest, before = weights.sum(), weight(below), np.cumsum(weights) - weights
    least, most = (np.count_nonzero(before < top_p * x) for x in (total, total + rest))
    if ends and least >= np.count_nonzero(weights >= params.min_p):
        return True
    return bool(least == most and top_p * (total + rest) <= total)


def weight(logits: FloatArray) -> float:
    """The sum of their exponentials."""
    return float(np.exp(logits).sum(dtype=np.float64))


def first_of(draft: Draft, n: int) -> Draft:
    """The first n tokens of a chain, the others cut."""
    cut = draft.first(n, n_told=n if draft.is_drawn else n + 1)
    return replace(cut, n_cut=draft.n_cut + len(draft) - n)
