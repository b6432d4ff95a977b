"""Between text and tokens: chat template, encoding, pieces of UTF-8, stop strings.

Knows one tokenizer and nothing of models or sampling. A chat template is a program written by
whoever made the model file, so it runs in Jinja's immutable sandbox.
"""

from __future__ import annotations

import codecs
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from edgespec.errors import TokenizerError, UsageError
from edgespec.protocols import Tokenizer

log = logging.getLogger("edgespec")

ROLES = ("system", "user", "assistant", "tool")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_END = "<|im_end|>"

Message = Mapping[str, Any]


class Detokenizer:
    """Bytes of tokens to text, a character at a time: what is incomplete waits for its rest."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes, perhaps none."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is left when no more bytes come: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)


class StopText:
    """Lets text through up to the first stop string; a possible beginning of one waits.

    stopped: whether a stop string was seen; nothing comes out after it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UsageError("--stop is '': expected a text of at least one character")
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that can be shown now."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        cut = len(text) - self._overhang(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _overhang(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for n in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stops):
                return n
        return 0


class ChatTemplate:
    """Messages to the text a model was trained on, by its own Jinja template.

    stop: strings that end an answer when the vocabulary has no token for them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        source = tokenizer.chat_template
        self.stop: tuple[str, ...] = ()
        if source is None:
            log.warning("the model has no chat template: using chatml; use --raw for plain text")
            source, self.stop = CHATML, (CHATML_END,)
        self._render = compiled(source)

    def text(self, messages: Sequence[Message], *, answer: bool = True) -> str:
        """The conversation as one string; with `answer` it ends where the answer begins.

        Raises: UsageError for a bad message, TokenizerError if the template refuses.
        """
        checked = [check_message(message, at) for at, message in enumerate(messages)]
        if not checked:
            raise UsageError("messages is empty: expected at least one {'role', 'content'}")
        return self._render(
            messages=checked,
            add_generation_prompt=answer,
            bos_token=spelling(self._tokenizer, self._tokenizer.bos),
            eos_token=spelling(self._tokenizer, self._tokenizer.eos),
        )

    def tokens(self, messages: Sequence[Message], *, answer: bool = True) -> list[int]:
        """The ids of `text`: control tokens become tokens, and there is one BOS at most."""
        return encode_rendered(self._tokenizer, self.text(messages, answer=answer))


def encode_rendered(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a rendered template; a BOS that it spells out is not added a second time."""
    opening = spelling(tokenizer, tokenizer.bos)
    if opening and text.startswith(opening):
        text = text[len(opening) :]
    return tokenizer.encode(text, special=True, bos=True)


def utf8(text: str) -> bytes:
    """The text's bytes. Raises: TokenizerError for text that is not Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text has the lone surrogate {text[error.start]!r} at {error.start}: "
            "expected Unicode; read it as UTF-8"
        ) from error


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The token that ends an answer: the last stop token of a rendered one, else eos."""
    if tokenizer.chat_template is None:
        return tokenizer.eos
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        ids = ChatTemplate(tokenizer).tokens(turns, answer=False)
    except TokenizerError:
        return tokenizer.eos
    ends = [token for token in ids if token in tokenizer.stop_tokens]
    return ends[-1] if ends else tokenizer.eos


def spelling(tokenizer: Tokenizer, token: int | None) -> str:
    """How a control token is written, "" for none."""
    if token is None:
        return ""
    return tokenizer.piece(token, special=True).decode("utf-8", "replace")


def check_message(message: Message, at: int) -> dict[str, Any]:
    """The message as a plain dictionary. Raises: UsageError naming its place and what is wrong."""
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise UsageError(f"message {at} is {message!r:.80}: expected an object with role, content")
    if message["role"] not in ROLES:
        raise UsageError(f"message {at} has role {message['role']!r}: expected {', '.join(ROLES)}")
    if not isinstance(message["content"], str):
        raise UsageError(f"message {at} has content {message['content']!r:.80}: expected a text")
    return dict(message)


def compiled(source: str) -> Callable[..., str]:
    """A template as a function of keyword arguments, set up as Hugging Face chat templates expect.

    Blocks are trimmed, loops know break and continue, and the functions raise_exception(text)
    and strftime_now(format) exist. Raises: TokenizerError, here and when it runs.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise TokenizerError(f"the model's chat template does not parse: {error}") from error

    def render(**names: Any) -> str:
        try:
            return template.render(**names)
        except TokenizerError:
            raise
        except Exception as error:  # a template can fail in any way a program can
            detail = f"{type(error).__name__}: {error}"
            raise TokenizerError(f"the model's chat template failed: {detail}") from error

    return render


def refuse(text: str) -> NoReturn:
    """What a template calls to refuse a conversation."""
    raise TokenizerError(f"the model's chat template refuses this conversation: {text}")
