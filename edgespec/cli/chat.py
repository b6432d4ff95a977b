"""`edgespec chat`: one answer with -p or from a pipe, otherwise a conversation in the terminal."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from edgespec.cli.output import add_json, write_json
from edgespec.cli.run import ENDS, opened, say, session_record, stats_line
from edgespec.config import Config
from edgespec.errors import Cancelled, EdgeSpecError, UsageError
from edgespec.measure import run_row
from edgespec.session import Session

ABOUT = "Talk with a model. Ctrl-C stops an answer, Ctrl-D or /exit leaves."
USAGE = "[-p TEXT] [options]"
EXAMPLE = 'edgespec chat -p "Tell me a story about a little fox."'
DEFAULTS = Config()
HELP = """/help    this list
/clear   forget the conversation      (/new)
/regen   answer the last question again
/stats   the last answer's counts
/exit    leave                        (/bye, /quit, Ctrl-D)"""

Conversation = list[dict[str, str]]


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="answer this and leave")
    parser.add_argument("-sys", "--system", metavar="TEXT", help="what the model should be")
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Answer once, or talk until the reader leaves."""
    start: Conversation = []
    if args.system is not None:
        start.append({"role": "system", "content": args.system})
    if args.prompt is None and sys.stdin.isatty():
        if args.json:
            raise UsageError("--json in a conversation: expected one question: give it with -p")
        with opened(config) as session:
            return talk(session, start)
    question = sys.stdin.read().strip() if args.prompt is None else args.prompt
    if not question:
        raise UsageError("the question is empty: expected a text with -p or on standard input")
    with opened(config) as session:
        messages = [*start, {"role": "user", "content": question}]
        answer(session, messages, [], quiet=args.json == "-")
        if args.json:
            row = run_row(session.method.name, session.stats, [session.output])
            write_json(session_record(session, [row]), args.json)
    return 0


def answer(
    session: Session, messages: Conversation, said: list[str], *, quiet: bool = False
) -> None:
    """Stream one answer to stdout and into `said`, and its stats to stderr."""
    try:
        for piece in session.chat(messages):
            said.append(piece.text)
            if not quiet:
                print(piece.text, end="", flush=True)
    finally:
        if not quiet and said:
            print(flush=True)
    say(stats_line(session.stats))
    if ENDS.get(session.finish):
        say(ENDS[session.finish])


def talk(session: Session, start: Conversation) -> int:
    """The interactive loop."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    ask: Callable[[str], str] = PromptSession[str](history=InMemoryHistory()).prompt
    messages = list(start)
    say(f"{session.target.info().path} - /help lists commands, Ctrl-D leaves")
    while True:
        try:
            line = ask("> ").strip()
        except EOFError:
            return 0
        except KeyboardInterrupt:  # at the prompt: forget the line
            continue
        if line in ("/exit", "/bye", "/quit"):
            return 0
        if line.startswith("/"):
            if not command(line, session, messages, start):
                continue
        elif line:
            messages.append({"role": "user", "content": line})
        else:
            continue
        take_turn(session, messages)


def take_turn(session: Session, messages: Conversation) -> None:
    """Answer the last question and remember what was said; without a word the turn is forgotten."""
    said: list[str] = []
    try:
        answer(session, messages, said)
    except (Cancelled, KeyboardInterrupt):
        say("[stopped]")
    except EdgeSpecError as error:
        say(f"edgespec: {error}")
    if said:
        messages.append({"role": "assistant", "content": "".join(said)})
    else:
        messages.pop()


def command(line: str, session: Session, messages: Conversation, start: Conversation) -> bool:
    """Obey a line that begins with "/"; whether the last question is to be answered (again)."""
    if line in ("/clear", "/new"):
        messages[:] = start
        say("[the conversation is empty]")
    elif line == "/stats":
        say(stats_line(session.stats))
    elif line == "/regen":
        if messages and messages[-1]["role"] == "assistant":
            messages.pop()
            return True
        say("[there is no answer yet]")
    else:
        say(HELP if line in ("/help", "/?") else f"no command {line}: /help lists them")
    return False
