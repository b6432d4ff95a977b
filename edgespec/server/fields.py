"""Which fields a request may have, what they may be, and which of them do nothing here.

A field that is not known is refused by name, as OpenAI does. README.md lists them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from edgespec.server.refusal import Refusal
from edgespec.session.request import STREAMING

Check = Callable[[Any], str]
"""Says what was expected instead, "" if the value will do."""

FAR = 1 << 53  # beyond it JSON's numbers are not told apart
SEEDS = 1 << 63  # of 64 bits, as OpenAI has them


def integer(least: int = -FAR, most: int = FAR) -> Check:
    """A whole number."""

    def check(value: Any) -> str:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and least <= value <= most:
            return ""
        within = f" from {least} to {most}" if (least, most) != (-FAR, FAR) else ""
        return f"a whole number{within}"

    return check


def number(least: float, most: float) -> Check:
    """A number."""

    def check(value: Any) -> str:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if is_number and least <= value <= most else f"a number from {least} to {most}"

    return check


def kind_of(expected: str, *kinds: type) -> Check:
    """A value of these Python types."""
    return lambda value: "" if isinstance(value, kinds) else expected


def choice(*words: Any) -> Check:
    """One of these."""

    def check(value: Any) -> str:
        known = any(type(value) is type(word) and value == word for word in words)
        return "" if known else f"one of {', '.join(map(str, words))}"

    return check


def texts(value: Any) -> str:
    """Stop strings."""
    given = value if isinstance(value, list) else [value]
    known = len(given) <= 16 and all(isinstance(one, str) for one in given)
    return "" if known else "a string, or at most 16 of them in a list"


def biases(value: Any) -> str:
    """Token ids to biases."""
    if not isinstance(value, Mapping) or len(value) > 1024:
        return 'an object of at most 1024 token ids, as in {"50": -100}'
    check = number(-100, 100)
    known = all(key.isascii() and key.isdigit() and len(key) < 10 for key in value)
    known = known and not any(check(bias) for bias in value.values())
    return "" if known else "token ids with numbers from -100 to 100"


def draft_tokens(value: Any) -> str:
    """A number of tokens, or auto."""
    return "" if value == "auto" or not integer(0, 64)(value) else "0 to 64, or auto"


def tokens_or_all(value: Any) -> str:
    """Tokens of an answer; -1: to the end of the context."""
    expected = "a whole number, 1 or more; or -1, to the end of the context"
    return expected if integer(-1, FAR)(value) or value == 0 else ""


def streaming(value: Any) -> str:
    """Options of a stream."""
    known = isinstance(value, Mapping) and value.keys() <= STREAMING
    known = known and all(one is None or isinstance(one, bool) for one in value.values())
    return "" if known else f"an object of {' and '.join(sorted(STREAMING))}, true or false"


flag = kind_of("true or false", bool)
text = kind_of("a string", str)
listing = kind_of("a list", list)
mapping = kind_of("an object", dict)
either = kind_of("a string or an object", str, dict)

SAMPLING: Mapping[str, Check] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "seed": integer(-SEEDS, SEEDS - 1),
    "stop": texts,
    "logit_bias": biases,
    "presence_penalty": number(-2, 2),
    "frequency_penalty": number(-2, 2),
    "n": integer(1, 128),
}
OWN: Mapping[str, Check] = {  # what OpenAI does not have
    "top_k": integer(0, FAR),
    "min_p": number(0, 1),
    "repeat_penalty": number(0.01, 100),
    "verification": choice("match", "rejection", "block"),
    "grammar": text,
    "speculative": choice("auto", "on", "off"),
    "draft_tokens": draft_tokens,
    "show_drafted": flag,
}
COMMON: Mapping[str, Check] = {
    "model": text, "stream": flag, "stream_options": streaming, "user": text,
    "max_tokens": integer(-1, FAR), **SAMPLING, **OWN,
}  # fmt: skip
CHAT: Mapping[str, Check] = {
    "messages": listing,
    **COMMON,
    "max_tokens": tokens_or_all,
    "max_completion_tokens": integer(1, FAR),
    "logprobs": flag,
    "top_logprobs": integer(0, 20),
    "response_format": mapping,
    "tools": listing,
    "tool_choice": either,
    "parallel_tool_calls": flag,
    "think": choice("auto", "on", "off"),
    "reasoning_effort": choice("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "chat_template_kwargs": mapping,
    "modalities": listing,
}
COMPLETIONS: Mapping[str, Check] = {
    "prompt": kind_of("a string or a list", str, list),
    **COMMON,
    "logprobs": integer(0, 20),
    "echo": flag,
    "best_of": integer(1, 128),
}
RESPONSES: Mapping[str, Check] = {
    "input": kind_of("a string or a list", str, list),
    "instructions": text,
    "model": text,
    "stream": flag,
    "stream_options": streaming,
    "user": text,
    "metadata": mapping,
    "include": listing,
    "top_logprobs": integer(0, 20),
    "max_output_tokens": integer(1, FAR),
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "text": mapping,
    "reasoning": mapping,
    "tools": listing,
    "tool_choice": either,
    "parallel_tool_calls": flag,
    "truncation": choice("disabled", "auto"),
    **{name: OWN[name] for name in ("top_k", "min_p", "speculative", "draft_tokens")},
    "seed": integer(-SEEDS, SEEDS - 1),
}
EMBEDDINGS: Mapping[str, Check] = {
    "input": kind_of("a string or a list", str, list),
    "model": text, "user": text, "encoding_format": choice("float", "base64"),
    "dimensions": integer(1, FAR),
}  # fmt: skip
TOKENIZE: Mapping[str, Check] = {
    "content": text, "prompt": text, "messages": listing, "model": text, "add_special": flag,
}  # fmt: skip
DETOKENIZE: Mapping[str, Check] = {"tokens": listing, "model": text}

IGNORED = frozenset(  # of OpenAI's: they change nothing about an answer made here
    ("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity",
     "prompt_cache_retention", "prompt_cache_options", "prediction", "background",
     "background_options", "max_tool_calls", "access_programs")
)  # fmt: skip
NOT_HERE: Mapping[str, str] = {
    "functions": "expected tools, which took their place",
    "function_call": "expected tool_choice, which took its place",
    "audio": "this model writes text alone; leave it out",
    "web_search_options": "nothing is looked up on the web; leave it out",
    "suffix": "nothing is filled in before a suffix; leave it out",
    "previous_response_id": "no answer is kept here; send the conversation as input",
    "conversation": "no conversation is kept here; send it as input",
    "prompt": "no prompt is kept here; send what it says",
    "context_management": "nothing is compacted here; send a shorter conversation",
    "moderation": "nothing is moderated here; leave it out",
    "image": "this model makes no pictures; leave it out",
}


def checked(given: Mapping[str, Any], known: Mapping[str, Check]) -> dict[str, Any]:
    """The fields that are given and not null, without those that do nothing. Raises: Refusal."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            unknown(name, value, known)
        elif value is not None:
            expected = known[name](value)
            if expected:
                seen = f"{name} is {shown(value)}"
                raise Refusal(400, f"{seen}: expected {expected}", param=name, code="invalid_value")
            found[name] = value
    return found


def unknown(name: str, value: Any, known: Mapping[str, Check]) -> None:
    """Raises: Refusal, unless it is known to do nothing."""
    if name in IGNORED or (name in NOT_HERE and value is None):
        return
    if name in NOT_HERE:
        message = f"{name}: {NOT_HERE[name]}"
        raise Refusal(400, message, param=name, code="unsupported_parameter")
    close = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known fields are {', '.join(known)}"
    message = f"unrecognized field {name[:64]!r}: {hint}"
    raise Refusal(400, message, param=name[:64], code="unknown_parameter")


def required(given: Mapping[str, Any], name: str) -> Any:
    """A field's value. Raises: Refusal if it is not there."""
    if name not in given:
        raise Refusal(400, f"{name} is missing: expected it", param=name, code="missing_parameter")
    return given[name]


def shown(value: Any) -> str:
    """A value as a message shows it."""
    said = repr(value) if not isinstance(value, int) or abs(value) < FAR**4 else "a huge number"
    return said if len(said) <= 60 else said[:57] + "..."
