"""What a session refuses, in the words of a request: its fields in place of flags and keywords."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgespec.config import options
from edgespec.errors import ContextError, TokenizerError, UsageError
from edgespec.server.refusal import Refusal, line

FLAGS = {  # "--top-p": "top_p"
    flag: one.name
    for one, option in options()
    if option.per_call
    for flag in option.flags
    if flag.startswith("--")
}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_A_CALL = re.compile(r"^generate: ")
NAME = re.compile(r"^[a-z_]+(\.[a-z]+)*\b")
OF_THE_PROMPT = re.compile(r"^(messages?|content part|the prompt|tool_calls)\b")
OF_A_FORM = re.compile(r"^(the schema|the grammar|pattern|#)")
ASKED = ("messages", "input", "prompt", "content", "tokens")  # what is to be answered


@contextmanager
def worded(given: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[None]:
    """What a session says of a request names the fields of this one.

    known: the fields that it may have. Raises: Refusal, where a session's error was.
    """
    try:
        yield
    except ContextError as error:
        text, param = words(error, given, known), prompt_field(given, known)
        raise Refusal(400, text, param=param, code="context_length_exceeded") from error
    except (UsageError, TokenizerError) as error:
        text = words(error, given, known)
        param = param_of(text, given, known)
        if param is None and isinstance(error, TokenizerError):
            param = prompt_field(given, known)  # which text or template could not be read
        raise Refusal(400, text, param=param, code="invalid_value" if param else None) from error


def words(error: Exception, given: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A session's words, in which fields have this request's names."""

    def field(found: re.Match[str]) -> str:
        name = FLAGS.get(found[0])
        return found[0] if name is None else field_of(name, given, known)

    text = FLAG.sub(field, OF_A_CALL.sub("", line(error)))
    first = NAME.match(text)
    return text if first is None else field_of(first[0], given, known) + text[first.end() :]


def param_of(text: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> str | None:
    """The field that these words are about, None where they do not say."""
    first = NAME.match(text)
    if first is not None and is_known(first[0], known):
        return first[0]
    if OF_THE_PROMPT.match(text):
        return prompt_field(given, known)
    return field_of("json_schema", given, known) if OF_A_FORM.match(text) else None


def is_known(name: str, known: Mapping[str, Any]) -> bool:
    """Whether it is a field, or within one."""
    return name.partition(".")[0] in known


def prompt_field(given: Mapping[str, Any], known: Mapping[str, Any]) -> str | None:
    """The field that holds what is to be answered."""
    return next((name for name in ASKED if name in known and name in given), None)


def field_of(name: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """The field of this request that sets a session's option."""
    if name in given:
        return name
    if name == "messages":
        return prompt_field(given, known) or name
    if name == "max_tokens":
        others = ("max_completion_tokens", "max_output_tokens")
        return next((one for one in others if one in given), name)
    if name in ("json_schema", "response_format"):
        forms = {"grammar": "grammar", "response_format": "response_format", "text": "text.format"}
        return next((told for one, told in forms.items() if given.get(one)), "tools")
    return name
