"""What the server asks of whoever generates, and one that answers one request after another.

Knows requests as ids and options, and nothing of HTTP.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from edgespec.config import Config
from edgespec.errors import BusyError, Cancelled
from edgespec.option import Options
from edgespec.protocols import Tokenizer
from edgespec.session.completion import Begun
from edgespec.session.prompt import Prompt
from edgespec.session.session import Session
from edgespec.session.turns import PieceStream, Run
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import Piece, Stats

TURNS = [{"role": role, "content": "Hello."} for role in ("system", "user", "assistant", "user")]


class Pieces(Protocol):
    """The pieces of one generation, as they come."""

    def __iter__(self) -> Iterator[Piece]: ...

    def __next__(self) -> Piece:
        """The next one; waits for it. Raises: Cancelled once it was closed."""
        ...

    def close(self) -> None:
        """End the generation within a round; from any thread, in whatever state it is."""
        ...


class Answering(Protocol):
    """Begins generations; from any thread, several at once.

    n_context: most tokens of a prompt with its answer. n_vocab: V.
    """

    @property
    def template(self) -> ChatTemplate: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def config(self) -> Config: ...

    @property
    def n_context(self) -> int: ...

    @property
    def n_vocab(self) -> int: ...

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """As Session.prompt."""
        ...

    def encode(self, text: str) -> list[int]:
        """As Session.encode."""
        ...

    def with_options(self, options: Options) -> Config:
        """The configuration with a request's own values. Raises: UsageError."""
        ...

    def begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun:
        """A generation, which may have to wait for its turn; its pieces are `Pieces`.

        Raises: at once what is wrong with the request; BusyError if too many wait.
        """
        ...

    def close(self) -> None:
        """End what is in progress and what waits, and free the models."""
        ...


class Line:
    """Who waits, in the order in which they came. most: that may wait behind the first."""

    def __init__(self, most: int) -> None:
        self._most, self._who = most, deque[object]()
        self._changed = threading.Condition()

    def join(self, who: object) -> None:
        """Raises: BusyError."""
        with self._changed:
            if len(self._who) > self._most:
                raise BusyError(
                    f"{len(self._who)} requests wait or are answered: expected at most "
                    f"{self._most} that wait; try again later"
                )
            self._who.append(who)

    def wait(self, who: object, left: Callable[[], bool]) -> None:
        """Until it is first. Raises: Cancelled if it has left meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: left() or self._who[0] is who)
        if left():
            raise Cancelled("stopped while it waited")

    def wake(self, who: object, stop: Callable[[], None]) -> None:
        """Let those who wait look whether they have left; `stop` what is first, if it is `who`."""
        with self._changed:
            if self._who and self._who[0] is who:
                stop()
            self._changed.notify_all()

    def leave(self, who: object) -> None:
        """It is over; leaving twice is no error."""
        with self._changed:
            if who in self._who:
                self._who.remove(who)
            self._changed.notify_all()

    def close(self) -> list[object]:
        """Those who are in it; nobody joins any more."""
        with self._changed:
            self._most = -1
            return list(self._who)


class Turn:
    """One generation: it joins the line when made, and begins when it is first and asked for.

    finish, output: of the generation, once it has begun; see turns.Run.
    """

    def __init__(
        self,
        line: Line,
        start: Callable[[], tuple[Run, PieceStream]],
        stop: Callable[[], None],
    ) -> None:
        """stop: makes the generation in progress end before its next round. Raises: BusyError."""
        self._line, self._start, self._stop = line, start, stop
        self.finish, self.output = "cancelled", list[int]()
        self._run, self._pieces = Run(), iter_nothing()
        self._begun = self._closed = self._over = False
        self._computing = threading.Lock()
        line.join(self)

    def stats(self) -> Stats:
        """Its counts so far."""
        return self._run.so_far()

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        with self._computing:
            if self._over and not self._closed:
                raise StopIteration
            try:
                return self._next()
            except BaseException:
                self._end()
                raise

    def _next(self) -> Piece:
        if not self._begun and not self._closed:
            self._line.wait(self, lambda: self._closed)
            self._run, self._pieces = self._start()
            self.output = self._run.output
            self._begun = True
        if self._closed:  # perhaps while it was begun
            raise Cancelled("stopped")
        return next(self._pieces)

    def close(self) -> None:
        """End it within a round; from any thread."""
        self._closed = True
        if self._computing.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._computing.release()
        else:
            self._line.wake(self, self._stop)

    def _end(self) -> None:
        self._over = True
        self._pieces.close()
        self.finish = self._run.finish or "cancelled"
        self._line.leave(self)


class OneByOne:
    """Answers requests one after another, in the order in which they came, with one session."""

    def __init__(self, session: Session, *, most_waiting: int = 64) -> None:
        """It closes the session when it is closed."""
        self._session, self._line = session, Line(most_waiting)
        self.config, self.tokenizer = session.config, session.tokenizer
        self.template, self.n_context = session.template, session.target.n_context
        self.n_vocab = session.target.n_vocab
        session.prompt(TURNS)  # a template that cannot write this gives way to another, now
        self.template.settled = True  # and not because of what some request says

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """As Session.prompt."""
        return self._session.prompt(messages, more)

    def encode(self, text: str) -> list[int]:
        """As Session.encode."""
        return self._session.encode(text)

    def with_options(self, options: Options) -> Config:
        """As Session.with_options."""
        return self._session.with_options(options)

    def begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun:
        """See Answering.begin."""
        params = self._session.params_for(ids, config, options)

        def start() -> tuple[Run, PieceStream]:
            return self._session.begin(ids, config, options, params)

        turn = Turn(self._line, start, self._session.turns.cancel)
        return Begun(turn, turn, lambda: self._session.pair.priced(turn.stats()))

    def close(self) -> None:
        """See Answering.close."""
        for turn in self._line.close():
            if isinstance(turn, Turn):
                turn.close()
        self._session.close()


def iter_nothing() -> PieceStream:
    """In the place of pieces that have not begun."""
    yield from ()
