"""What a terminal is, how wide it is, what it shows of a text. Knows nothing of what is written."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import TextIO

# What a model or a file says must not steer the terminal: controls are shown as their pictures.
PICTURES = {n: chr(0x2400 + n) for n in range(32) if chr(n) not in "\t\n"}
PICTURES |= dict.fromkeys(range(0x80, 0xA0), "\ufffd") | {0x7F: "\u2421", 0x0D: ""}


def is_screen(file: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether it is a terminal on which the cursor can be moved."""
    term = (os.environ if environ is None else environ).get("TERM", "")
    dumb = term in ("dumb", "unknown") or (not term and sys.platform != "win32")
    return file.isatty() and not dumb


def can_write(file: TextIO, text: str) -> bool:
    """Whether the file's encoding has these characters."""
    try:
        text.encode(getattr(file, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def width_of(file: TextIO) -> int:
    """Columns of the terminal now, 80 if it does not say."""
    try:
        return os.get_terminal_size(file.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def rows_of(file: TextIO) -> int:
    """Rows of the terminal now, 24 if it does not say."""
    try:
        return os.get_terminal_size(file.fileno()).lines or 24
    except (OSError, ValueError):
        return 24


def cells(text: str) -> int:
    """Columns that the text takes: Chinese and emoji take two, marks on letters none."""
    return sum(_cells(char) for char in text)


def shortened(text: str, n: int) -> str:
    """As much of the text's beginning as fits n columns."""
    taken = 0
    for at, char in enumerate(text):
        taken += _cells(char)
        if taken > n:
            return text[:at]
    return text


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
