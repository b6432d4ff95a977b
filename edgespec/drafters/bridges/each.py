"""A draft model of another vocabulary for several texts: one drafter each, one after another.

What each has to translate differs, so their passes are not shared; the weights are, and the n-grams
that they learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from edgespec.decode.follow import always
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.mixed import READ_STEP, Stepwise
from edgespec.drafters.together import Wish
from edgespec.drafters.window import FEW, PART
from edgespec.types import NO_DRAFT, Draft

Spelled = Callable[[Sequence[Mapping[str, Any]]], list[int]]


class Each:
    """Implements together.Drafters. drafters: of each text, on a sequence of its own.

    first_s: what a token takes until it is known. spelled: a conversation in the drafter's own chat
    format, or nothing.
    """

    def __init__(self, drafters: Sequence[Translated], first_s: float, spelled: Spelled) -> None:
        self._drafters, self._step_s, self._spelled = drafters, first_s, spelled
        self._read_s = 0.0  # of a token

    def step_s(self, m: int) -> float:
        """See together.Drafters."""
        return m * self._step_s

    def read_s(self, n: int) -> float:
        """See together.Drafters."""
        return n * (self._read_s or READ_STEP * self._step_s)

    def begin(self, who: int, ids: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> None:
        """See together.Drafters."""
        spelled = self._spelled(messages) if messages else []
        self._drafters[who].anchor(ids if spelled else [], spelled)

    def n_unread(self, who: int, context: Sequence[int]) -> int:
        """See together.Drafters."""
        return self._drafters[who].n_unread(context)

    def drafts(self, wishes: Sequence[Wish]) -> list[Draft]:
        """See together.Drafters.

        Everyone reads before anyone drafts: reading teaches n-grams, by which a draft's law is
        still worked out when it is verified.
        """
        unread = [self._drafters[wish.who].n_unread(wish.context) for wish in wishes]
        for wish, n_unread in zip(wishes, unread, strict=True):
            if n_unread > FEW:
                self._read(wish, n_unread)
        return [
            NO_DRAFT if n_unread > FEW else self._draft(wish)
            for wish, n_unread in zip(wishes, unread, strict=True)
        ]

    def _read(self, wish: Wish, n_unread: int) -> None:
        start = perf_counter()
        self._drafters[wish.who].read_on(wish.context, PART)
        took_s = (perf_counter() - start) / min(PART, n_unread)
        self._read_s += (took_s - self._read_s) * (0.3 if self._read_s else 1.0)

    def _draft(self, wish: Wish) -> Draft:
        one = self._drafters[wish.who]
        if isinstance(one, Stepwise):
            # A wish is not asked about what is drawn, and drops nothing.
            one.pays = wish.pays if wish.drawing is None else always
        start = perf_counter()
        draft = one.draft(wish.context, wish.k, wish.drawing)
        if len(draft):
            took_s = min((perf_counter() - start) / len(draft), 3 * self._step_s)
            self._step_s += 0.1 * (took_s - self._step_s)
        return draft

    def forget(self) -> None:
        """See together.Drafters: a reader finds out by itself that its cache is shorter."""
