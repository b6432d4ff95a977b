"""What one option is, and how the text of its value is read.

A reader takes a text and gives a value or raises ArgumentTypeError, which argparse shows. Which
options there are is config.py's business.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Option:
    """How one field is written: its flags, how its text is read, what `--help` says.

    only: the command that has the flag, "" for all. rare: shown by --help-all only. per_call: one
    answer may have a value of its own.
    """

    flags: tuple[str, ...]
    read: Callable[[str], Any]
    metavar: str
    text: str
    only: str = ""
    rare: bool = False
    per_call: bool = False


def option(
    default: Any,
    flags: str,
    read: Callable[[str], Any],
    metavar: str,
    text: str,
    *,
    only: str = "",
    rare: bool = False,
    per_call: bool = False,
) -> Any:
    """A dataclass field that is a command-line option."""
    made = Option(tuple(flags.split()), read, metavar, text, only, rare, per_call)
    return field(default=default, metadata={"option": made})


per_call = partial(option, per_call=True)


def whole(text: str) -> int:
    """A count. Raises: ArgumentTypeError."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ArgumentTypeError(f"{text!r}: expected a whole number, 0 or more")
    return number


def real(text: str) -> float:
    """A finite number. Raises: ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ArgumentTypeError(f"{text!r}: expected a number")
    return number


def whole_or_auto(text: str) -> int | str:
    """A count or "auto". Raises: ArgumentTypeError."""
    if text == "auto":
        return text
    try:
        return whole(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{text!r}: expected a number of tokens, or auto") from None


def one_of(*choices: str) -> Callable[[str], str]:
    """A reader that takes the given words only."""

    def read(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(f"{text!r}: expected one of {', '.join(choices)}")
        return text

    return read


def switch(text: str) -> bool:
    """Yes or no. Raises: ArgumentTypeError."""
    found = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
    if text.lower() not in found:
        raise ArgumentTypeError(f"{text!r}: expected true or false")
    return found[text.lower()]
