"""A prompt as both sides read it: the target's ids, and the conversation they spell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from edgespec.text.template import Message


@dataclass(frozen=True)
class Prompt(Sequence[int]):
    """The target's ids, up to where an answer begins; for whoever wants ids, it is these.

    messages: what they spell, none for a raw text. It is kept, and not the drafter's ids of it,
    because the drafter may be opened after the prompt was made. lead: what an answer begins with
    that belongs to the chat format, a space or nothing. thinks: whether the answer may begin with
    thoughts; is_open: whether the prompt has begun them.
    """

    ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    lead: str = ""
    thinks: bool = False
    is_open: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[int, ...]: ...

    def __getitem__(self, at: int | slice) -> int | tuple[int, ...]:
        return self.ids[at]
