"""A conversation under way: its session, where answers go, what each took; Ctrl-C stops one."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from edgespec.cli.output import show_progress
from edgespec.cli.run import on_interrupt, say
from edgespec.cli.terminal.charts import IN_ASCII, answer_line
from edgespec.cli.terminal.fold import Fold
from edgespec.cli.terminal.line import unseen
from edgespec.cli.terminal.plain import Printer
from edgespec.cli.tty import PICTURES, can_write, is_screen, width_of
from edgespec.config import Config
from edgespec.errors import Cancelled, UsageError
from edgespec.session.conversation import Conversation
from edgespec.session.session import Session
from edgespec.types import Piece, Stats

NO_MODEL = "no model is open: /model NAME opens one"
CONTEXT_FULL = "the context is full (-c makes it larger)"


class Leave(Exception):
    """The conversation is over."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Talk:
    """What commands act on.

    answers: the counts of each answer so far. interrupted: whether the last thing the reader did
    was a Ctrl-C, so that another one leaves. is_open: whether there is a model; there is none if
    another one and then the old one could not be opened. placed: what the reader was last told of
    what runs where. thought: what the model said to itself before the last answer. n_rounds: of all
    answers of this session.
    """

    def __init__(self, session: Session, printer: Printer, *, debug: bool = False) -> None:
        self.session, self.printer, self.debug = session, printer, debug
        self.is_open = True
        self.conversation = Conversation(
            session, system=session.config.system, on_left_out=say_left_out
        )
        self.answers: list[Stats] = []
        self.interrupted = False
        self.placed = self.thought = ""
        self.n_rounds = self._n_stops = 0

    def answer(self, pieces: Iterator[Piece]) -> None:
        """Stream an answer, then a line about it; Ctrl-C stops it, twice leaves.

        Raises: Leave, and what the session raises but for Cancelled.
        """
        self._n_stops, has_begun, fold = 0, False, Fold()
        self.printer.begin()
        try:
            with unseen():
                for piece in fold.answer(pieces):
                    if not has_begun and fold.n_words:
                        note(f"[{fold.n_words} words of thought: /think shows them]")
                    has_begun = True
                    self.printer.piece(piece.text, drafted=piece.from_draft)
        except (Cancelled, KeyboardInterrupt):
            if self._n_stops > 1:
                raise Leave(130) from None
            self.interrupted = True
        finally:
            show_progress.clear()
            self.printer.end()
            self.thought = fold.text
        if self.interrupted:
            note("[stopped: Ctrl-C again leaves]")
        if has_begun or not self.interrupted:  # else the counts may be the last answer's
            self.answers.append(self.session.stats)
            self.n_rounds += self.answers[-1].n_rounds
            nothing = "thoughts alone, forgotten" if fold.n_words else "an empty answer, forgotten"
            note(self._about("" if has_begun else nothing) + "\n")

    def reopen(self, config: Config) -> None:
        """Go on with the models that `config` names; the old ones come back if that fails.

        The old ones are closed first: two large models need not fit. Raises: EdgeSpecError.
        """
        old = self.session.config
        self.session.close()
        self.is_open, self.n_rounds = False, 0
        try:
            self.session = Session(config, progress=show_progress)
            self.is_open = True
        except BaseException:
            self.session = Session(old, progress=show_progress)
            self.is_open = True
            raise
        finally:
            show_progress.clear()
            self.conversation.session = self.session

    def check_open(self) -> None:
        """Raises: UsageError if there is no model, whose library must not be asked then."""
        if not self.is_open:
            raise UsageError(NO_MODEL)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C asks the answer in progress to stop; anything else it breaks off."""

        def stop() -> None:
            self._n_stops += 1
            if self._n_stops > 1 or not self.session.turns.running:
                raise KeyboardInterrupt
            self.session.cancel()

        with on_interrupt(stop):
            yield

    def draw(self, chart: Callable[[Sequence[Stats], int], str]) -> None:
        """A chart of the answers so far, as wide as the terminal."""
        tell(chart(self.answers, width_of(sys.stderr) - 1))

    def _about(self, cut: str) -> str:
        """The line below an answer; cut: why there is no more of it, if that is known."""
        cut = cut or {
            "length": f"cut at {self.session.config.max_tokens} tokens",
            "context": CONTEXT_FULL,
        }.get(self.session.turns.finish, "")
        where, self.placed = self.placed, self.session.where()
        where = "" if where == self.placed else self.placed
        return answer_line(self.answers[-1], self.n_rounds, where=where, cut=cut)


def say_left_out(n: int) -> None:
    """The notice that old messages have left the model's sight."""
    note(f"[the context is full: the model no longer sees the first {n} messages; -c enlarges it]")


def note(text: str) -> None:
    """Quiet words for the reader."""
    tell(text, quiet=True)


def tell(text: str, *, indent: int = 2, quiet: bool = False) -> None:
    """Words for the reader, on stderr; on a terminal broken at words, `indent` from row 2 on.

    What comes from files is in them too: control characters are shown as their pictures.
    """
    text = text.translate(PICTURES)
    if sys.stderr.isatty():
        width = max(width_of(sys.stderr) - 1, 20)
        broken = partial(
            textwrap.fill, width=width, subsequent_indent=" " * min(indent, width // 2),
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        text = "\n".join(broken(line) if len(line) > width else line for line in text.split("\n"))
    if not can_write(sys.stderr, text):
        text = text.translate(IN_ASCII).encode("ascii", "replace").decode()
    say(f"\x1b[2m{text}\x1b[0m" if quiet and is_screen(sys.stderr) else text)
