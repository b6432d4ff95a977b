"""A request's conversation as the prompt that its answer continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from edgespec.config import Config
from edgespec.protocols import Tokenizer
from edgespec.session.call import thoughts
from edgespec.session.prompt import Prompt
from edgespec.session.request import Message, Request, plain
from edgespec.session.tools import with_calls
from edgespec.text.template import ChatTemplate


class Speaker(Protocol):
    """What writes conversations; see Session."""

    @property
    def template(self) -> ChatTemplate: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """As Session.prompt."""
        ...


def prompt_of(
    speaker: Speaker, messages: Sequence[Message], asked: Request, config: Config
) -> Prompt:
    """The prompt, with the tools it tells of and the beginning of a call that is forced.

    Raises: UsageError, TokenizerError.
    """
    template, tools = speaker.template, asked.tools
    said = with_calls(plain(messages), tools, template)
    more = {**thoughts(config), **asked.template}
    if tools is None:
        return speaker.prompt(said, more)
    prompt = speaker.prompt(said, {**more, **tools.more(template)})
    lead = tools.lead(template, prompt)
    if not tools.forced:
        return prompt
    ids = speaker.tokenizer.encode(lead, special=True) if lead else []
    return replace(prompt, ids=(*prompt.ids, *ids), lead="", thinks=False, is_open=False)
