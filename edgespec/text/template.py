"""A conversation as the text, and the ids, that a model was trained on.

The model's own chat template is a program written by whoever made the file: it runs in a sandbox
that keeps it from Python's internals and bounds its time, memory and output. Where there is none,
or it does not work, one of the well-known formats takes its place.
Knows one tokenizer and nothing of models, sampling or sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgespec.errors import TokenizerError, UsageError
from edgespec.files import text_of
from edgespec.protocols import Tokenizer
from edgespec.text.control import control_in, encode_rendered, marked, spelling, token_of
from edgespec.text.formats import FORMS, Form, form_of
from edgespec.text.sandbox import Refused, compiled
from edgespec.text.thoughts import CLOSE

log = logging.getLogger("edgespec")

ROLES = ("system", "developer", "user", "assistant", "tool")
MODEL = "the model's chat template"
ENABLE = "enable_thinking"  # what templates call it
OWN = ("messages", "add_generation_prompt", "bos_token", "eos_token")
NONE: Mapping[str, Any] = {}
# Templates ask whether they are none, not only whether they are defined.
UNSAID: Mapping[str, Any] = {"tools": None, "documents": None}
TRIED = "Xyzzy"  # an unlikely word, looked for in what a template makes of it

Message = Mapping[str, Any]


class ChatTemplate:
    """Messages to the text a model was trained on.

    name: "model" for its own template, a well-known format's, or a file's. stop: strings that end
    an answer where the vocabulary has no token that does. thinks: whether it tells thoughts from
    answers; asks: whether it can be told not to think. source: in Jinja.
    settled: what it cannot write is refused, and no other takes its place.
    """

    def __init__(self, tokenizer: Tokenizer, override: str = "", *, own: bool = False) -> None:
        """override: a format's name or a Jinja file, in place of the model's own template.

        own: the model's own or none; what does not work is an error, and the log hears nothing.
        Raises: UsageError, TokenizerError for an override that cannot be used.
        """
        self._tokenizer, self._own = tokenizer, own
        self._lead: str | None = None
        self.settled = False
        source = tokenizer.chat_template or ""
        if override in FORMS:
            self._use_form(override)
            self._check_tokens(FORMS[override])
        elif override:
            expected = f"{', '.join(FORMS)} or a Jinja file"
            source = text_of(override, "--chat-template", expected=expected)
            self._use(Path(override).name, source, f"the chat template {override}")
        elif not source.strip():
            self._fall_back("the model has no chat template")
        else:
            try:
                self._use("model", source, MODEL)
            except TokenizerError as error:
                self._fall_back(str(error))

    def text(
        self, messages: Sequence[Message], *, answer: bool = True, more: Mapping[str, Any] = NONE
    ) -> str:
        """The conversation as one string; with `answer` it ends where the answer begins.

        more: what this template knows besides, as in {"enable_thinking": False}.
        Raises: UsageError for a bad message, TokenizerError if the template refuses.
        """
        checked = [self._known(check_message(one, at)) for at, one in enumerate(messages)]
        if not checked:
            raise UsageError("messages is empty: expected at least one {'role', 'content'}")
        try:
            return self._rendered(self._accepted(checked), answer, more)
        except Refused:
            raise
        except TokenizerError as error:
            if self.name != "model" or self.settled:
                raise
            if not more:
                self._fall_back(str(error))
            elif self.text(messages, answer=answer) and self.name == "model":
                raise UsageError(
                    f"the chat template refuses {dict(more)!r:.80}: {error}: expected what it knows"
                ) from error
        return self._rendered(self._accepted(checked), answer, more)

    def tokens(
        self, messages: Sequence[Message], *, answer: bool = True, more: Mapping[str, Any] = NONE
    ) -> list[int]:
        """The ids of `text`: there is one BOS at most, and control tokens are the template's alone.

        What a message spells of them is text, also where the template itself looks for it.
        """
        ids = encode_rendered(self._tokenizer, self.text(messages, answer=answer, more=more))
        control = control_in(self._tokenizer, ids)
        said, told = [dict(one) for one in messages], dict(more)
        apart, more = marked(said, control), marked(told, control)
        if apart == said and more == told:
            return ids
        text = self.text(apart, answer=answer, more=more)
        return encode_rendered(self._tokenizer, text, control)

    @property
    def lead(self) -> str:
        """What an answer begins with that belongs to the format: " " after "Assistant:", or ""."""
        if self._lead is None:
            self._lead = " " if self._leads() else ""
        return self._lead

    def _leads(self) -> bool:
        """Whether an answer, rendered after its prompt, is spelled with a space before it."""
        asked = {"role": "user", "content": TRIED}
        try:
            prompt = self.tokens([asked])
            whole = self.tokens([asked, {"role": "assistant", "content": TRIED}], answer=False)
        except TokenizerError:
            return False
        said = b"".join(map(self._tokenizer.piece, whole[len(prompt) :]))
        return whole[: len(prompt)] == prompt and said.startswith(f" {TRIED}".encode())

    def _known(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message; who speaks as developer is the system where the template knows none."""
        if message["role"] == "developer" and not self._knows_developer:
            return {**message, "role": "system"}
        return message

    def _use(self, name: str, source: str, whose: str, *, stop: tuple[str, ...] = ()) -> None:
        """Raises: TokenizerError if a simple conversation cannot be written with it."""
        self._render = compiled(source, whose)
        self.name, self.stop, self.source = name, stop, source
        self._lead = None  # not known yet
        self._knows_developer = "developer" in source
        self.thinks, self.asks = CLOSE in source, ENABLE in source
        self._typed = False  # whether it wants content as a list of parts
        self._takes_system: bool | None = None  # not known yet
        failed: TokenizerError | None = None
        for self._typed in (False, True):
            try:
                if TRIED in self._rendered([{"role": "user", "content": TRIED}], True):
                    return
            except Refused:  # its own affair, said when it refuses a real conversation
                return
            except TokenizerError as error:
                failed = failed or error
        raise failed or TokenizerError(f"{whose} leaves out what is asked")

    def _use_form(self, name: str) -> None:
        form = FORMS[name]
        ends = token_of(self._tokenizer, form.end)
        known = not form.end or ends in self._tokenizer.stop_tokens
        self._use(name, form.source, f"the format {name}", stop=() if known else (form.end,))

    def _fall_back(self, why: str) -> None:
        """Go on with the format that the model was taught, or with a plain transcript."""
        if self._own:
            raise TokenizerError(why)
        name = form_of(self._tokenizer)
        self._use_form(name)
        fits = "as its vocabulary suggests"
        if name == "plain":
            name, fits = "a plain transcript", "as nothing shows that it was taught a format"
        self._say(
            f"{why}: using {name}, {fits}; --chat-template names another ({', '.join(FORMS)})"
        )

    def _check_tokens(self, form: Form) -> None:
        missing = [one for one in form.tokens if token_of(self._tokenizer, one) is None]
        if missing:
            self._say(
                f"--chat-template {self.name}: the vocabulary has no token {missing[0]}, so the "
                "model was hardly made for it"
            )

    def _accepted(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, the system message moved into the first question if need be."""
        if messages[0]["role"] != "system":
            return messages
        if self._takes_system is None:
            self._takes_system = self._has_system()
            if not self._takes_system:
                self._say(
                    "the chat template has no place for a system message: it is put in front of "
                    "the first question"
                )
        return messages if self._takes_system else folded(messages)

    def _has_system(self) -> bool:
        """Whether a system message comes out of the template, neither refused nor left out."""
        asked = [{"role": "user", "content": "a"}]
        try:
            return TRIED in self._rendered([{"role": "system", "content": TRIED}, *asked], True)
        except Refused:
            return False

    def _rendered(
        self, messages: list[dict[str, Any]], answer: bool, more: Mapping[str, Any] = NONE
    ) -> str:
        if self._typed:
            messages = [
                {**one, "content": [{"type": "text", "text": one["content"]}]} for one in messages
            ]
        return self._render(
            messages=messages,
            add_generation_prompt=answer,
            bos_token=self._tokenizer.bos_text,
            eos_token=spelling(self._tokenizer, self._tokenizer.eos),
            **{**UNSAID, **{name: one for name, one in more.items() if name not in OWN}},
        )

    def _say(self, text: str) -> None:
        if not self._own:
            log.warning("%s", text)


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The token that ends an answer: the last stop token of a rendered one, else eos."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        ids = ChatTemplate(tokenizer, own=True).tokens(turns, answer=False)
    except TokenizerError:
        end = token_of(tokenizer, FORMS[form_of(tokenizer)].end)
        ids = [] if end is None else [end]
    ends = [token for token in ids if token in tokenizer.stop_tokens]
    return ends[-1] if ends else tokenizer.eos


def check_message(message: Message, at: int) -> dict[str, Any]:
    """The message as a plain dictionary. Raises: UsageError naming its place and what is wrong.

    One that calls tools needs no content, or None.
    """
    if isinstance(message, Mapping) and message.get("tool_calls"):
        message = {**message, "content": message.get("content") or ""}
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise UsageError(f"message {at} is {message!r:.80}: expected an object with role, content")
    if message["role"] not in ROLES:
        raise UsageError(f"message {at} has role {message['role']!r}: expected {', '.join(ROLES)}")
    if not isinstance(message["content"], str):
        raise UsageError(f"message {at} has content {message['content']!r:.80}: expected a text")
    return dict(message)


def folded(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without its system message: that is said at the head of the first question."""
    system, *rest = messages
    for at, message in enumerate(rest):
        if message["role"] == "user":
            content = f"{system['content']}\n\n{message['content']}"
            return [*rest[:at], {**message, "content": content}, *rest[at + 1 :]]
    return [{**system, "role": "user"}, *rest]
