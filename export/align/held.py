"""Which answers a drafter is judged by: whole conversations, of which it is taught nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from edgespec.errors import UsageError

Messages = Sequence[Mapping[str, Any]]
T = TypeVar("T")

HELD_OUT = 10  # a tenth of the answers is not learned from


def talk(messages: Messages) -> str:
    """Tells a conversation from others: all up to what the user says first."""
    first = next((i for i, one in enumerate(messages) if one.get("role") == "user"), len(messages))
    return json.dumps([dict(one) for one in messages[: first + 1]])


def check_several(talks: Sequence[str]) -> None:
    """Raises: UsageError for prompts of one conversation alone."""
    if len(set(talks)) < 2:
        raise UsageError(
            f"{len(talks)} prompts of one conversation: expected several, as whole ones are held "
            "out to judge by; give prompts that begin differently"
        )


def split(lessons: Sequence[T], talks: Sequence[str]) -> tuple[list[T], list[T]]:
    """Those to learn from, and those held out: a tenth, as nearly as whole conversations allow.

    talks: of each lesson, which conversation it is of. In a given order always the same, one at
    least of both. Raises: UsageError.
    """
    check_several(talks)
    sizes = Counter(talks)
    held, n, n_held = set[str](), 0, 0
    for one, size in sizes.items():
        n += size
        if n_held + size <= n // HELD_OUT:
            held.add(one)
            n_held += size
    held = held or {min(sizes, key=lambda one: sizes[one])}
    sides: tuple[list[T], list[T]] = [], []
    for lesson, of in zip(lessons, talks, strict=True):
        sides[of in held].append(lesson)
    return sides
