"""An update is kept only if it helps: expected accepted tokens on what was not learned from.

Otherwise the adapter becomes the last good one again. What is believed is a difference well beyond
its own noise, request by request, because an adapter is judged again and again.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adapter import HeadAdapter
from edgespec.adapt.corrected import corrected
from edgespec.adapt.examples import Batch

DRAFT = 4  # tokens drafted, for what is expected
SIGMAS = 3.0  # of eight requests one judgement in 100 takes noise for a gain, of many one in 700
LEAST = 0.05  # of accepted tokens; less is not worth what it may cost when the text changes
TINY = 1e-3  # accepted tokens a round, where hardly any were
PIECE = 128  # positions judged at a time
FEWEST = 8  # requests; of fewer the noise is hardly known
FEW = 3  # requests; of fewer nothing is said


@dataclass(frozen=True)
class Verdict:
    """before, after: expected accepted tokens of a round on the last good adapter and the new one.

    noise: standard error of their difference.
    """

    adopted: bool
    before: float
    after: float
    noise: float
    n_requests: int


class Gate:
    """Keeps the last adapter that proved good; at first the one it is made with."""

    def __init__(self, adapter: HeadAdapter, *, greedy: bool = True, n_draft: int = DRAFT) -> None:
        self.good, self.greedy, self.n_draft = adapter.copy(), greedy, n_draft

    def decide(self, adapter: HeadAdapter, held: Batch) -> Verdict:
        """Adopt the adapter if it is better on `held`, else make it the last good one again.

        held: as of `Examples.held_out`. After a refusal the trainer's `restart` is due.
        """
        verdict = self.judge(adapter, held)
        if verdict.adopted:
            self.good = adapter.copy()
        else:
            adapter.become(self.good)
        return verdict

    def judge(self, adapter: HeadAdapter, held: Batch) -> Verdict:
        """How an adapter compares with the last good one; changes neither."""
        judging = self.judging(adapter, held)
        while True:
            try:
                next(judging)
            except StopIteration as ended:
                verdict: Verdict = ended.value
                return verdict

    def judging(self, adapter: HeadAdapter, held: Batch) -> Generator[None, None, Verdict]:
        """The same piece by piece, each of some milliseconds."""
        requests = np.unique(held.request)
        if len(requests) < FEW:
            return Verdict(False, 0.0, 0.0, 0.0, len(requests))
        found: list[list[NDArray[np.float64]]] = [[], []]
        for start in range(0, len(held), PIECE):
            piece = held.part(slice(start, start + PIECE))
            for one, values in zip((self.good, adapter), found, strict=True):
                values.append(rates(one, piece, greedy=self.greedy))
                yield
        before, after = (self._by_request(np.concatenate(one), held, requests) for one in found)
        gain = after - before
        noise = float(gain.std(ddof=1) / len(gain) ** 0.5)
        adopted = len(gain) >= FEWEST and bool(
            gain.mean() > max(SIGMAS * noise, LEAST * before.mean(), TINY)
        )
        return Verdict(adopted, float(before.mean()), float(after.mean()), noise, len(requests))

    def _by_request(
        self, right: NDArray[np.float64], held: Batch, requests: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Means over the rounds that could begin in each request. right: as of `rates`."""
        values = expected(right, held.request, self.n_draft)
        return np.array([values[held.request == request].mean() for request in requests])


def rates(adapter: HeadAdapter, batch: Batch, *, greedy: bool) -> NDArray[np.float64]:
    """[m] how likely a token drafted at each position is accepted.

    greedy: 1 where drafter and target have one best column, else 0; none is right where the tail
    outweighs it, as the target may prefer a token without a column. Otherwise sum of min(p, q) over
    the label's columns; what agrees in the tail is not known and counts as nothing. A piece that is
    all that is known counts as the target's whole law.
    Source: Leviathan et al. 2022, arXiv 2211.17192, theorem 3.5.
    """
    seen = corrected(adapter, batch)
    z = seen.z.astype(np.float64)
    of, line = batch.labels, np.arange(len(z))
    piece = (of.ids.max(axis=1) < 0) & (of.piece >= 0)
    if greedy:
        best = np.where(piece, of.piece, of.probs.argmax(axis=1))
        known = piece | (of.probs.max(axis=1) > of.tail)
        highest = z[:, :-1].max(axis=1) >= seen.highest
        return np.asarray((z[:, :-1].argmax(axis=1) == best) & highest & known, np.float64)
    z -= z.max(axis=1, keepdims=True)
    law = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    shared = np.minimum(law[:, : of.probs.shape[1]], of.probs).sum(axis=1)
    return np.asarray(np.where(piece, law[line, of.piece], shared), np.float64)


def expected(
    rates: NDArray[np.float64], request: NDArray[np.int64], n_draft: int
) -> NDArray[np.float64]:
    """[m] accepted tokens expected of a round that begins at each position, within its request.

    rates, request: [m], in the order of the text. The sum over i of the product of i rates.
    """
    total, alive = np.zeros(len(rates)), np.ones(len(rates))
    for ahead in range(min(n_draft, len(rates))):
        n = len(rates) - ahead
        alive[n:] = 0
        alive[:n] *= np.where(request[:n] == request[ahead:], rates[ahead:], 0)
        total += alive
    return total
