"""`edgespec chat`: one answer with -p, -f or from a pipe, otherwise a conversation in the terminal.

Answers go to stdout, all else to stderr. On a terminal they are drawn (cli/terminal), anywhere else
written as they are.
"""

from __future__ import annotations

import os
import stat
import sys
from argparse import ArgumentParser, Namespace
from io import TextIOWrapper

from edgespec.check.record import run_row
from edgespec.cli.output import add_json, show_progress, write_json
from edgespec.cli.run import ENDS, opened, say, session_record, stats_line
from edgespec.cli.terminal.fold import Fold
from edgespec.cli.terminal.line import unseen
from edgespec.cli.terminal.plain import Printer, Silent, printer_of
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import text_of
from edgespec.session.conversation import Conversation
from edgespec.session.session import Session

ABOUT = "Talk with a model. Ctrl-C stops an answer, Ctrl-D or /exit leaves."
USAGE = "[-p TEXT] [-f FILE] [options]"
EXAMPLE = 'edgespec chat -p "Tell me a story about a little fox."'
DEFAULTS = Config()


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="answer this and leave")
    parser.add_argument("-f", "--file", metavar="FILE", help="... this file, below -p's text")
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Answer once, or talk until the reader leaves."""
    question = question_of(args)
    if question is not None:
        return once(question, config, args.json)
    if args.json:
        raise UsageError("--json in a conversation: expected one question: give it with -p")
    return talk(config, args.debug)


def question_of(args: Namespace) -> str | None:
    """What -p, -f and a pipe ask, one below the other; None if they ask nothing: a conversation.

    Raises: UsageError.
    """
    parts = [] if args.prompt is None else [args.prompt]
    if args.file is not None:
        parts.append(text_of(args.file, "-f"))
    if not parts and sys.stdin is not None and sys.stdin.isatty():
        return None
    if not parts or is_piped():
        parts.append(piped(waiting=bool(parts)))
    text = "\n\n".join(part.strip() for part in parts if part.strip())
    if not text:
        raise UsageError(
            "the question is empty: expected a text with -p, in -f's file or on standard input"
        )
    return text


def is_piped() -> bool:
    """Whether standard input is a pipe or a file, and not what a script happens to run with."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def piped(*, waiting: bool) -> str:
    """All of standard input; waiting: say so if it does not end. Raises: UsageError."""
    if sys.stdin is None:
        return ""
    if waiting:
        show_progress("reading standard input to its end", 0.0)
    try:
        if isinstance(sys.stdin, TextIOWrapper):  # whatever the locale, and however strict it is
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 at byte {error.start}: expected a text"
        ) from error
    finally:
        show_progress.clear()


def once(question: str, config: Config, json_file: str | None) -> int:
    """Answer one question on stdout; its counts go to stderr and, as a record, to `json_file`."""
    quiet = json_file == "-"
    printer = Silent() if quiet else printer_of(sys.stdout, config.color)
    with opened(config) as session:
        answer(session, question, printer)
        say(stats_line(session.stats))
        if ENDS.get(session.turns.finish):
            say(ENDS[session.turns.finish])
        if json_file:
            row = run_row(session.method.name, session.stats, [session.turns.output])
            write_json(session_record(session, [row]), json_file)
    return 0


def answer(session: Session, question: str, printer: Printer) -> None:
    """Stream the answer to one question."""
    printer.begin()
    try:
        with unseen():
            pieces = Conversation(session, system=session.config.system).ask(question)
            for piece in Fold().answer(pieces):
                printer.piece(piece.text, drafted=piece.from_draft)
    finally:
        show_progress.clear()
        printer.end()


def talk(config: Config, debug: bool) -> int:
    """The conversation in the terminal."""
    from edgespec.cli.terminal.loop import converse

    session = Session(config, progress=show_progress)
    show_progress.clear()
    return converse(session, printer_of(sys.stdout, config.color), debug=debug)
