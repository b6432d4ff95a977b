"""Logits to probabilities: the sampling chain, in numpy, as a pure function of logits and context.

The law it returns is the law a token is drawn from, on the target's side and on the drafter's.
Order of the chain: logit bias, penalties, then greedy, or top-k, top-p, min-p, temperature
(llama.cpp's default order, penalties first).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import UsageError
from edgespec.protocols import Law
from edgespec.types import VERIFICATIONS, Draft, FloatArray, SamplingParams, TokenScore

BAN = 1e4


@dataclass(frozen=True)
class Chain:
    """Implements protocols.Law by these parameters."""

    params: SamplingParams

    def __call__(self, logits: FloatArray, context: Sequence[int], /) -> FloatArray:
        return probabilities(penalized(logits, context, self.params), self.params)

    def translated(self, ids: NDArray[np.int32]) -> Chain:
        """See protocols.Law; only the logit bias speaks of single tokens.

        A ban of all that a drafter can say would leave no law, so it is a bias of -BAN there.
        """
        biases = self.params.logit_bias.items()
        moved = {int(ids[token]): max(bias, -BAN) for token, bias in biases}
        moved.pop(-1, None)
        return Chain(replace(self.params, logit_bias=moved))

    def drafting(self) -> Chain:
        return self

    def cut(self, draft: Draft, context: Sequence[int]) -> Draft:
        """The draft itself: what is banned is rare, and refused by verification."""
        return draft


def law_of(params: SamplingParams) -> Chain:
    """The chain bound to its parameters; `decode.constrained.law_of` heeds their constraint too.

    Raises: UsageError for parameters out of range, before any logits are seen.
    """
    check_params(params)
    return Chain(params)


def check_params(params: SamplingParams) -> None:
    """Raises: UsageError naming the first parameter that is out of range."""
    rules = (
        (0 <= params.temperature < float("inf"), "--temp", params.temperature, "0 or more"),
        (params.top_k >= 0, "--top-k", params.top_k, "0 (all) or more"),
        (0 < params.top_p <= 1, "--top-p", params.top_p, "over 0, at most 1"),
        (0 <= params.min_p <= 1, "--min-p", params.min_p, "0 to 1"),
        (params.repeat_penalty > 0, "--repeat-penalty", params.repeat_penalty, "over 0 (1 is off)"),
        (params.max_tokens >= 0, "--max-tokens", params.max_tokens, "0 or more"),
        (
            params.verification in VERIFICATIONS,
            "--verification",
            params.verification,
            f"one of {', '.join(VERIFICATIONS)}",
        ),
    )
    for holds, name, seen, expected in rules:
        if not holds:
            raise UsageError(f"{name} is {seen!r}: expected {expected}")


def biases(given: Mapping[Any, float], n_vocab: int) -> dict[int, float]:
    """Logit biases by token id; ids may be text, as JSON has them. Raises: UsageError."""
    if not isinstance(given, Mapping):
        raise UsageError(f"logit_bias is {given!r:.60}: expected biases by id, as in {{42: -1.0}}")
    out = {}
    for token, bias in given.items():
        try:
            out[int(token)] = float(bias)
        except (TypeError, ValueError):
            raise UsageError(f"logit_bias {token!r}: {bias!r}: expected an id: a number") from None
        if not 0 <= int(token) < n_vocab:
            raise UsageError(f"logit_bias: token {token}: expected 0 to {n_vocab - 1}")
        if math.isnan(float(bias)) or float(bias) == math.inf:
            raise UsageError(f"logit_bias: {bias} for token {token}: expected a number")
    return out


def penalized(logits: FloatArray, context: Sequence[int], params: SamplingParams) -> FloatArray:
    """Logits [V] with bias and penalties; the array itself when none is set, else a copy.

    Repeat penalty: Keskar et al. 2019, arXiv 1909.05858, section 4.1, with llama.cpp's rule that
    negative logits are multiplied. Frequency and presence: logit - count * f - (count > 0) * p.
    """
    repeat, n_last = params.repeat_penalty, params.penalty_last_n
    counted = repeat != 1 or params.frequency_penalty != 0 or params.presence_penalty != 0
    if not params.logit_bias and not (counted and n_last > 0):
        return logits
    out = logits.copy()
    for token, bias in params.logit_bias.items():
        out[token] += bias
    if counted and n_last > 0 and len(context) > 0:
        recent = np.asarray(context[-n_last:])
        ids, counts = np.unique(recent, return_counts=True)
        values = out[ids]
        values = np.where(values > 0, values / repeat, values * repeat)
        out[ids] = values - counts * params.frequency_penalty - params.presence_penalty
    return out


def probabilities(logits: FloatArray, params: SamplingParams) -> FloatArray:
    """Law [V] of the next token: a point mass when greedy (lowest id among equals).

    Raises: UsageError where every token is banned.
    """
    top = int(np.argmax(logits))
    if logits[top] == -np.inf:
        raise UsageError(
            f"logit_bias leaves none of {len(logits)} tokens: expected at least one; ban fewer"
        )
    if params.greedy:
        out = np.zeros(len(logits), np.float32)
        out[top] = 1.0
        return out
    kept = support(logits, params)
    scaled = logits[kept].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled.max())
    out = np.zeros(len(logits), np.float32)
    out[kept] = weights / weights.sum()
    return out


def support(logits: FloatArray, params: SamplingParams) -> NDArray[np.intp]:
    """Ids that survive top-k, top-p and min-p (all by the law at temperature 1), never none.

    Equal logits at the edge of top-k: the lower ids stay.
    """
    if params.top_k == 0 and params.top_p >= 1 and params.min_p == 0:
        return np.flatnonzero(logits > -np.inf)
    if 0 < params.top_k < len(logits):
        edge = np.partition(logits, -params.top_k)[-params.top_k]
        above, equal = np.flatnonzero(logits > edge), np.flatnonzero(logits == edge)
        kept = np.concatenate((above, equal[: params.top_k - len(above)]))
    else:
        kept = np.flatnonzero(logits > -np.inf)
    kept = kept[np.argsort(-logits[kept], kind="stable")]
    weights = np.exp((logits[kept] - logits[kept[0]]).astype(np.float64))
    if params.top_p < 1:
        before = np.cumsum(weights) - weights
        n_kept = max(1, int(np.count_nonzero(before < params.top_p * weights.sum())))
        kept, weights = kept[:n_kept], weights[:n_kept]
    kept = kept[weights >= params.min_p]  # the likeliest has weight 1
    return np.sort(kept)


def score(logits: FloatArray, token: int, n_top: int) -> TokenScore:
    """The log softmax of logits [V] at `token`, and of the n_top likeliest (lower ids first)."""
    shifted = logits.astype(np.float64) - float(logits.max())
    total = float(np.log(np.exp(shifted).sum()))
    n_top = min(n_top, len(logits))
    ids = np.empty(0, np.intp)
    if n_top > 0:
        edge = np.partition(logits, -n_top)[-n_top]
        ids = np.flatnonzero(logits >= edge)
        ids = ids[np.argsort(-logits[ids], kind="stable")][:n_top]
    top = tuple((int(one), float(shifted[one]) - total) for one in ids)
    return TokenScore(float(shifted[token]) - total, top)


class Laws:
    """The target's law after the context and after each draft node, computed when asked for.

    Row 0 follows the context, row i + 1 follows draft node i. Only the rows on the accepted path
    are ever read, which for a vocabulary of 128k saves milliseconds a round.
    """

    def __init__(self, law: Law, logits: FloatArray, context: Sequence[int], draft: Draft) -> None:
        self._law, self._logits, self._context, self._draft = law, logits, context, draft
        self._rows: dict[int, FloatArray] = {}  # block verification asks twice

    def __len__(self) -> int:
        return len(self._logits)

    def __getitem__(self, row: int) -> FloatArray:
        if row not in self._rows:
            before = self._context
            if row > 0:
                before = [*before, *self._draft.path(row - 1)]
            self._rows[row] = self._law(self._logits[row], before)
        return self._rows[row]

    def known(self, row: int) -> FloatArray:
        """A row that was asked for before; another would be of a context that has grown since."""
        return self._rows[row]
