"""Which head corrects a draft model's: the last good one, the one that learns, or none.

Every position is a question to all of them before any has learned from it (rivals.py); held-out
requests are asked when an answer is over (gate.py).
"""

from __future__ import annotations

import logging
from datetime import date

import numpy as np

from edgespec.adapt.adapted import Adapted
from edgespec.adapt.adapter import HeadAdapter, fresh
from edgespec.adapt.adapter_file import AdapterFiles, Day
from edgespec.adapt.examples import Batch
from edgespec.adapt.gate import FEW, FEWEST, Gate, Verdict, rates
from edgespec.adapt.rivals import Decline, Lead
from edgespec.adapt.trainer import Trainer
from edgespec.errors import UsageError

log = logging.getLogger("edgespec")


class Heads:
    """Owns what `model`'s head is corrected by, and `files`, where the good ones are kept.

    A head is good that held-out requests have shown to be better than the last good one, or that is
    ahead of it on what it had not learned from. One that is worse for sure is given up; one of
    which nothing is known learns on. Within an answer the one that learns takes over, for the rest
    of it, once the answer itself has shown it to be better, and for the next one if that is seen
    only when it is over. Where the uncorrected head turns out to be better, it is used again and
    learning begins anew; the files stay, as the next session may be of their kind again.
    """

    def __init__(
        self,
        model: Adapted,
        trainer: Trainer,
        files: AdapterFiles,
        days: dict[str, Day],
        *,
        within: bool = True,
    ) -> None:
        """within: whether the head that learns may take over while an answer is written."""
        self._within = within
        self.files, self.gate = files, Gate(trainer.adapter)
        self._model, self._trainer, self._days = model, trainer, days
        self.frozen = fresh(np.arange(0), trainer.adapter.n_hidden, rank=trainer.adapter.rank)
        self._used, self._lead, self._fall = self.frozen, Lead(), Decline()
        self._decline, self._lag, self._progress = Decline(), Decline(), Lead()
        self.n_unjudged = self._n_updates = 0  # steps since it was judged, since a day counted them
        self.is_young = False  # a topic that was opened in this session: see `follow`
        self.use(self.gate.good)

    @property
    def trainer(self) -> Trainer:
        """What teaches the one that learns."""
        return self._trainer

    def saw(self, made: bool, frozen: bool) -> None:
        """Whether a guess was right as it was made, and whether the uncorrected one was: once that
        is better, the rest of the answer is left to it, before anything else is computed.
        """
        self._fall.add(np.array([made], np.float64), np.array([frozen], np.float64))
        if self._fall.is_sure:
            self.stand_back()

    def stand_back(self) -> None:
        """Leave the answer to the uncorrected head, until another is seen to be better."""
        self._model.correction = None

    def compare(self, asked: Batch, *, is_over: bool = False) -> bool:
        """Ask all about positions that none of them has learned from, and use the better one.

        is_over: the answer is; what it has shown is not added to what the next one will show.
        Returns whether the last good one has fallen behind the uncorrected one.
        """
        lead = Lead() if is_over else self._lead
        learning, used, good, frozen = (
            rates(one, asked, greedy=True)
            for one in (self._trainer.adapter, self._used, self.gate.good, self.frozen)
        )
        lead.add(learning, used)
        self._progress.add(learning, good)
        self._lag.add(learning, used)
        self._decline.add(used, frozen)
        if lead.is_sure and (self._within or is_over):
            self.use(self._trainer.adapter.copy())
        elif self._decline.is_sure:
            if self._used is self.gate.good:
                self._decline = Decline()
                return True
            self._give_up()
        return False

    def use(self, head: HeadAdapter) -> None:
        """Correct by it from now on; what is known of the one before says nothing of it."""
        self._lead, self._fall = Lead(), Decline()
        if head is not self._used:
            self._used, self._decline, self._lag = head, Decline(), Decline()
        self._model.correction = head if len(head.rows) else None

    def start_over(self) -> None:
        """In this session the uncorrected head is the last good one; the files stay as they are."""
        self.gate.good = self.frozen.copy()
        self._give_up()

    def _give_up(self) -> None:
        """Begin again at the last good one."""
        self._progress = Lead()
        self._trainer.adapter.become(self.gate.good)
        self._trainer.restart()
        self.use(self.gate.good)

    def answer_is_over(self) -> None:
        """What took over within it was for that."""
        self.use(self.gate.good)

    def follow(self, verdict: Verdict, n_positions: int) -> None:
        """Adopt and keep the head that learns if it is better; give it up if it is worse.

        verdict: the gate's on it. n_positions: those it has learned from. The few held-out requests
        of a young topic can only agree with what was seen on positions not learned from.
        """
        is_asked = verdict.n_requests >= FEWEST
        if not (is_asked or (self.is_young and verdict.n_requests >= FEW)):
            return
        if is_asked:
            self._n_updates, self.n_unjudged = self._n_updates + self.n_unjudged, 0
        if verdict.after < verdict.before - verdict.noise:
            self._give_up()
        surely = 0.0 if is_asked else verdict.noise
        is_ahead = self._progress.is_sure and verdict.after > verdict.before + surely
        if not (verdict.adopted or is_ahead) or self._lag.is_sure:
            return
        self.gate.good, self._progress = self._trainer.adapter.copy(), Lead()
        self.use(self.gate.good)
        if is_asked:
            day = self._days.setdefault(date.today().isoformat(), Day(before=verdict.before))
            day.n_updates, self._n_updates = day.n_updates + self._n_updates, 0
            day.n_positions, day.after = n_positions, verdict.after
        self._save()

    def _save(self) -> None:
        """Keep the last good one."""
        try:
            n_columns = self._model.n_columns
            self.files.save(self.gate.good, self._days, n_columns=n_columns)
        except UsageError as error:
            log.info("what the drafter's head learned is not stored: %s", error)
