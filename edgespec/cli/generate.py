"""`edgespec generate`: answers or continues one prompt, or every prompt of a file."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from edgespec.check.record import run_row, total
from edgespec.cli.output import add_json, write_json
from edgespec.cli.prompts import Prompt, asked, read_prompts
from edgespec.cli.run import ENDS, opened, say, session_record, stats_line
from edgespec.cli.terminal.fold import Fold
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.session.session import Session
from edgespec.text.template import Message
from edgespec.types import Piece, Stats

ABOUT = "Answer a prompt, or every prompt of a file (then one JSON line per prompt on stdout)."
USAGE = "(-p TEXT | --prompts FILE) [--raw] [options]"
EXAMPLE = 'edgespec generate --raw -n 64 -p "Once upon a time"'
DEFAULTS = Config()


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt")
    source.add_argument("--prompts", metavar="FILE", help="JSON lines: prompt, messages or turns")
    parser.add_argument("--raw", action="store_true", help="continue the text, no chat template")
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Generate for each prompt; a record of all of them with --json."""
    prompts = read_prompts(Path(args.prompts)) if args.prompts else [asked(args.prompt)]
    if args.raw:
        check_raw(prompts)
    quiet, stats, outputs = args.json == "-", list[Stats](), list[list[int]]()
    with opened(config) as session:
        for number, prompt in enumerate(prompts, 1):
            texts = []
            for pieces in turns(session, prompt, args.raw):
                texts.append(shown(pieces, streamed=args.prompt is not None and not quiet))
                stats.append(session.stats)
                outputs.append(session.turns.output)
                if ENDS.get(session.turns.finish):
                    say(ENDS[session.turns.finish])
            if args.prompt is None and not quiet:
                print(json.dumps({"prompt": number, "texts": texts}, ensure_ascii=False))
        say(stats_line(total(stats)))
        if args.json:
            row = run_row(session.method.name, total(stats), outputs)
            write_json(session_record(session, [row]), args.json)
    return 0


def turns(session: Session, prompt: Prompt, raw: bool) -> Iterator[Iterator[Piece]]:
    """The pieces of each answer of a conversation; the next turn reads what the last one said."""
    if raw:
        yield session.generate(prompt.raw())
        return
    messages: list[Message] = list(prompt.messages)
    for later in (*prompt.later, None):
        said: list[str] = []
        yield heard(session.chat(messages), said)
        if later is not None:
            messages.append({"role": "assistant", "content": "".join(said)})
            messages.append({"role": "user", "content": later})


def heard(pieces: Iterator[Piece], said: list[str]) -> Iterator[Piece]:
    """The pieces; the text of those that are no thoughts goes to `said`, too."""
    for piece in pieces:
        said += [] if piece.is_thought else [piece.text]
        yield piece


def shown(pieces: Iterator[Piece], *, streamed: bool) -> str:
    """The whole text, written to stdout as it comes if `streamed`."""
    text, fold = "", Fold()
    for piece in fold.answer(pieces):
        text += piece.text
        if streamed:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    if streamed:
        print(flush=True)
    if fold.n_words and not text.strip():
        say("thoughts alone: raise -n for an answer after them, or try --think off")
    return text


def check_raw(prompts: list[Prompt]) -> None:
    """Raises: UsageError unless every prompt is a single text."""
    for number, prompt in enumerate(prompts, 1):
        try:
            prompt.raw()
        except UsageError as error:
            raise UsageError(f"prompt {number}: {error}") from None
