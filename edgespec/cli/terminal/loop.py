"""The loop of a conversation: read a message, answer it or obey it, until the reader leaves."""

from __future__ import annotations

import traceback
from pathlib import Path

from edgespec.cli import error_line
from edgespec.cli.output import show_progress
from edgespec.cli.terminal.commands import complete, obey
from edgespec.cli.terminal.line import Lines, lines_of
from edgespec.cli.terminal.plain import Printer
from edgespec.cli.terminal.talk import NO_MODEL, Leave, Talk, note, tell
from edgespec.config import state_folder
from edgespec.session.session import Session


def converse(session: Session, printer: Printer, *, debug: bool = False) -> int:
    """Talk until the reader leaves; the exit code. The session may be another one afterwards.

    debug: errors are shown with their trace.
    """
    talk = Talk(session, printer, debug=debug)
    history = state_folder() / "history" if session.config.history else None
    lines = lines_of(complete, history)
    talk.placed = session.where()
    tell(f"{Path(session.target.info().path).name}: {talk.placed}")
    note("/help lists commands, Ctrl-D leaves\n")
    try:
        with talk.interruptible():
            while True:
                take_turn(talk, lines)
    except Leave as leave:
        return leave.code
    finally:
        talk.session.close()


def take_turn(talk: Talk, lines: Lines) -> None:
    """One message and what comes of it; whatever goes wrong is said in a line.

    Raises: Leave.
    """
    try:
        line = lines.read()
    except EOFError:
        raise Leave(0) from None
    except KeyboardInterrupt:
        if talk.interrupted and lines.is_empty:
            raise Leave(130) from None
        talk.interrupted = True
        note("[Ctrl-C again leaves]")
        return
    talk.interrupted = False
    if not line.strip():
        return
    was_open = talk.is_open
    try:
        act(talk, line)
    except (Leave, BrokenPipeError):
        raise
    except Exception as error:  # a fault must not cost the reader the conversation
        if talk.debug:
            traceback.print_exc()
        tell(error_line(error))
    except KeyboardInterrupt:  # while a model was opened, say
        talk.interrupted = True
        note("[stopped: Ctrl-C again leaves]")
    if was_open and not talk.is_open:
        note(f"[{NO_MODEL}]")


def act(talk: Talk, line: str) -> None:
    """Answer a message or obey it; what was in progress and ended early shows no longer."""
    try:
        if line.startswith("/"):
            pieces = obey(talk, line)
        else:
            talk.check_open()
            pieces = talk.conversation.ask(line)
        if pieces is not None:
            talk.answer(pieces)
    finally:
        show_progress.clear()
