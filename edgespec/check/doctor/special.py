"""What stands around the text: chat templates and the control tokens with a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgespec.errors import TokenizerError
from edgespec.text.control import spelling
from edgespec.text.template import ChatTemplate, Message
from edgespec.text.vocabulary import Vocabulary

ROLES = ("bos", "eos", "end_of_turn")
CHAT: list[Message] = [
    {"role": role, "content": f"{role} {at}"}
    for at, role in enumerate(("system", "user", "assistant", "user", "assistant", "user"))
]


@dataclass(frozen=True)
class Special:
    """template: "same", "different", "target only", "drafter only" or "none".

    Templates are the same if they write the same chats, whatever else they could write (calls of
    tools, say). roles: how each side writes the token of a role, None for no such token.
    """

    template: str
    roles: dict[str, tuple[str | None, str | None]]

    @property
    def differing(self) -> list[str]:
        """The roles whose tokens are not written alike."""
        return [role for role, (one, other) in self.roles.items() if one != other]

    def record(self) -> dict[str, Any]:
        """For scripts."""
        roles = {role: {"target": one, "drafter": other} for role, (one, other) in
                 self.roles.items()}  # fmt: skip
        return {"template": self.template, "roles": roles}


def special_of(target: Vocabulary, draft: Vocabulary) -> Special:
    """What both sides have."""
    one, other = target.tokenizer.chat_template, draft.tokenizer.chat_template
    if one is not None and other is not None:
        alike = one.split() == other.split() or chats_of(target) == chats_of(draft)
        template = "same" if alike else "different"
    elif one is None and other is None:
        template = "none"
    else:
        template = "drafter only" if one is None else "target only"
    return Special(template, {role: (_written(target, role), _written(draft, role))
                              for role in ROLES})  # fmt: skip


def chats_of(side: Vocabulary) -> list[str]:
    """What a model's own template makes of chats, with and without a system message.

    Of one that does not work this is its source.
    """
    try:
        template = ChatTemplate(side.tokenizer, own=True)
        return [
            template.text(CHAT[start:end], answer=end % 2 == 0)
            for start in (0, 1)
            for end in range(2, len(CHAT) + 1)
        ]
    except TokenizerError:
        return [side.tokenizer.chat_template or ""]


def _written(side: Vocabulary, role: str) -> str | None:
    token = side.roles.get(role)
    return None if token is None else spelling(side.tokenizer, token)
