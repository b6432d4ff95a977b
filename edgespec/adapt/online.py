"""Learns while a model drafts: labels from every round, a step whenever time allows.

Labelling and training take at most a share of what decoding takes; what does not fit is left out.
Implements drafters.teaching.Learner and adapt.learned.Kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adapted import Adapted, Guess
from edgespec.adapt.adapter_file import AdapterFiles, Day
from edgespec.adapt.examples import Examples
from edgespec.adapt.gate import FEWEST, Gate
from edgespec.adapt.labels import Labels, mapped, only_pieces
from edgespec.adapt.trainer import Trainer
from edgespec.errors import UsageError
from edgespec.types import FloatArray

Ints = NDArray[np.int64]

log = logging.getLogger("edgespec")

SHARE = 0.02  # of the time of decoding
AHEAD_S = 0.25  # of work, at most, that is saved up for
FRESH = 16  # positions labelled since the last step, or there is none
NEAR = 16.0  # a token whose logit is farther below the best one's is of the tail
HELD, WORTH_HOLDING = 8192, 0.02  # rows of the head at most; the target's probability of a new one


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
    """Of `n` guesses so many were the target's likeliest token: as made, and by the head alone.

    Both are of the same places, those that drafts came to, so one run tells what is learned.
    """

    n: int = 0
    made: int = 0
    frozen: int = 0


class Online:
    """Teaches `trainer`'s adapter by what a target says.

    `model`'s head is corrected by the last adapter that held-out requests have shown to be better
    (gate.py); one that is worse for sure is given up, one of which that is not known learns on.
    share: of the rounds' time that learning may take; judging and saving is between answers.
    """

    def __init__(
        self,
        model: Adapted,
        trainer: Trainer,
        examples: Examples,
        columns: Columns,
        files: AdapterFiles,
        days: dict[str, Day],
        *,
        share: float = SHARE,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.model, self.trainer, self.examples = model, trainer, examples
        self._columns, self._share, self._clock = columns, share, clock
        self._files, self._days = files, days
        self.gate = Gate(trainer.adapter)
        self.model.correction = self.gate.good if len(trainer.adapter.rows) else None
        self.hits = Hits()
        self._held: dict[int, Guess] = {}
        self._new_rows: set[int] = set()
        self._n_fresh, self._request, self._step_s = 0, 0, 0.0
        self.balance_s = 0.0  # of work that is allowed now
        self.spent_s, self.n_steps, self._n_judged = 0.0, 0, 0

    def hold(self) -> None:
        """See drafters.teaching.Learner."""
        self._held = dict(self.model.guesses)

    def label(self, place: int, row: FloatArray, pieces: Sequence[int]) -> None:
        """See drafters.teaching.Learner; left out where time is short."""
        guess = self._held.get(place)
        if guess is None:
            return
        self._count(guess, row, pieces)
        if self.balance_s < 0:
            return
        start = self._clock()
        self._add(guess, self._mapped(row, pieces))
        for at, piece in enumerate(pieces[1:], place + 1):
            if at in self._held:
                column = self._columns.of_piece(np.array([piece]))
                self._add(self._held[at], only_pieces(column))
                self._new_rows.update(column.tolist())
        self._spend(start)

    def passed(self, seconds: float) -> None:
        """A round took so long: learn for a share of it."""
        self.balance_s = min(self.balance_s + self._share * seconds, AHEAD_S)
        if self._n_fresh >= FRESH and self.balance_s >= self._step_s:
            self.step()

    def step(self) -> None:
        """Learn from what was labelled."""
        start = self._clock()
        self._hold_rows()
        self.trainer.step(self.examples)
        self._n_fresh = 0
        self.n_steps += 1
        self._step_s = self._spend(start)

    def save(self, *, at_least: int = 1) -> None:
        """See adapt.learned.Kind: an answer is over, so judge what was learned, and keep it."""
        self._request += 1
        if self.n_steps == self._n_judged:
            return
        verdict = self.gate.judge(self.trainer.adapter, self.examples.held_out())
        if verdict.n_requests < FEWEST:
            return
        n_updates, self._n_judged = self.n_steps - self._n_judged, self.n_steps
        if verdict.after < verdict.before - verdict.noise:
            self.trainer.adapter.become(self.gate.good)
            self.trainer.restart()
        if not verdict.adopted:
            return
        self.gate.good = self.model.correction = self.trainer.adapter.copy()
        day = self._days.setdefault(date.today().isoformat(), Day(before=verdict.before))
        day.n_updates, day.n_positions = day.n_updates + n_updates, len(self.examples)
        day.after = verdict.after
        try:
            self._files.save(self.gate.good, self._days)
        except UsageError as error:
            log.info("what the drafter's head learned is not stored: %s", error)

    def _count(self, guess: Guess, row: FloatArray, pieces: Sequence[int]) -> None:
        """Whether this guess, and the uncorrected one, was right."""
        if pieces:
            right = self._columns.of_piece(np.array(pieces[:1]))[0]
        else:
            right = self._columns.of_target(np.array([row.argmax()]))[0]
        self.hits.n += 1
        self.hits.made += bool(pieces)
        self.hits.frozen += int(guess.logits.argmax() == right)

    def _mapped(self, row: FloatArray, pieces: Sequence[int]) -> Labels:
        """One label, and the rows that it wants held."""
        near = np.flatnonzero(row > row.max() - NEAR)
        of = mapped(row[near][None], self._columns.of_target(near))
        drafted = self._columns.of_piece(np.array(pieces[:1])) if pieces else np.array([-1])
        self._new_rows.update(of.ids[0][of.probs[0] > WORTH_HOLDING].tolist())
        return Labels(of.ids, of.probs, np.array([-1]), drafted, np.array([bool(pieces)]))

    def _add(self, guess: Guess, labels: Labels) -> None:
        self.examples.add(self._request, guess.hidden[None], guess.logits[None], labels)
        self._n_fresh += 1

    def _hold_rows(self) -> None:
        """Hold rows that labels have named since, as long as there is room."""
        known = self.trainer.adapter.rows
        new = np.setdiff1d(np.array(sorted(self._new_rows - {-1}), np.int64), known)
        self._new_rows.clear()
        if len(new) and len(known) < HELD:
            self.trainer.hold(np.union1d(known, new[: HELD - len(known)]))

    def _spend(self, start: float) -> float:
        took_s = self._clock() - start
        self.balance_s -= took_s
        self.spent_s += took_s
        return took_s
