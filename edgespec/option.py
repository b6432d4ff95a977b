"""What one option is, how the text of its value is read, and the types that options have.

A reader takes a text and gives a value or raises ArgumentTypeError, which argparse shows. Which
options there are is config.py's business.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack

log = logging.getLogger("edgespec")

CONSTRAINTS = ("json_schema", "grammar")  # what answers have to follow
MODELS = ("model", "hf_repo", "draft_model", "hf_repo_draft", "lora_draft")  # options that name one


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


def none_or(least: int) -> Callable[[str], int]:
    """Reads a count of `least` or more, or 0. The reader raises: ArgumentTypeError."""

    def read(text: str) -> int:
        number = whole(text)
        if 0 < number < least:
            raise ArgumentTypeError(f"{text!r}: expected 0, or {least} or more")
        return number

    return read


def within(least: int, most: int) -> Callable[[str], int]:
    """Reads a count from `least` to `most`. The reader raises: ArgumentTypeError."""

    def read(text: str) -> int:
        number = whole(text)
        if not least <= number <= most:
            raise ArgumentTypeError(f"{text!r}: expected {least} to {most}")
        return number

    return read


def real(text: str) -> float:
    """A finite number. Raises: ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ArgumentTypeError(f"{text!r}: expected a number")
    return number


def share(most: float) -> Callable[[str], float]:
    """Reads a share from 0 to `most`. The reader raises: ArgumentTypeError."""

    def read(text: str) -> float:
        number = real(text)
        if not 0 <= number <= most:
            raise ArgumentTypeError(f"{text!r}: expected 0 to {most:g}")
        return number

    return read


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


def json_text(schema: Mapping[str, Any]) -> str:
    """A schema given as an object. Raises: ArgumentTypeError."""
    try:
        return json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"no plain JSON ({error}): expected a schema") from None


def renamed(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """What `values`, laid over `before`, empty: a model's other name, and its adapter.

    A pair takes the place of models that were named before it.
    """
    emptied = {name: "" for name in MODELS if values.get("pair") and not values.get(name)}
    for one, other in (("model", "hf_repo"), ("draft_model", "hf_repo_draft")):
        for given, left in ((one, other), (other, one)):
            if values.get(given) and not values.get(left):
                emptied[left] = ""
    sides = {name: values.get(name) or "" for name in ("draft_model", "hf_repo_draft")}
    was = {name: before[name] for name in sides}
    for names in (sides, was):
        names["draft_model"] = os.path.expanduser(names["draft_model"])
    if any(was.values()) and any(sides.values()) and sides != was and "lora_draft" not in values:
        emptied["lora_draft"] = ""  # it came with the other draft model, or for it
    if "lora_draft" in emptied and (adapter := before["lora_draft"]):
        log.warning("--lora-draft %s is left out: it is for another draft model", adapter)
    return emptied


class CallOptions(TypedDict, total=False):
    """What a session has for all its answers and one call may choose; None: as if absent.

    json_schema: a JSON schema, as text or object, that the answer fits; {} for any object. grammar:
    a file of GBNF. speculative: auto, on or off. draft_tokens: of a call, at most so many a round,
    of what the session drafts. think: auto, on or off, where the chat template knows thoughts.
    """

    speculative: str | None
    draft_tokens: int | str | None
    think: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repeat_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    verification: str | None
    json_schema: str | Mapping[str, Any] | None
    grammar: str | None
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str] | None


class Options(CallOptions, total=False):
    """What one call of `generate` or `chat` may choose; absent or None: the session's own value.

    logit_bias: added to these tokens' logits. n_top: log probabilities of each token and of so
    many likeliest ones.
    """

    logit_bias: Mapping[int, float] | None
    n_top: int | None


class LoadOptions(CallOptions, total=False):
    """The keywords of `edgespec.load`: the command line's options."""

    pair: str
    hf_repo: str
    hf_repo_draft: str
    offline: bool
    device: str
    device_draft: str
    ctx_size: int
    threads: int
    threads_draft: int
    n_gpu_layers: int | None
    loading: str
    kv_type: str
    kv_type_draft: str
    draft_window: int
    bridge: str
    exact: bool
    adapt: bool
    adapt_rows: int
    adapt_keep_text: bool
    adapt_topics: int
    adapt_share: float
    adapt_within: bool
    lora_draft: str
    allow_approximate: bool
    chat_template: str
