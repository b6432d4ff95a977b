"""The command line: `edgespec COMMAND`. Finds the command's module by name and imports only that.

A command module has ABOUT, USAGE, EXAMPLE, DEFAULTS (a Config, or None if it opens no models),
add_arguments(parser), and run(args, config) or, without a Config, run(args) -> exit code; perhaps
RARE, its flags that only --help-all shows. Errors end here, in one line.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from edgespec.errors import EdgeSpecError, UsageError, is_own, not_installed

COMMANDS = {
    "chat": "talk with a model, or answer one question",
    "generate": "continue one prompt or a file of prompts",
    "bench": "measure plain and speculative decoding on this device",
    "verify": "check on this device that speculation does not change the output",
    "tune": "find how a pair of models runs fastest here, and name it",
    "serve": "answer programs over HTTP as OpenAI does, and people on a page",
    "devices": "list where models can run",
    "doctor": "judge a pair of models before you use it",
    "models": "list, fetch and remove models and known pairs",
    "adapt": "show, erase or teach what drafting across vocabularies has learned",
    "export": "make model files from model files",
}
EXAMPLE = """edgespec chat -p "Tell me a story about a little fox."

Without -m all of them use the small demo pair that comes with EdgeSpec."""


MODEL = re.compile(r"[^-\s]\S*\.(gguf|onnx)\b")  # what looks like a file of one


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        stray = message.removeprefix("unrecognized arguments: ")
        is_model = stray != message and bool(MODEL.match(stray))
        if is_model and "-m" in self._option_string_actions:
            message += ": a model is given with -m"
        raise UsageError(f"{message}: see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader left; what Python flushes at exit must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(error_line(error), file=sys.stderr)
        known = explained(error)
        return 1 if known is None else known.exit_code


def error_line(error: Exception) -> str:
    """What went wrong, whatever it was, in one line."""
    fault = f"{type(error).__name__}: {error}: this is a fault in EdgeSpec, --debug shows where"
    return "edgespec: " + " ".join(str(explained(error) or fault).split())


def explained(error: Exception) -> EdgeSpecError | None:
    """The error as one that says what to do, None for a fault."""
    if isinstance(error, ModuleNotFoundError) and not is_own(error):
        return not_installed(error)
    return error if isinstance(error, EdgeSpecError) else None


def dispatch(words: list[str]) -> int:
    """Import the module that the first word names and run it. Raises: UsageError, and its own."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(choices("COMMAND", COMMANDS, EXAMPLE), end="")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from edgespec.device import version

        print(f"edgespec {version()}")
        return 0
    if words[0] not in COMMANDS:
        raise UsageError(f"no command {words[0]!r}: expected one of {', '.join(COMMANDS)}")
    name, command = words[0], import_module(f"edgespec.cli.{words[0]}")
    rest = words[1:]
    if name == "export":
        if not rest or rest[0] in ("-h", "--help"):
            print(choices(f"{name} ARTEFACT", command.ARTEFACTS, command.EXAMPLE), end="")
            return 0 if rest else 2
        if rest[0] not in command.ARTEFACTS:
            known = ", ".join(command.ARTEFACTS)
            raise UsageError(f"no export is called {rest[0]!r}: expected one of {known}")
        command = import_module(f"edgespec.cli.export_{rest[0]}")
        name, rest = f"{name} {rest[0]}", rest[1:]
    every = "--help-all" in rest
    args = parser_of(name, command, every).parse_args(["--help"] if every else rest)
    start_log(args.verbose)
    from edgespec.cli.output import show_progress

    try:
        if command.DEFAULTS is None:
            return int(command.run(args))
        from edgespec.config import layers
        from edgespec.store import tuned

        path = Path(args.config) if args.config else None
        config = tuned.applied(layers(args, path=path), command.DEFAULTS)
        return int(command.run(args, config))
    finally:
        show_progress.clear()  # what it stopped in must not share a row with the error


def choices(words: str, known: Mapping[str, str], example: str) -> str:
    """What can stand in place of the last of `words`, each with a line about it."""
    lines = "\n".join(f"  {name:<10}{text}" for name, text in known.items())
    usage = f"usage: edgespec {words} [options]      (edgespec {words} --help)"
    return f"{usage}\n\n{lines}\n\nexample: {example}\n"


def parser_of(name: str, command: Any, every: bool) -> Parser:
    """A command's parser: its own options, the pair and sampling options, the common ones.

    every: its help has the rare options too.
    """
    parser = Parser(
        prog=f"edgespec {name}",
        usage=f"edgespec {name} {command.USAGE}",
        description=command.ABOUT,
        epilog=f"example: {command.EXAMPLE}",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=100),
    )
    command.add_arguments(parser)
    for flag in () if every else getattr(command, "RARE", ()):
        parser._option_string_actions[flag].help = argparse.SUPPRESS
    parser.add_argument("-v", "--verbose", action="store_true", help="log to stderr what is done")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    if command.DEFAULTS is not None:
        from edgespec.config import add_flags

        parser.add_argument("--config", metavar="FILE", help="settings (TOML), not the usual ones")
        parser.add_argument("--help-all", action="store_true", help="show the rare options too")
        add_flags(parser, name, every=every)
    return parser


def start_log(verbose: bool) -> None:
    """Warnings to stderr, with `verbose` everything."""
    import logging

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="edgespec: %(message)s"
    )
