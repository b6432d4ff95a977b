"""Learns while a model drafts: labels from every round, a step whenever time allows.

Labelling and training take at most a share of what decoding takes; what does not fit is left out,
or done in idle time after the answer, until the next request.
Implements drafters.teaching.Learner and adapt.learned.Kind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adapted import Adapted, Guess
from edgespec.adapt.answer import Answer
from edgespec.adapt.examples import Batch, Examples
from edgespec.adapt.features import features
from edgespec.adapt.gate import Verdict
from edgespec.adapt.grown import Grown
from edgespec.adapt.heads import Heads
from edgespec.adapt.held import HeldRows
from edgespec.adapt.idle import Idle, on_mains
from edgespec.adapt.labels import Labels, mapped, only_pieces
from edgespec.adapt.topics import NOTHING, Topics
from edgespec.adapt.trainer import POSITIONS, Trainer
from edgespec.types import FloatArray

Ints = NDArray[np.int64]

SHARE = 0.02  # of the time of decoding
AHEAD_S = 0.25  # of work, at most, that is saved up for
IDLE_STEPS = 64  # after an answer, if nobody asks meanwhile
PATIENCE = 8  # answers without idle time, after which judging is done between two of them
LATER_BYTES = 32 << 20  # of what waits to be labelled then
FRESH = 16  # positions labelled since the last step, or there is none
NEAR = 16.0  # a token whose logit is farther below the best one's is of the tail
WORTH_HOLDING = 0.02  # the target's probability of a token whose row is to be held


@dataclass(frozen=True)
class Columns:
    """Which column of the drafter's head is meant: by a token of the target's, or by a piece.

    Ids [n] to columns [n], -1 for none. of_target: of the first piece that spells the token.
    of_piece: of the drafter's own tokens.
    """

    of_target: Callable[[Ints], Ints]
    of_piece: Callable[[Ints], Ints]


@dataclass
class Hits:
    """Of `n` guesses so many were what the target said: as made, and by the uncorrected head.

    Both are of the same places, those that drafts came to, so one run tells what is learned.
    """

    n: int = 0
    made: int = 0
    frozen: int = 0


@dataclass(frozen=True)
class Judged:
    """A place the target has judged: its row [V], the pieces that spell what it said, the guesses
    that were made of them (the first at least; None where there was none)."""

    answer: Answer
    place: int
    row: FloatArray
    pieces: tuple[int, ...]
    guesses: tuple[Guess | None, ...]

    def copied(self) -> Judged:
        """One whose arrays stay as they are."""
        guesses = (
            one and Guess(one.hidden.copy(), one.logits.copy(), one.best) for one in self.guesses
        )
        return replace(self, row=self.row.copy(), guesses=tuple(guesses))

    @property
    def n_bytes(self) -> int:
        return self.row.nbytes + sum(one.logits.nbytes for one in self.guesses if one is not None)


class Online:
    """Teaches a model's heads by what a target says; `topics` says which one, and which is in use.

    share: of the rounds' time that learning may take, less 0.1 ms a label that has to wait for idle
    time; judging and saving is between answers. may: whether the device has power to spare, asked
    before each answer. grown: a trimmed head whose rows follow what the target says.
    """

    def __init__(
        self,
        model: Adapted,
        topics: Topics,
        examples: Examples,
        columns: Columns,
        *,
        share: float = SHARE,
        clock: Callable[[], float] = perf_counter,
        may: Callable[[], bool] = on_mains,
        grown: Grown | None = None,
    ) -> None:
        self.model, self.topics, self.examples = model, topics, examples
        self._columns, self._share, self._clock = columns, share, clock
        self.grown = grown
        self._is_over = True  # the answer before; the next one has not begun
        self.hits = Hits()
        self._held: dict[int, Guess] = {}
        self._rows = HeldRows(model.n_columns)
        self._n_fresh, self._n_labelled, self._step_s = 0, 0, 0.0
        self.balance_s = 0.0  # of work that is allowed now
        self.spent_s, self.n_steps = 0.0, 0
        self.idle, self._n_idle = Idle(self._learn_on, may=may), 0
        self._may, self._may_now = may, may()
        self._judging: Generator[None, None, Verdict] | None = None
        self._n_waiting = 0  # answers since the last judgement
        self._later, self._later_bytes = deque[Judged](), 0

    @property
    def heads(self) -> Heads:
        """Those of the topic that the answer is of."""
        return self.topics.now

    @property
    def trainer(self) -> Trainer:
        """Theirs."""
        return self.heads.trainer

    def begin(self, prompt: Sequence[int]) -> None:
        """A request comes. prompt: in the target's tokens; they tell the topic."""
        self.idle.stop()
        self.topics.begin(features(prompt) if len(prompt) else NOTHING)
        self._is_over = False

    def hold(self) -> None:
        """See drafters.teaching.Learner."""
        self.idle.stop()
        if self._is_over:
            self.begin(())
        self._held = dict(self.model.guesses)

    def label(self, place: int, row: FloatArray, pieces: Sequence[int]) -> None:
        """See drafters.teaching.Learner; left for idle time where time is short."""
        guess = self._held.get(place)
        if guess is None:
            return
        self._count(guess, row, pieces)
        self.topics.answer.n += 1
        if not self._may_now:
            return
        guesses = (guess, *(self._held.get(place + i) for i in range(1, len(pieces))))
        judged = Judged(self.topics.answer, place, row, tuple(pieces), guesses)
        if self.balance_s < 0:  # a copy of 0.8 MB takes a tenth of a label
            if not self.idle.is_off:
                self._leave(judged.copied())
            return
        start = self._clock()
        self._label(judged)
        self._spend(start)

    def _leave(self, judged: Judged) -> None:
        """For idle time, in place of the oldest that wait if they are many."""
        self._later.append(judged)
        self._later_bytes += judged.n_bytes
        while self._later_bytes > LATER_BYTES:
            self._later_bytes -= self._later.popleft().n_bytes

    def _label(self, judged: Judged) -> None:
        (first, *others), pieces = judged.guesses, judged.pieces
        assert first is not None
        self._add(judged, 0, first, self._mapped(judged.row, pieces, first.logits))
        for i, (guess, piece) in enumerate(zip(others, pieces[1:], strict=True), 1):
            if guess is not None:
                column = sayable(self._columns.of_piece(np.array([piece])), guess.logits)
                self._add(judged, i, guess, only_pieces(column))
                self._rows.name(column.tolist())

    def passed(self, seconds: float) -> None:
        """A round took so long: learn for a share of it."""
        self.balance_s = min(self.balance_s + self._share * seconds, AHEAD_S)
        if self._may_now and self._n_fresh >= FRESH and self.balance_s >= self._step_s:
            self.step()

    def step(self) -> None:
        """Learn from what was labelled."""
        start = self._clock()
        self._compare()
        self._train()
        self._step_s = self._spend(start)

    def _compare(self, *, is_over: bool = False) -> None:
        """Ask all heads what none of them has learned from."""
        asked = self._unlearned()
        self.topics.place(asked)
        if self.heads.compare(asked, is_over=is_over):
            self.topics.decline()

    def _train(self) -> None:
        self._rows.follow(self.trainer, None if self.grown is None else self.grown.has)
        self.trainer.step(self.examples, self.topics.answer.topic)
        self.n_steps, self._n_fresh = self.n_steps + 1, 0
        self.heads.n_unjudged += 1

    def _learn_on(self) -> bool:
        """A label or a step in idle time; whether there is more to do. At last what was learned is
        judged.
        """
        if self._later:
            judged = self._later.popleft()
            self._later_bytes -= judged.n_bytes
            self._label(judged)
            return True
        if self._n_idle == 0 and self._n_fresh:
            self._compare(is_over=True)
        if self._n_idle < IDLE_STEPS and self._n_known >= FRESH:
            self._n_idle += 1
            self._train()
            return True
        if self._judging is None and self.heads.n_unjudged:
            self._judging = self.heads.gate.judging(self.trainer.adapter, self._held_out())
        return self._judging is not None and not self._has_judged(self._judging)

    def _has_judged(self, judging: Generator[None, None, Verdict]) -> bool:
        """Judge on; at last do what follows."""
        try:
            next(judging)
        except StopIteration as ended:
            self._judging = None
            self._follow(ended.value)
            return True
        return False

    def save(self, *, at_least: int = 1) -> None:
        """See adapt.learned.Kind: an answer is over, so judge what was learned, and keep it.

        at_least: 1 at the end of all, where no idle time follows.
        """
        self.idle.stop()
        if self.grown is not None:
            self.grown.missed.save(at_least=at_least)
        self._may_now = self._may()
        self.heads.answer_is_over()
        n_new = self.hits.n - self._n_labelled
        self._is_over, self._n_labelled, self._judging = True, self.hits.n, None
        self._n_waiting += 1
        if at_least == 1 or self._n_waiting > PATIENCE:  # no idle time follows, or none came
            self.idle.at_once(self._judge)
        self.topics.keep(at_end=at_least == 1)
        if at_least > 1 and n_new:
            self._n_idle = 0
            self.idle.begin()

    def _judge(self) -> None:
        """Ask the held-out requests at once."""
        if self.heads.n_unjudged:
            self._follow(self.heads.gate.judge(self.trainer.adapter, self._held_out()))

    def _follow(self, verdict: Verdict) -> None:
        """Have the heads follow it, if enough requests were asked."""
        self._n_waiting = 0
        self.heads.follow(verdict, self._n_known)

    @property
    def _n_known(self) -> int:
        """Positions of the topic."""
        return self.examples.n_of(self.topics.answer.topic)

    def _held_out(self) -> Batch:
        return self.examples.held_out(self.topics.answer.topic)

    def _unlearned(self) -> Batch:
        """What was labelled since the last step."""
        return self.examples.newest(min(self._n_fresh, POSITIONS))

    def _count(self, guess: Guess, row: FloatArray, pieces: Sequence[int]) -> None:
        """Whether this guess, and the uncorrected one, was right."""
        if pieces:
            right = self._columns.of_piece(np.array(pieces[:1]))[0]
        else:
            right = self._columns.of_target(np.array([row.argmax()]))[0]
        if self.grown is not None:
            self.grown.said(int(right))
        self.hits.n += 1
        made, frozen = guess.best == right, int(guess.logits.argmax()) == right
        self.hits.made += int(made)
        self.hits.frozen += int(frozen)
        self.heads.saw(bool(made), bool(frozen))

    def _mapped(self, row: FloatArray, pieces: Sequence[int], logits: FloatArray) -> Labels:
        """One label of a guess [K], and the rows that it wants held."""
        near = np.flatnonzero(row > row.max() - NEAR)
        of = mapped(row[near][None], sayable(self._columns.of_target(near), logits))
        drafted = self._columns.of_piece(np.array(pieces[:1])) if pieces else np.array([-1])
        drafted = sayable(drafted, logits)
        self._rows.name(of.ids[0][of.probs[0] > WORTH_HOLDING].tolist())
        return Labels(of.ids, of.probs, np.array([-1]), drafted, np.array([bool(pieces)]))

    def _add(self, judged: Judged, i: int, guess: Guess, labels: Labels) -> None:
        """Keep the guess of its i-th piece."""
        answer = judged.answer
        self.examples.add(
            answer.request, guess.hidden[None], guess.logits[None], labels,
            place=judged.place + i, owner=answer.owner,
        )  # fmt: skip
        self._n_fresh += 1

    def _spend(self, start: float) -> float:
        took_s = self._clock() - start
        self.balance_s -= took_s
        self.spent_s += took_s
        return took_s


def sayable(columns: Ints, logits: FloatArray) -> Ints:
    """The same, -1 for what a guess [K] had no row for: it may have come in since."""
    return np.where(np.isneginf(logits[columns]), -1, columns)
