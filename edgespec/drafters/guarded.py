"""A drafter that may fail: then it is dropped, with one notice, and generation goes on without it.

Failures are exceptions, drafts that break protocols.Drafter's contract, and forwards of a model
that hang, which are cancelled. What this cannot help against: a crash of the process, a call that
hangs in C code that knows no cancelling (a driver), and an application's own drafter that never
returns, which is told of in the log; one that returns too late is dropped then.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np

from edgespec.decode.follow import Pays
from edgespec.drafters.mixed import Stepwise
from edgespec.drafters.together import Drafters, Wish
from edgespec.drafters.watch import Watch
from edgespec.drafters.window import PART, Reads
from edgespec.errors import Cancelled, EdgeSpecError, ShapeError
from edgespec.protocols import Drafter, Drawing, LanguageModel, Speculator
from edgespec.text.sandbox import in_a_line
from edgespec.types import NO_DRAFT, Chances, Draft, DraftLaw, FloatArray, Round

T = TypeVar("T")
log = logging.getLogger("edgespec")
MOST_LETTERS = 120  # of what a notice says of the cause


class Stoppable(Protocol):
    """A model whose forward in progress can be ended from another thread."""

    @property
    def length(self) -> int:
        """Tokens in the cache; it changes with every forward."""
        ...

    def cancel(self) -> None:
        """End it with Cancelled."""
        ...


class Guard:
    """A context manager around all that a drafter does: its failures end within.

    model: what the drafter computes with, if that can be cancelled. can_hang: False for a drafter
    that computes for microseconds: to begin the thread that watches takes 5 ms while a target's
    threads spin. failed: what happened, in a sentence; empty while nothing has. Interrupts and a
    user's Cancelled pass through.
    """

    def __init__(self, name: str, model: Stoppable | None = None, *, can_hang: bool = True) -> None:
        self.name, self.failed = name, ""
        self._model, self._told, self._n_unread = model, False, 0
        self._watch = Watch(self._progress, self._hangs) if can_hang else None

    def reading(self, n_unread: int) -> Guard:
        """Itself, around a call that may first have to read so many tokens."""
        self._n_unread = n_unread
        return self

    def __enter__(self) -> None:
        if self._watch is not None:
            self._watch.begin(self._n_unread)
        self._n_unread = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if (watch := self._watch) is not None:
            watch.end()
            if watch.hung and (error is None or isinstance(error, Cancelled)):
                self.drop("it hung")
                return True
        if error is None:
            return False
        if not isinstance(error, Exception) or isinstance(error, Cancelled):
            return False
        self.drop(words(error), error)
        return True

    def drop(self, why: str, error: Exception | None = None) -> None:
        """The drafter is not asked again; said once."""
        if not self.failed:
            self.failed = f"drafter {self.name} failed ({why}): decoding goes on without it"
            log.warning("%s", self.failed)
            log.info("the drafter's failure:", exc_info=error)

    def _progress(self) -> object:
        return None if self._model is None else self._model.length

    def _hangs(self) -> None:
        if self._model is not None:
            self._model.cancel()
        elif not self._told:
            self._told = True
            log.warning("drafter %s has not answered for seconds: Ctrl-C ends it", self.name)


class Guarded:
    """Implements protocols.Drafter and window.Reads by another drafter, until that fails.

    Implements mixed.Stepwise where that one does.

    n_vocab: of an application's drafter, whose drafts are looked at (3 us a round); 0: one of the
    package's, whose drafts hold what they promise (then guarding takes 0.9 us a round). A failure
    drops the round's draft before it is verified, so a text that is matched (greedy, or with a
    seed) is what it would have been, and the law of a sampled one holds as far as a failure does
    not depend on what was drawn.
    """

    pays: Pays

    def __init__(
        self, drafter: Drafter, *, n_vocab: int = 0, model: Stoppable | None = None
    ) -> None:
        self.name, self.n_leaves = drafter.name, drafter.n_leaves
        self.guard = Guard(drafter.name, model, can_hang=n_vocab > 0 or model is not None)
        self._drafter, self._n_vocab, self._n_read = drafter, n_vocab, 0
        self._reads = drafter if isinstance(drafter, Reads) else None
        self._stepwise = drafter if isinstance(drafter, Stepwise) else None
        if self._stepwise is not None:
            self.pays = self._stepwise.pays

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        guard = self.guard
        if guard.failed:
            return NO_DRAFT
        if self._stepwise is not None:
            self._stepwise.pays = self.pays
        with guard.reading(len(context) - self._n_read):
            draft = self._drafter.draft(context, k, drawing)
            if self._n_vocab:
                check(draft, k, n_vocab=self._n_vocab, n_leaves=self.n_leaves)
            self._n_read = len(context)
            return draft if draft.law is None else replace(draft, law=Tried(draft.law, guard))
        return NO_DRAFT

    def n_unread(self, context: Sequence[int]) -> int:
        """See window.Reads; 0 for a drafter that reads nothing."""
        if self._reads is not None and not self.guard.failed:
            with self.guard:
                return self._reads.n_unread(context)
        return 0

    def read_on(self, context: Sequence[int], n: int) -> None:
        """See window.Reads."""
        if self._reads is not None and not self.guard.failed:
            with self.guard.reading(n):
                self._reads.read_on(context, n)

    def observe(self, done: Round) -> None:
        if not self.guard.failed:
            with self.guard:
                self._drafter.observe(done)

    def close(self) -> None:
        with self.guard:
            self._drafter.close()


class Several:
    """Implements Stoppable: a model that reads several texts, whose own length tells nothing."""

    def __init__(self, texts: Sequence[LanguageModel], cancel: Callable[[], None]) -> None:
        self._texts, self.cancel = texts, cancel

    @property
    def length(self) -> int:
        """Tokens of all texts."""
        return sum(text.length for text in self._texts)


class GuardedTexts:
    """Implements together.Drafters by another one, until that fails; then nothing is drafted.

    model: what it computes with, if that can be cancelled.
    """

    def __init__(self, drafters: Drafters, model: Stoppable | None = None) -> None:
        self.guard, self._drafters, self._model = Guard("model", model), drafters, model
        self._n_read: dict[int, int] = {}  # of each text, at least

    def step_s(self, m: int) -> float:
        """See together.Drafters; for ever, once it failed."""
        return self._worked_out(self._drafters.step_s, math.inf, m)

    def read_s(self, n: int) -> float:
        """See together.Drafters; otherwise as step_s."""
        return self._worked_out(self._drafters.read_s, math.inf, n)

    def begin(self, who: int, ids: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> None:
        """See together.Drafters."""
        self._n_read[who] = 0
        self._worked_out(self._drafters.begin, None, who, ids, messages)

    def n_unread(self, who: int, context: Sequence[int]) -> int:
        """See together.Drafters."""
        return self._worked_out(self._drafters.n_unread, 0, who, context)

    def drafts(self, wishes: Sequence[Wish]) -> list[Draft]:
        """See together.Drafters; none of anybody in the call that fails. Raises: Cancelled."""
        n_new = 0
        for wish in wishes:
            n_read = self._n_read.get(wish.who, 0)
            part = max(min(len(wish.context) - n_read, PART), 0)
            self._n_read[wish.who] = min(len(wish.context), n_read + part)
            n_new += part
        if not self.guard.failed:
            with self.guard.reading(n_new):
                return [
                    one if one.law is None else replace(one, law=Tried(one.law, self.guard))
                    for one in self._drafters.drafts(wishes)
                ]
        return [NO_DRAFT] * len(wishes)

    def forget(self) -> None:
        """See together.Drafters."""
        self._worked_out(self._drafters.forget, None)

    def cancel(self) -> None:
        """End a forward in progress with Cancelled; from any thread."""
        if self._model is not None:
            self._model.cancel()

    def _worked_out(self, what: Callable[..., T], otherwise: T, *args: Any) -> T:
        """What a call gives in which the model computes nothing that might hang: 0.3 us, not 1.6,
        and some are asked for in every round.
        """
        if not self.guard.failed:
            try:
                return what(*args)
            except Cancelled:
                raise
            except Exception as error:
                self.guard.drop(words(error), error)
        return otherwise


class Tried:
    """Implements types.DraftLaw by another, which asks the drafter while tokens are compared.

    Once that fails the token in question is refused and the target's law p gives another: right but
    for this one token, and wrong there by no more than the chance that the drafter had to be asked.
    """

    def __init__(self, law: DraftLaw, guard: Guard) -> None:
        self._law, self._guard, self._lost = law, guard, False

    def keeps(self, i: int, token: int, p: float, u: float) -> bool:
        with self._guard:
            return self._law.keeps(i, token, p, u)
        self._lost = True
        return False

    def shared(self, p: FloatArray) -> float | None:
        return self._law.shared(p)

    def residual(self, i: int, p: FloatArray, chances: Chances) -> int:
        if not self._lost:
            with self._guard:
                return self._law.residual(i, p, chances)
        return chances.pick(p)


class Enduring:
    """Implements protocols.Speculator by another one, whose drafters are guarded."""

    def __init__(self, speculator: Speculator, guards: Sequence[Guard]) -> None:
        self._speculator, self._guards = speculator, guards
        self.name, self.n_leaves = speculator.name, speculator.n_leaves
        self.propose, self.observe = speculator.propose, speculator.observe
        self.close = speculator.close

    @property
    def most(self) -> int:
        """Tokens to draft at once."""
        return self._speculator.most

    @most.setter
    def most(self, n: int) -> None:
        self._speculator.most = n

    @property
    def reason(self) -> str:
        """Which drafters failed, or why drafting is paused; else empty."""
        return "; ".join(g.failed for g in self._guards if g.failed) or self._speculator.reason


def words(error: Exception) -> str:
    """A failure in a few words."""
    if isinstance(error, MemoryError):
        return "out of memory"
    text = in_a_line(str(error))
    if not isinstance(error, EdgeSpecError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."


def check(draft: Draft, k: int, *, n_vocab: int, n_leaves: int) -> None:
    """Raises: ShapeError for a draft that verification must not see."""
    n = len(draft)
    if n > k:
        raise ShapeError(f"it drafted {n} tokens: expected at most the {k} it was asked for")
    for token in draft.tokens:
        if not (isinstance(token, (int, np.integer)) and 0 <= token < n_vocab):
            raise ShapeError(f"it drafted token {token!r:.20}: expected ids below {n_vocab}")
    if not draft.is_chain:
        if draft.n_leaves > n_leaves:
            raise ShapeError(f"it drafted {draft.n_leaves} leaves: expected at most {n_leaves}")
        if draft.is_drawn:
            raise ShapeError("it drafted branches with their law: expected a chain, or no law")
    if not all(0 <= sure <= 1 for sure in draft.confidence):
        raise ShapeError(f"its confidence is {draft.confidence}: expected shares up to 1")
    if draft.probs is not None:
        check_probs(draft, draft.probs)


def check_probs(draft: Draft, probs: FloatArray) -> None:
    """Raises: ShapeError for rows that are no law the tokens can have been drawn from."""
    n = len(draft)
    if probs.ndim != 2 or len(probs) != n or probs.shape[1] <= max(draft.tokens):
        raise ShapeError(f"its probs have the shape {probs.shape}: expected a row of V for each")
    if not np.abs(probs.sum(axis=1) - 1).max() < 1e-2:  # NaN is not
        raise ShapeError(f"its probs sum to {probs.sum(axis=1)}: expected 1 for each token")
    if not (probs[np.arange(n), draft.tokens] > 0).all():
        raise ShapeError("it drafted a token of probability 0: expected one drawn from its probs")
