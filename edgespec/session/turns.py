"""One generation at a time, whichever thread asks.

A thread that begins another generation ends its last one, whose iterator then raises Cancelled.
Any other thread gets a BusyError until the one in progress is finished, closed or dropped, and so
does everyone while a round is being computed. `cancel` may be called from every thread and from a
signal handler. Knows rounds, not text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import ref

from edgespec.errors import BusyError, Cancelled
from edgespec.process import OwnLock
from edgespec.types import Limit, Piece, SamplingParams, Stats, Step

Rounds = Generator[Step, None, None]
PieceStream = Generator[Piece, None, None]
"""What a generation gives as it goes on; `close` ends it."""

BUSY = (
    "another thread's generation is in progress on this session: expected one at a time; wait for "
    "it, cancel() it, or open a second session"
)


@dataclass(eq=False)
class Run:
    """One generation, and what is known of it once it is over.

    counted: gives its counts while it is in progress. on_end: called once, when it is over for
    whatever reason. output: the ids it emitted. finish: why it ended: stop, length (max_tokens),
    context (it is full), cancelled, or empty. ended: why it may not go on.
    """

    counted: Callable[[], Stats] = Stats
    on_end: Callable[[], None] | None = None
    owner: threading.Thread = field(default_factory=threading.current_thread)
    output: list[int] = field(default_factory=list)
    finish: str = ""
    ended: str = ""
    begun: bool = False
    over: bool = False
    stats: Stats = field(default_factory=Stats)

    def so_far(self) -> Stats:
        """Its counts."""
        if self.over or not self.begun:
            return self.stats
        return self.counted()

    def end(self, why: str, *, finish: str = "") -> None:
        """It does not go on; its next round, if it is asked for, says why."""
        if self.over:
            return
        self.ended, self.finish = why, finish or self.finish
        self.stats = self.so_far()
        self.over = True
        if self.on_end is not None:
            self.on_end()


class Generations:
    """Those of one session. last: the one in progress, or the last one."""

    def __init__(self) -> None:
        self.guard = OwnLock(threading.RLock())  # held while a generation is prepared
        self.last = Run(over=True)
        self._live: Callable[[], object] = no_generation
        self._computing = OwnLock()
        self._computer = 0  # the thread that holds it
        self._free: Callable[[], None] | None = None  # once it is released
        self._cancelled = False

    @property
    def finish(self) -> str:
        """Why the last one ended: stop, length (max_tokens), context (full), cancelled."""
        return self.last.finish

    @property
    def output(self) -> list[int]:
        """The ids that the present or last one has emitted."""
        return self.last.output

    @property
    def running(self) -> bool:
        """Whether one is in progress."""
        return self.last.begun and not self.last.over

    @property
    def stopping(self) -> bool:
        """Whether the one in progress was asked to stop and has not done so yet."""
        return self.running and self._cancelled

    def begin(self, stream: Iterator[Step], params: SamplingParams, run: Run) -> Rounds:
        """The rounds of `stream`; `run` is from now on the one in progress. Raises: BusyError."""
        with self.guard:
            self.take_over()
            self._cancelled = False
            self.last = run
            steps = self._steps(run, stream, params)
            self._live = ref(steps)
        return steps

    def take_over(self) -> None:
        """End this thread's own last generation, or one that was cancelled. Raises: BusyError."""
        run = self.last
        if run.over or self._live() is None:
            return
        if run.owner is not threading.current_thread() and not self._cancelled:
            raise BusyError(BUSY)
        if not self._computing.acquire(blocking=False):
            raise BusyError(BUSY)
        try:
            run.end("another generation began on this session", finish="cancelled")
        finally:
            self._computing.release()

    def between_rounds(self) -> OwnLock:
        """Within it no round is computed; waits for the one that is."""
        return self._computing

    @contextmanager
    def undisturbed(self) -> Iterator[bool]:
        """Within it no round is computed; whether no generation is in progress."""
        with self.guard, self.between_rounds():
            yield not self.running

    def cancel(self) -> None:
        """The one in progress raises Cancelled before its next round."""
        self._cancelled = True

    def close(self, free: Callable[[], None]) -> None:
        """Free what generations need, once a round in progress is over."""
        self._cancelled = True
        if self._computer == threading.get_ident():  # asked for by what this round calls
            self._free = free
            return
        with self._computing:
            self.last.end("the session was closed", finish="cancelled")
            free()

    def _steps(self, run: Run, stream: Iterator[Step], params: SamplingParams) -> Rounds:
        run.begun = True
        try:
            while (step := self._next(run, stream)) is not None:
                run.output += step.verdict.tokens
                yield step
            run.finish = finish_of(run.output, params)
        except (Cancelled, KeyboardInterrupt):
            run.finish = run.finish or "cancelled"
            raise
        finally:
            run.end("the generation is over")

    def _next(self, run: Run, stream: Iterator[Step]) -> Step | None:
        """The next round, None after the last."""
        with self._computing:
            if run.ended or self._cancelled:
                raise Cancelled(run.ended or "stopped")
            self._computer = threading.get_ident()
            try:
                step = next(stream, None)
            finally:
                self._computer = 0
                if self._free is not None:
                    run.end("the session was closed", finish="cancelled")
                    self._free()
            if run.ended:  # by what the round called
                raise Cancelled(run.ended)
            return step


def finish_of(output: list[int], params: SamplingParams) -> str:
    """Why a generation that was not cut ended; one that a limit made end early was cut by it."""
    limit, n_tokens = params.constraint, len(output)
    if output and output[-1] in params.stop_tokens:
        if not isinstance(limit, Limit) or not limit.forced(output):
            return "stop"
        n_tokens = limit.n_tokens
    return "context" if n_tokens < params.max_tokens else "length"


def no_generation() -> None:
    """In the place of a reference to the generation in progress."""
