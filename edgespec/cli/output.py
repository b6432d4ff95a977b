"""Records for scripts (the --json flag) and progress for the reader."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from edgespec.errors import UsageError


def add_json(parser: ArgumentParser) -> None:
    """The --json flag."""
    parser.add_argument("--json", metavar="FILE", help="write a record; - for stdout, and no more")


def json_line(data: Mapping[str, Any]) -> str:
    """The record as one line."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def write_json(data: Mapping[str, Any], file: str) -> None:
    """Write one line of JSON to `file`, - for stdout. Raises: UsageError."""
    if file == "-":
        print(json_line(data))
        return
    try:
        with open(file, "w", encoding="utf-8") as out:
            out.write(json_line(data) + "\n")
    except OSError as error:
        raise UsageError(f"--json {file}: {error.strerror}: expected a file to write") from error


def card_line(card: Mapping[str, Any]) -> str:
    """The device card in a line."""
    return (
        f"{card['cpu']}, {card['n_cores']} cores ({' '.join(card['isa'])}), "
        f"{card['memory_bytes'] / 2**30:.1f} GiB, {card['os']}, Python {card['python']}"
    )


def show_progress(what: str, share: float) -> None:
    """One line on stderr that is overwritten, on a terminal; on a log only its end."""
    if sys.stderr.isatty():
        end = "\n" if share >= 1 else ""
        print(f"\r{what} {share:4.0%}", end=end, file=sys.stderr, flush=True)
    elif share >= 1:
        print(what, file=sys.stderr)
