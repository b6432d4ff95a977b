"""Answers requests one after another by an ordinary session: where a target reads one text only."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgespec.config import Config
from edgespec.errors import BusyError, Cancelled, UsageError
from edgespec.option import Options
from edgespec.protocols import Tokenizer
from edgespec.session.completion import Begun
from edgespec.session.many.door import CLOSED, Door
from edgespec.session.many.outbox import Outbox, Reading
from edgespec.session.many.rounds import STOPPED, Load, in_a_line
from edgespec.session.prompt import Prompt
from edgespec.session.session import Session
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import Piece, SamplingParams, Stats


@dataclass(eq=False)
class Errand:
    """One request: what it has, and of whom its counts are once it has begun.

    Implements completion.Result.
    """

    ids: Sequence[int]
    config: Config
    options: Options
    params: SamplingParams
    pieces: Outbox[Piece] = field(default_factory=Outbox)
    begun: Begun | None = None

    @property
    def finish(self) -> str:
        """See turns.Run."""
        return "cancelled" if self.begun is None else self.begun.result.finish

    @property
    def output(self) -> list[int]:
        """See turns.Run."""
        return [] if self.begun is None else self.begun.result.output

    def counted(self) -> Stats:
        """Its counts so far."""
        return Stats() if self.begun is None else self.begun.counted()


class Solo:
    """Implements many.Answers by a session, which it closes. Others who use it may find it busy."""

    n_slots = 1

    def __init__(self, session: Session, *, n_queue: int) -> None:
        self.session, self._n_queue = session, n_queue
        self.config, self.path = session.config, Path(session.pair.path)
        self._waiting: deque[Errand] = deque()
        self._current: Errand | None = None
        self._more, self._closed, self._door = threading.Condition(), False, Door()
        self._thread = threading.Thread(target=self._run, name="edgespec-solo", daemon=True)
        self._thread.start()

    @property
    def template(self) -> ChatTemplate:
        """See Session.template."""
        return self.session.template

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's."""
        return self.session.tokenizer

    @property
    def n_context(self) -> int:
        """Tokens of a prompt and its answer."""
        return self.session.target.n_context

    @property
    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self.session.target.n_vocab

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """See Speech.prompt."""
        with self._door.inside():
            return self.session.prompt(messages, more)

    def encode(self, text: str) -> list[int]:
        """See Speech.encode."""
        with self._door.inside():
            return self.session.encode(text)

    def with_options(self, options: Options, stop: Sequence[str] = ()) -> Config:
        """See Many.with_options."""
        return self.session.with_options(options, stop)

    def begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun:
        """See Many.begin."""
        with self._door.inside():
            params = self.session.params_for(ids, config, options)
        errand = Errand(ids, config, options, params)
        with self._more:
            if self._closed:
                raise UsageError(CLOSED)
            n_idle = int(self._current is None)
            if len(self._waiting) >= n_idle + self._n_queue:
                raise BusyError(
                    f"{len(self._waiting) + 1 - n_idle} requests wait or are answered: expected at "
                    f"most {self._n_queue} that wait; ask again later"
                )
            self._waiting.append(errand)
            self._more.notify()

        def left() -> None:
            errand.pieces.leave()
            with self._more:
                # Its prompt may be read for minutes before there is a piece.
                if errand is self._current and not errand.pieces.has_ended:
                    self.session.cancel()
                elif errand in self._waiting:  # who waited makes room
                    self._waiting.remove(errand)
                    errand.pieces.end(Cancelled(STOPPED))

        return Begun(Reading(errand.pieces.all(), left), errand, errand.counted)

    def load(self) -> Load:
        """How busy it is."""
        return Load(1, int(self._current is not None), len(self._waiting))

    def close(self) -> None:
        """End all generations and free the models; closing twice is no error."""
        if not self._door.close():
            return
        with self._more:
            self._closed = True
            self._more.notify()
        while self._thread.is_alive():
            self.session.cancel()
            self._thread.join(0.05)
        self.session.close()

    def __enter__(self) -> Solo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while (errand := self._next()) is not None:
            error: BaseException | None = None
            try:
                for piece in self._said(errand):
                    errand.pieces.put(piece)
            except BaseException as failed:  # nobody may wait for ever
                error = in_a_line(failed)
            errand.pieces.end(error)
            self._current = None
        with self._more:
            for errand in self._waiting:
                errand.pieces.end(Cancelled(STOPPED))

    def _next(self) -> Errand | None:
        """The next to answer, None once it is closed."""
        with self._more:
            while not (self._closed or self._waiting):
                self._more.wait()
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _said(self, errand: Errand) -> Generator[Piece, None, None]:
        """Its pieces, as long as somebody reads them."""
        if errand.pieces.has_left:
            return
        session = self.session
        run, pieces = session.begin(errand.ids, errand.config, errand.options, errand.params)
        errand.begun = Begun(pieces, run, lambda: session.pair.priced(run.so_far()))
        if errand.pieces.has_left:  # just before there was a generation to cancel
            session.cancel()
        yield from pieces
