"""One thread that drives all generations: each forward reads a row or more for everyone.

A round: who left goes, who waits is let in, prompts go on a part each, everyone else drafts; then
one forward of the target, and everyone is told. Whatever fails for one ends that one; a forward
that fails ends all who were in it, and those who come next find everything in order.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from edgespec.decode.round import Ask, Decoding
from edgespec.errors import BackendError, BusyError, Cancelled, EdgeSpecError, UsageError
from edgespec.pace.goodput import cost_of
from edgespec.protocols import SharedModel
from edgespec.session.many.door import CLOSED
from edgespec.session.many.drafting import Drafting, Wanted
from edgespec.session.many.looking import Looking
from edgespec.session.many.parts import ending, part_of, shares
from edgespec.session.many.slots import Job, Slot, place
from edgespec.types import Step

log = logging.getLogger("edgespec")
STOPPED = "stopped: the model was closed"


@dataclass(frozen=True)
class Load:
    """How busy it is: sequences, those with a generation, and requests that wait."""

    n_slots: int
    n_running: int
    n_queued: int


class Rounds:
    """Generations of the texts of `shared`, by a thread that runs while there is something to do.

    drafting: None to draft nothing. n_queue: requests that may wait. A generation ends its job's
    steps; nothing else is known of who reads them.
    """

    def __init__(
        self, shared: SharedModel[Any], drafting: Drafting | None, *, n_queue: int
    ) -> None:
        self._shared, self._drafting, self._n_queue = shared, drafting, n_queue
        self._slots = [Slot(i, text) for i, text in enumerate(shared.sequences)]
        self._waiting: deque[Job] = deque()
        self._more, self._closed, self._n_taken = threading.Condition(), False, 0
        self._read_s = 0.0  # what reading a token of a prompt takes
        self._has_waited = False  # whether a prompt did in the last round, for one that ended
        self.n_rounds = self.n_shared = 0  # forwards, and those of several generations
        self._thread = threading.Thread(target=self._run, name="edgespec-many", daemon=True)
        self._thread.start()

    def load(self) -> Load:
        """How busy it is now."""
        n_running = sum(slot.job is not None for slot in self._slots)
        return Load(len(self._slots), n_running, len(self._waiting))

    def add(self, job: Job) -> None:
        """Let it in as soon as there is a slot. Raises: BusyError, UsageError once closed."""
        with self._more:
            if self._closed:
                raise UsageError(CLOSED)
            n_idle = sum(slot.job is None for slot in self._slots)
            if len(self._waiting) >= n_idle + self._n_queue:
                raise BusyError(
                    f"{len(self._slots)} answers are in progress and {len(self._waiting)} wait: "
                    f"expected at most {self._n_queue} to wait; ask again later"
                )
            self._waiting.append(job)
            self._more.notify()

    def forget(self) -> None:
        """Know nothing of earlier texts, as a measurement wants it; only while nobody is served."""
        with self._more:
            assert not self._waiting and all(slot.job is None for slot in self._slots)
            for slot in self._slots:
                slot.empty()
                slot.looking = Looking()
            if self._drafting is not None:
                self._drafting.forget()

    def wake(self) -> None:
        """Somebody left."""
        with self._more:
            self._more.notify()

    def close(self, cancel: Callable[[], None]) -> None:
        """End all generations; cancel: ends a forward in progress. Returns when none is."""
        with self._more:
            self._closed = True
            self._more.notify()
        while self._thread.is_alive():
            cancel()  # one that came before its forward began was lost
            self._thread.join(0.05)

    def _run(self) -> None:
        while self._has_work():
            try:
                self._round()
                self._keep()
            except BaseException as error:  # nobody may wait for ever
                self._fail(error)
        for job in [*self._waiting, *(slot.job for slot in self._slots if slot.job)]:
            job.steps.end(Cancelled(STOPPED))
        self._waiting.clear()

    def _keep(self) -> None:
        """Save what was learned while nobody waits."""
        busy = self._waiting or any(slot.job is not None for slot in self._slots)
        if self._drafting is not None and not busy:
            self._drafting.learned.save_if_worth()

    def _has_work(self) -> bool:
        """Waits for something to do; whether there is."""
        with self._more:
            while not (self._closed or self._waiting or any(slot.job for slot in self._slots)):
                self._more.wait()
            return not self._closed

    def _fail(self, error: BaseException) -> None:
        """All who are in progress end; their caches are in no known state."""
        error = in_a_line(error)
        for slot in self._slots:
            job = slot.job
            try:
                slot.empty()
            except Exception as other:  # what is left of it is cut before it is read again
                log.error("a sequence cannot be emptied: %s", other)
            if job is not None:
                job.steps.end(error)

    def _round(self) -> None:
        for slot in self._slots:
            if slot.job is not None and slot.job.steps.has_left:
                self._end(slot)
        self._let_in()
        given, reads = self._given(), []
        for slot in self._slots:
            if slot.job is None or slot.job.decoding is not None:
                continue
            at, n = slot.text.length, given.get(slot, 0)
            part = slot.job.ids[at : at + n]
            if n < slot.unread:
                if part:
                    reads.append((slot.text, part))
                continue
            slot.text.hold(part)
            self._start(slot, slot.job)
        n_read = sum(given.values())
        wanted = self._wanted()
        self._draft(wanted, n_read)
        asked = self._asked(wanted)
        if asked or reads:
            self._forward(asked, reads, n_read, wanted)

    def _given(self) -> dict[Slot, int]:
        """How much of whose prompt is read in this round."""
        reading = sorted((s for s in self._slots if s.unread > 0), key=lambda s: s.used)
        room = self._shared.n_batch - len(self._slots)  # everyone's last token fits besides
        is_alone = all(slot.job is None for slot in self._slots if slot not in reading)
        room = part_of(max(room, 1), self._read_s, is_alone=is_alone)
        unread = [slot.unread for slot in reading]
        parts = shares(unread, room)
        if not self._has_waited:  # at most every second time
            parts = ending(unread, parts)
        self._has_waited = 0 in parts
        return dict(zip(reading, parts, strict=True))

    def _let_in(self) -> None:
        """Those who wait, in the order they came, as far as there are slots."""
        with self._more:
            for job in [job for job in self._waiting if job.steps.has_left]:
                self._waiting.remove(job)
                job.steps.end()
        while True:
            with self._more:
                idle = any(slot.job is None for slot in self._slots)
                if not (self._waiting and idle):
                    return
                job = self._waiting.popleft()
                slot, source, n = place(self._slots, job.ids)
                self._n_taken += 1
                slot.take(job, source, n, self._n_taken)
                job.n_new = len(job.ids) - n
            if self._drafting is not None:
                self._drafting.inform(slot.looking, [one.looking for one in self._slots])
            if self._drafting is not None and job.most:
                self._drafting.begin(slot.who, job.ids, job.messages)

    def _start(self, slot: Slot, job: Job) -> None:
        """Its prompt is read, or held to be read with its first row."""
        decoding = Decoding(job.ids, job.params, slot.looking, slot.text)
        decoding.tally.n_prompt, decoding.tally.started = job.n_new, job.asked
        job.decoding = decoding

    def _wanted(self) -> list[Wanted]:
        """Who may draft and has a row in this round."""
        wanted = []
        for slot in self._slots:
            job = slot.job
            if job is None or job.decoding is None:
                continue
            try:
                want = job.decoding.want()
            except Exception as error:
                self._end(slot, error)
                continue
            if want is None:
                self._end(slot)
            else:
                wanted.append(Wanted(slot.who, slot.looking, want))
        return wanted

    def _draft(self, wanted: list[Wanted], n_read: int) -> None:
        if self._drafting is not None and any(one.want.room for one in wanted):
            rows = min(self._shared.n_rows, self._shared.n_batch - n_read)
            self._drafting.draft(wanted, n_read, rows)
        elif self._drafting is not None:
            self._drafting.took_s = 0.0

    def _asked(self, wanted: list[Wanted]) -> list[tuple[Slot, Decoding, Ask]]:
        asked = []
        took_s = 0.0 if self._drafting is None else self._drafting.took_s
        for one in wanted:
            slot = self._slots[one.who]
            assert slot.job is not None and slot.job.decoding is not None
            decoding = slot.job.decoding
            try:
                ask = decoding.take(one.draft, took_s if one.want.room else 0.0)
                asked.append((slot, decoding, ask))
            except Exception as error:
                self._end(slot, error)
        return asked

    def _forward(
        self,
        asked: list[tuple[Slot, Decoding, Ask]],
        reads: list[tuple[Any, list[int]]],
        n_read: int,
        wanted: list[Wanted],
    ) -> None:
        """The forward of all; everyone is told."""
        start = perf_counter()
        rows = self._shared.forward([(slot.text, ask.tokens) for slot, _, ask in asked], reads)
        took_s = perf_counter() - start
        n_rows = sum(len(ask.tokens) for _, _, ask in asked)
        self._learn(n_rows, n_read, took_s, wanted)
        self.n_rounds += 1
        self.n_shared += len(asked) + len(reads) > 1
        for (slot, decoding, _), logits in zip(asked, rows, strict=True):
            job = slot.job
            assert job is not None
            try:
                step = decoding.tell(logits, took_s)
            except Exception as error:
                self._end(slot, error, is_sound=False)
                continue
            if self._drafting is not None:
                job.plain_s += cost_of(self._drafting.costs.seconds, len(asked) + n_read)
                job.n_priced += 1
            job.steps.put(step)
            self._look_for_end(slot, job, step)

    def _look_for_end(self, slot: Slot, job: Job, step: Step) -> None:
        """A stop string ends it at once, however late its reader comes."""
        try:
            if job.has_said is not None and job.has_said(step):
                self._end(slot)
        except Exception as error:
            self._end(slot, error)

    def _learn(self, n_rows: int, n_read: int, took_s: float, wanted: list[Wanted]) -> None:
        """What the forward took."""
        if n_read:
            per_token = took_s / (n_rows + n_read)
            self._read_s += (per_token - self._read_s) * (0.3 if self._read_s else 1.0)
        elif self._drafting is not None and n_rows:
            self._drafting.observe(n_rows, took_s, wanted)

    def _end(
        self, slot: Slot, error: BaseException | None = None, *, is_sound: bool = True
    ) -> None:
        """Its generation is over. is_sound: whether the cache holds what it should."""
        job = slot.job
        assert job is not None
        if self._drafting is not None:
            job.why = self._drafting.end(slot.looking)
        job.log()
        if is_sound:
            slot.release()
        else:
            slot.empty()
        job.steps.end(None if error is None else in_a_line(error))


def in_a_line(error: BaseException) -> EdgeSpecError:
    """What a reader is told of a failure."""
    if isinstance(error, EdgeSpecError):
        return error
    log.error("a round failed", exc_info=error)
    words = f"{type(error).__name__}: {error}".splitlines()[0]
    return BackendError(f"the model failed ({words}): expected logits; ask again")
