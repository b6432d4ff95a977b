"""Runs chat templates, programs of strangers, in a sandbox: `bounded` says what it allows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any, NoReturn

from edgespec.errors import TokenizerError

Render = Callable[..., str]
MOST_SOURCE = 1 << 16  # letters; Jinja takes 2 s to compile as many


class Refused(TokenizerError):
    """A template that refuses a conversation on purpose."""


def compiled(source: str, whose: str) -> Render:
    """A template as a function of keyword arguments, set up as Hugging Face chat templates expect.

    Blocks are trimmed, loops know break and continue, and the functions raise_exception(text)
    and strftime_now(format) exist. Raises: TokenizerError, here and when it runs.
    """
    environment, lock = sandbox(), Lock()
    environment.globals["raise_exception"] = partial(refuse, whose)
    try:
        if len(source) > MOST_SOURCE:
            raise OverflowError(f"it has {len(source):,} letters")
        template = environment.from_string(source)
    except Exception as error:  # nested deep enough, it exhausts the parser itself
        raise TokenizerError(f"{whose} does not parse: {detail(error)}") from error

    def render(**names: Any) -> str:
        try:
            with lock:
                environment.begin(names)
                return str(template.render(**names))
        except Refused:
            raise
        except Exception as error:  # a template can fail in any way a program can
            raise TokenizerError(f"{whose} failed: {detail(error)}") from error

    return render


def sandbox() -> Any:
    """The Jinja environment that templates of Hugging Face are written for."""
    from jinja2.ext import Extension

    from edgespec.text.bounded import Bounded

    class Generation(Extension):
        """{% generation %} marks answers for training; here it only groups."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = Bounded(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
    return environment


def refuse(whose: str, text: str) -> NoReturn:
    """What a template calls to refuse a conversation."""
    raise Refused(f"{whose} refuses this conversation: {in_a_line(text)}")


def detail(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {in_a_line(str(error)) or 'no reason given'}"


def in_a_line(text: str) -> str:
    """What a template says may be long, and in lines."""
    return " ".join(text.split())[:200]
