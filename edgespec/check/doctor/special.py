"""What stands around the text: chat templates and the control tokens with a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgespec.text.control import spelling
from edgespec.text.vocabulary import Vocabulary

ROLES = ("bos", "eos", "end_of_turn")


@dataclass(frozen=True)
class Special:
    """template: "same", "different", "target only", "drafter only" or "none".

    roles: how each side writes the token of a role, None for no such token.
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
        template = "same" if one.split() == other.split() else "different"
    elif one is None and other is None:
        template = "none"
    else:
        template = "drafter only" if one is None else "target only"
    return Special(template, {role: (_written(target, role), _written(draft, role))
                              for role in ROLES})  # fmt: skip


def _written(side: Vocabulary, role: str) -> str | None:
    token = side.roles.get(role)
    return None if token is None else spelling(side.tokenizer, token)
