"""The command line: `edgespec COMMAND`. Finds the command's module by name and imports only that.

A command module has ABOUT, EXAMPLE, DEFAULTS (a Config, or None if it opens no models),
add_arguments(parser) and run(args, config) -> exit code. Errors end here, in one line.
"""

from __future__ import annotations

import argparse
import os
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
    "devices": "list where models can run",
    "models": "list known pairs, or show one",
    "adapt": "show, erase or teach what drafting across vocabularies has learned",
    "export": "make model files from model files",
}
EXAMPLE = """edgespec chat -p "Tell me a story about a little fox."

Without -m all of them use the small demo pair that comes with EdgeSpec."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
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
    except EdgeSpecError as error:
        return failed(str(error), error.exit_code, debug)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not is_own(error):
            missing = not_installed(error)
            return failed(str(missing), missing.exit_code, debug)
        text = f"{type(error).__name__}: {error}: this is a fault in EdgeSpec, --debug shows where"
        return failed(text, 1, debug)


def failed(message: str, code: int, debug: bool) -> int:
    """Say in one line on stderr what went wrong."""
    if debug:
        traceback.print_exc()
    print("edgespec: " + " ".join(message.split()), file=sys.stderr)
    return code


def dispatch(words: list[str]) -> int:
    """Import the module that the first word names and run it. Raises: UsageError, and its own."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(choices("COMMAND", COMMANDS, EXAMPLE), end="")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from edgespec.measure import version

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
    args = parser_of(name, command).parse_args(rest)
    start_log(args.verbose)
    if command.DEFAULTS is None:
        return int(command.run(args))
    from edgespec.config import resolve

    path = Path(args.config) if args.config else None
    return int(command.run(args, resolve(args, path=path, base=command.DEFAULTS)))


def choices(words: str, known: Mapping[str, str], example: str) -> str:
    """What can stand in place of the last of `words`, each with a line about it."""
    lines = "\n".join(f"  {name:<10}{text}" for name, text in known.items())
    usage = f"usage: edgespec {words} [options]      (edgespec {words} --help)"
    return f"{usage}\n\n{lines}\n\nexample: {example}\n"


def parser_of(name: str, command: Any) -> Parser:
    """A command's parser: its own options, the pair and sampling options, the common ones."""
    parser = Parser(
        prog=f"edgespec {name}",
        usage=f"edgespec {name} {command.USAGE}",
        description=command.ABOUT,
        epilog=f"example: {command.EXAMPLE}",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=100),
    )
    command.add_arguments(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log to stderr what is done")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    if command.DEFAULTS is not None:
        from edgespec.config import add_flags

        parser.add_argument("--config", metavar="FILE", help="settings (TOML), not the usual ones")
        add_flags(parser)
    return parser


def start_log(verbose: bool) -> None:
    """Warnings to stderr, with `verbose` everything."""
    import logging

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="edgespec: %(message)s"
    )
