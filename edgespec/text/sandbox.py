"""Runs chat templates, programs of strangers, in Jinja's immutable sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from edgespec.errors import TokenizerError

Render = Callable[..., str]


class Refused(TokenizerError):
    """A template that refuses a conversation on purpose."""


def compiled(source: str, whose: str) -> Render:
    """A template as a function of keyword arguments, set up as Hugging Face chat templates expect.

    Blocks are trimmed, loops know break and continue, and the functions raise_exception(text)
    and strftime_now(format) exist. Raises: TokenizerError, here and when it runs.
    """
    environment = sandbox()
    environment.globals["raise_exception"] = partial(refuse, whose)
    try:
        template = environment.from_string(source)
    except Exception as error:  # nested deep enough, it exhausts the parser itself
        raise TokenizerError(f"{whose} does not parse: {detail(error)}") from error

    def render(**names: Any) -> str:
        try:
            return str(template.render(**names))
        except Refused:
            raise
        except Exception as error:  # a template can fail in any way a program can
            raise TokenizerError(f"{whose} failed: {detail(error)}") from error

    return render


def sandbox() -> Any:
    """The Jinja environment that templates of Hugging Face are written for."""
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks answers for training; here it only groups."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = to_json
    environment.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
    return environment


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where Jinja's own filter would escape it for a web page."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def refuse(whose: str, text: str) -> NoReturn:
    """What a template calls to refuse a conversation."""
    raise Refused(f"{whose} refuses this conversation: {in_a_line(text)}")


def detail(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {in_a_line(str(error)) or 'no reason given'}"


def in_a_line(text: str) -> str:
    """What a template says may be long, and in lines."""
    return " ".join(text.split())[:200]
