"""Records for scripts (the --json flag) and progress for the reader."""

from __future__ import annotations

import json
import shutil
import textwrap
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from edgespec.cli.progress import Bar
from edgespec.cli.tty import PICTURES
from edgespec.errors import UsageError
from edgespec.files import place, why, write_whole

MOST_COLUMNS = 100


def folded(line: str, indent: int) -> str:
    """A line folded to the terminal's width, its rest below column `indent`; no control in it."""
    return textwrap.fill(
        line.translate(PICTURES),
        max(40, min(shutil.get_terminal_size().columns, MOST_COLUMNS)),
        subsequent_indent=indent * " ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def add_json(parser: ArgumentParser) -> None:
    """The --json flag."""
    parser.add_argument("--json", metavar="FILE", help="write a record; - for stdout, and no more")


def json_line(data: Mapping[str, Any]) -> str:
    """The record as one line."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def write_json(data: Mapping[str, Any], file: str) -> None:
    """Write one line of JSON to `file`, whole or not at all; - for stdout. Raises: UsageError."""
    if file == "-":
        print(json_line(data))
        return
    path, line = place(file), f"{json_line(data)}\n".encode()
    try:
        if path.is_file() or not path.exists():
            write_whole(path, line, mode=0o666)
        else:
            path.write_bytes(line)  # a pipe or a device
    except UsageError as error:
        raise UsageError(f"--json {error}") from error
    except OSError as error:
        raise UsageError(f"--json {file}: {why(error)}: expected a file to write") from error


def card_line(card: Mapping[str, Any]) -> str:
    """The device card in a line."""
    return (
        f"{card['cpu']}, {card['n_cores']} cores ({' '.join(card['isa'])}), "
        f"{card['memory_bytes'] / 2**30:.1f} GiB, {card['os']}, Python {card['python']}"
    )


show_progress = Bar()  # there is one stderr; what fails or is stopped must `clear` it
