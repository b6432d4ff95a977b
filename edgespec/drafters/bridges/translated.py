"""Drafts with a model of another vocabulary: the text is kept in both, a bridge translates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from edgespec.decode.follow import Pays, Reader, always
from edgespec.drafters.bridges import Bridge
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.drafters.teaching import Learner, teach
from edgespec.drafters.window import MOST, Window
from edgespec.errors import TokenizerError
from edgespec.protocols import Drawing, LanguageModel
from edgespec.types import NO_DRAFT, Draft, Round

logger = logging.getLogger(__name__)


class Translated:
    """A drafter of the target's tokens out of a model of others."""

    n_leaves = 1
    pays: Pays  # of drafts over a bridge that asks

    def __init__(
        self,
        model: LanguageModel,
        ledger: Ledger,
        bridge: Bridge,
        *,
        name: str = "model",
        learner: Learner | None = None,
        most_shown: int = MOST,
    ) -> None:
        """learner: told what the target thought where this drafter guessed. most_shown: tokens of a
        long text, see window.Window.
        """
        self._learner, self._made = learner, (NO_DRAFT, 0)  # the last draft, and where it began
        self.name, self.ledger, self.bridge = name, ledger, bridge
        self._reader, self._window = Reader(model), Window(model.n_context, most=most_shown)
        self._warned = False
        if bridge.asks:
            self.pays = always

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        """None where the drafter cannot spell the text or its context is full."""
        if k < 1:
            return Draft()
        start = perf_counter()
        self._reader.lap()  # a law that was worked out later has asked, too
        try:
            spelled = self.ledger.sync(context)
        except TokenizerError as error:
            self._warn(f"pauses: it cannot spell the text: {error}")
            return Draft()
        if self.ledger.n_lost:
            self._warn("reads on without characters that it has no tokens for")
        if not spelled:
            return Draft()
        shown = self._window.of(spelled)
        if self._reader.room(shown) < MAX_PIECES:  # what one token may take
            self._warn(f"pauses: its context is full ({len(spelled)} tokens)")
            return Draft()
        if self.bridge.asks:
            self._reader.pays = self.pays
        draft = self.bridge.draft(self._reader, shown, context, k, drawing)
        self._made = draft, len(shown)
        if self._learner is not None:
            self._learner.hold()
        spent = self._reader.lap()
        rest_s = perf_counter() - start - spent.read_s - spent.step_s
        return replace(draft, spent=spent._replace(translate_s=rest_s))

    def n_unread(self, context: Sequence[int]) -> int:
        """See window.Reads; 0 for a text that it cannot spell and will not draft for."""
        try:
            return self._reader.n_unread(self._window.of(self.ledger.sync(context)))
        except TokenizerError:
            return 0

    def read_on(self, context: Sequence[int], n: int) -> None:
        """See window.Reads."""
        self._reader.read_on(self._window.of(self.ledger.sync(context)), n)

    def observe(self, done: Round) -> None:
        """The ledger learns what was emitted with the next draft."""
        made, self._made = self._made, (NO_DRAFT, 0)
        if self._learner is not None:
            draft, place = made
            # Not every bridge tells the pieces, without which places are not known.
            teach(self._learner, draft if draft.pieces else NO_DRAFT, place, done)

    def counts(self) -> dict[str, str | bool | int]:
        """What a record says of the bridge; full syncs spelled the whole context."""
        return {
            "lossless": self.bridge.lossless,
            "n_syncs": self.ledger.n_syncs,
            "n_full_syncs": self.ledger.n_full,
        }

    def close(self) -> None:
        """Nothing: model and n-grams are others' to close and to save."""

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("drafter %s %s", self.name, what)
