"""One drafter each for several texts: they share what they learn, between drafts."""

from __future__ import annotations

from typing import Any

from edgespec.drafters.bridges.each import Each
from edgespec.drafters.together import Wish
from edgespec.drafters.window import FEW
from edgespec.types import NO_DRAFT, Draft


class Notes:
    """In the place of a Translated: notes what it is asked for."""

    def __init__(self, n_unread: int, notes: list[str]) -> None:
        self._n_unread, self._notes = n_unread, notes

    def n_unread(self, context: Any) -> int:
        self._notes.append("spell")
        return self._n_unread

    def read_on(self, context: Any, n: int) -> None:
        self._notes.append("read")

    def draft(self, context: Any, k: int, drawing: Any) -> Draft:
        self._notes.append("draft")
        return Draft((1,))


def test_nothing_is_read_or_learned_once_somebody_has_drafted() -> None:
    notes = list[str]()
    drafters: Any = [Notes(n, notes) for n in (0, FEW + 1, 1)]
    each = Each(drafters, 1e-3, lambda messages: [])
    wishes = [Wish(who, [1, 2], 3, None, lambda confidence: True) for who in range(3)]
    assert each.drafts(wishes) == [Draft((1,)), NO_DRAFT, Draft((1,))]
    assert notes == ["spell"] * 3 + ["read"] + ["draft"] * 2
