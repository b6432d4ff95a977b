"""A drafter on a device of its own drafts on while the target verifies.

It supposes that all it drafted is accepted and that the target then says what the drafter would.
Where that comes true the next draft is there already, so a round takes max(target, drafter) in
place of their sum; else what was drafted on is dropped and the round is an ordinary one. Both on
the same cores would only slow each other: who makes an Ahead compares the devices first (`apart`),
and then rounds with it and without are timed in turns (`Trial`).
Source: PEARL, arXiv 2408.11850, its post-verify mode alone, so a rejection costs no round. Saguaro,
arXiv 2603.03251, drafts for several outcomes; here it is the likeliest one.

A target of 40 ms and a drafter of 4 to 12 ms a step that sleep reach 0.95 to 0.99 of what this
schedule allows, at 4 of 7 to all drafted tokens accepted (tests/slow/test_overlap_time.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from operator import mul
from statistics import mean, median
from time import perf_counter

from edgespec.decode.follow import Pays
from edgespec.drafters.mixed import Stepwise
from edgespec.drafters.window import Reads
from edgespec.errors import Cancelled
from edgespec.protocols import Drafter, Drawing
from edgespec.types import Draft, Round

log = logging.getLogger("edgespec")
TURN, TURNS = 4, 6  # rounds with it, then as many without, ..
AGAIN = 512  # rounds after which it is timed anew
PAYS = 0.98  # of the time of a round without it


def apart(one: str, other: str) -> bool:
    """Whether two models run on different devices, by their names: "CPU, 2 threads", "CUDA"."""
    names = [{part for part in device.split(", ") if " " not in part} for device in (one, other)]
    return names[0] != names[1]


class Trial:
    """Whether drafting on pays, by what a token takes with it and without, in turns.

    Tokens are those the drafter itself expects of its drafts, which vary less than those that come.
    """

    def __init__(self) -> None:
        self.share = 1.0  # of the time of a token without it, as last timed
        self._begin()

    def _begin(self) -> None:
        self._n, self._asked_on = 0, False
        self._asks: tuple[list[float], list[float]] = ([], [])  # without, with
        self._rest: tuple[list[float], list[float]] = ([], [])
        self._tokens = [0.0, 0.0]

    @property
    def on(self) -> bool:
        """Whether to draft on in the coming round."""
        if self._n < TURN * TURNS:
            return self._n // TURN % 2 == 0
        return self.share < PAYS

    def observe(self, n_tokens: float, ask_s: float, rest_s: float) -> None:
        """A round of so many expected tokens took so long for its draft, and for all else."""
        if self._n >= TURN * TURNS:
            self._n += 1
            if self._n >= AGAIN:
                self._begin()
            return
        self._asks[self._asked_on].append(ask_s)  # a draft is there early if the last round was on
        self._tokens[self._asked_on] += n_tokens
        self._rest[self.on].append(rest_s)
        self._asked_on = self.on
        self._n += 1
        if self._n == TURN * TURNS:
            off_s, on_s = (
                usual(self._asks[on], self._asks[0]) + usual(self._rest[on], self._rest[0])
                for on in (False, True)
            )
            self.share = on_s / off_s * self._tokens[0] / self._tokens[1]
            log.info(
                "drafting on while the target verifies: a token takes %.2f times as long: %s",
                self.share, "kept" if self.on else "left off",
            )  # fmt: skip


def usual(times: Sequence[float], without: Sequence[float]) -> float:
    """The mean time of a round but for a stall or two, which take thrice that of one `without`."""
    most = 3 * median(without)
    near = [s for s in times if s <= most]
    return mean(near if len(times) - len(near) <= 2 else [min(s, most) for s in times])


class Ahead:
    """Implements protocols.Drafter and window.Reads by a drafter that learns nothing from rounds.

    Implements mixed.Stepwise where that one does. cancel: ends what the drafter is computing.
    trial: says when to draft on. Tokens that are to be drawn from a law are not drafted ahead: they
    seldom are what the target then draws.
    """

    pays: Pays

    def __init__(
        self,
        drafter: Drafter,
        cancel: Callable[[], None],
        *,
        trial: Trial | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.name, self.n_leaves = drafter.name, drafter.n_leaves
        self.trial = trial or Trial()
        self._drafter, self._cancel, self._clock = drafter, cancel, clock
        self._reads = drafter if isinstance(drafter, Reads) else None
        self._stepwise = drafter if isinstance(drafter, Stepwise) else None
        if self._stepwise is not None:
            self.pays = self._stepwise.pays
        self._pool = ThreadPoolExecutor(1, "drafting ahead")  # its thread begins with the first job
        self._job: Future[None] | None = None
        self._stop = self._drafted = False
        self._context: Sequence[int] = ()  # what was drafted for, which grows; of so many ids then
        self._n = 0
        self._guess: list[int] = []  # what is supposed to follow
        self._sure: list[float] = []  # for each, that it does if those before it do

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        self._settle()
        ready = self._ready(context, k) if drawing is None else Draft()
        self._guess, self._drafted = [], k > 0 and drawing is None
        draft = self._extended(ready, context, k, drawing)
        if len(draft) and drawing is None and draft.is_chain and self.trial.on:
            self._context, self._n, self._stop = context, len(context), False
            self._guess, self._sure = list(draft.tokens), shares(draft)
            self._job = self._pool.submit(self._go_on, [*context, *draft.tokens], k + 1)
        return draft

    def _extended(
        self, ready: Draft, context: Sequence[int], k: int, drawing: Drawing | None
    ) -> Draft:
        """What is there already, and what is worth drafting beyond it now."""
        sure = ready.confidence
        if self._stepwise is not None:
            if sure and not self.pays(sure):
                return ready
            self._stepwise.pays = lambda more, undrawn=False, /: self.pays(
                (*sure, *below(sure, more)), undrawn
            )
        if len(ready) == k:
            return ready
        text = [*context, *ready.tokens] if len(ready) else context
        return joined(ready, self._drafter.draft(text, k - len(ready), drawing))

    def _go_on(self, text: list[int], n: int) -> None:
        """In a thread of its own: what follows, token by token."""
        for _ in range(n):
            if self._stop:
                return
            found = self._drafter.draft(text, 1)
            if not len(found):
                return
            text += found.tokens
            self._sure += shares(found)
            self._guess += found.tokens

    def _ready(self, context: Sequence[int], k: int) -> Draft:
        """What was drafted ahead for this context, at most k tokens."""
        if context is not self._context or self._differs():
            return Draft()
        start = len(context) - self._n
        tokens, sure = self._guess[start : start + k], self._sure[start : start + k]
        known = tuple(accumulate(sure, mul)) if all(share >= 0 for share in sure) else ()
        return Draft(tuple(tokens), sources=(self.name,) * len(tokens), confidence=known)

    def _differs(self) -> bool:
        """Whether what followed is not what was supposed to, as far as that is known."""
        followed, guess = list(self._context[self._n :]), self._guess
        n = min(len(followed), len(guess))
        return not self._guess or followed[:n] != guess[:n]

    def observe(self, done: Round) -> None:
        """The drafter rests from now until it is asked again, whoever uses its model meanwhile."""
        start = self._clock()
        if self._job is not None and self._differs():
            self._stop = True
            self._cancel()
        self._settle()
        draft, times = done.draft, done.times
        if self._drafted and self.name in draft.sources[:1]:
            n_tokens = 1 + (sum(draft.confidence) if draft.confidence else len(draft))
            self.trial.observe(n_tokens, times.ask_s, times.target_s + self._clock() - start)
        self._drafted = False

    def _settle(self) -> None:
        """Wait for the step in progress. Raises: what it raised, but for Cancelled."""
        job, self._job = self._job, None
        if job is None:
            return
        self._stop = True
        error = job.exception()
        if error is not None:
            self._guess = []
            if not isinstance(error, Cancelled):
                raise error

    def rest(self) -> None:
        """Nothing is computed any more, and nothing supposed."""
        self._stop = True
        if self._job is not None:
            self._cancel()
            self._job.exception()
        self._job, self._guess, self._context = None, [], ()

    def n_unread(self, context: Sequence[int]) -> int:
        """See window.Reads; 0 for a drafter that reads nothing."""
        self._settle()
        return 0 if self._reads is None else self._reads.n_unread(context)

    def read_on(self, context: Sequence[int], n: int) -> None:
        """See window.Reads."""
        self._settle()
        if self._reads is not None:
            self._reads.read_on(context, n)

    def close(self) -> None:
        self.rest()
        self._pool.shutdown()
        self._drafter.close()


def shares(draft: Draft) -> list[float]:
    """For each token the probability given those before it; -1 where that is not known."""
    if not draft.confidence:
        return [-1.0] * len(draft)
    before = (1.0, *draft.confidence[:-1])
    pairs = zip(before, draft.confidence, strict=True)
    return [now / was if was > 0 else 0.0 for was, now in pairs]


def below(sure: Sequence[float], more: Sequence[float]) -> list[float]:
    """Confidences of a draft that begins where another one ends."""
    last = sure[-1] if sure else 1.0
    return [last * one for one in more]


def joined(ready: Draft, more: Draft) -> Draft:
    """Two chains, the second below the first."""
    if not len(ready) or not len(more):
        return more if not len(ready) else ready
    sure: tuple[float, ...] = ()
    if ready.confidence and more.confidence:
        sure = *ready.confidence, *below(ready.confidence, more.confidence)
    tokens, sources = ready.tokens + more.tokens, ready.sources + more.sources
    return Draft(tokens, sources=sources, confidence=sure, spent=more.spent)
