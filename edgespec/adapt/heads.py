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
from edgespec.adapt.gate import Gate, Verdict, rates
from edgespec.adapt.rivals import Decline, Lead
from edgespec.adapt.trainer import Trainer
from edgespec.errors import UsageError

log = logging.getLogger("edgespec")


class Heads:
    """Owns what `model`'s head is corrected by, and `files`, where the last good one is kept.

    A head is good that held-out requests have shown to be better than the last good one, or that is
    ahead of it on what it had not learned from. One that is worse for sure is given up; one of
    which nothing is known learns on. Within an answer the one that learns takes over, for the rest
    of it, once the answer itself has shown it to be better, and for the next one if that is seen
    only when it is over. Where the uncorrected head turns out to be better, it is used again and
    learning begins anew.
    """

    def __init__(
        self, model: Adapted, trainer: Trainer, files: AdapterFiles, days: dict[str, Day]
    ) -> None:
        self.files, self.gate = files, Gate(trainer.adapter)
        self._model, self._trainer, self._days = model, trainer, days
        self._frozen = fresh(np.arange(0), trainer.adapter.n_hidden, rank=trainer.adapter.rank)
        self._used, self._lead = self._frozen, Lead()
        self._decline, self._lag, self._progress = Decline(), Decline(), Lead()
        self._is_saved = True
        self.use(self.gate.good)

    def compare(self, asked: Batch, *, is_over: bool = False) -> None:
        """Ask all about positions that none of them has learned from, and use the better one.

        is_over: the answer is; what it has shown is not added to what the next one will show.
        """
        lead = Lead() if is_over else self._lead
        learning, used, good, frozen = (
            rates(one, asked, greedy=True)
            for one in (self._trainer.adapter, self._used, self.gate.good, self._frozen)
        )
        lead.add(learning, used)
        self._progress.add(learning, good)
        self._lag.add(learning, used)
        self._decline.add(used, frozen)
        if lead.is_sure:
            self.use(self._trainer.adapter.copy())
        elif self._decline.is_sure:
            if self._used is self.gate.good:
                self.gate.good, self._is_saved = self._frozen.copy(), False
            self._give_up()

    def use(self, head: HeadAdapter) -> None:
        """Correct by it from now on; what is known of the one before says nothing of it."""
        self._lead = Lead()
        if head is not self._used:
            self._used, self._decline, self._lag = head, Decline(), Decline()
        self._model.correction = head if len(head.rows) else None

    def _give_up(self) -> None:
        """Begin again at the last good one."""
        self._progress = Lead()
        self._trainer.adapter.become(self.gate.good)
        self._trainer.restart()
        self.use(self.gate.good)

    def answer_is_over(self) -> None:
        """What took over within it was for that; what was given up is kept no longer."""
        self.use(self.gate.good)
        if not self._is_saved:
            self._save()

    def follow(self, verdict: Verdict, n_updates: int, n_positions: int) -> None:
        """Adopt and keep the head that learns if it is better; give it up if it is worse.

        verdict: the gate's on it. n_updates, n_positions: since the last verdict, and learned from.
        """
        if verdict.after < verdict.before - verdict.noise:
            self._give_up()
        is_ahead = self._progress.is_sure and verdict.after > verdict.before
        if not (verdict.adopted or is_ahead) or self._lag.is_sure:
            return
        self.gate.good, self._progress = self._trainer.adapter.copy(), Lead()
        self.use(self.gate.good)
        day = self._days.setdefault(date.today().isoformat(), Day(before=verdict.before))
        day.n_updates, day.n_positions = day.n_updates + n_updates, n_positions
        day.after = verdict.after
        self._save()

    def _save(self) -> None:
        """Keep the last good one."""
        self._is_saved = True
        try:
            self.files.save(self.gate.good, self._days)
        except UsageError as error:
            log.info("what the drafter's head learned is not stored: %s", error)
