"""Drafts with a model of another vocabulary: the text is kept in both, a bridge translates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter

from edgespec.decode.follow import Pays, Reader, always
from edgespec.drafters.bridges import Bridge
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.drafters.teaching import Learner, teach
from edgespec.drafters.window import FEW, MOST, Window
from edgespec.errors import TokenizerError
from edgespec.protocols import Drawing, LanguageModel
from edgespec.types import NO_DRAFT, Draft, Round

logger = logging.getLogger(__name__)


class Translated:
    """A drafter of the target's tokens out of a model of others.

    What it needs of the vocabularies is made when it first drafts, or is first asked how much it
    has to read after a token was said: no first token waits for it.
    lossless: whether sampling keeps the target's law exactly.
    """

    n_leaves = 1
    pays: Pays  # of drafts over a bridge that asks

    def __init__(
        self,
        model: LanguageModel,
        parts: Callable[[], tuple[Ledger, Bridge]],
        kind: type[Bridge],
        *,
        name: str = "model",
        learner: Learner | None = None,
        most_shown: int = MOST,
    ) -> None:
        """parts: makes the ledger and the bridge, which is of this kind. learner: told what the
        target thought where this drafter guessed. most_shown: tokens of a long text, see
        window.Window.
        """
        self._make, self._anchor = parts, (list[int](), list[int]())
        self._n_begun = 0  # ids of the text for which it was first asked what it has to read
        self._learner, self._made = learner, (NO_DRAFT, 0)  # the last draft, and where it began
        self.name, self.lossless = name, kind.lossless
        self._reader, self._window = Reader(model), Window(model.n_context, most=most_shown)
        self._warned = False
        if kind.asks:
            self.pays = always

    @cached_property
    def _parts(self) -> tuple[Ledger, Bridge]:
        ledger, bridge = self._make()
        ledger.anchor(*self._anchor)
        return ledger, bridge

    @property
    def ledger(self) -> Ledger:
        """The text in both vocabularies. Raises: TokenizerError where there is no vocabulary."""
        return self._parts[0]

    @property
    def bridge(self) -> Bridge:
        """How it proposes the target's tokens; otherwise as `ledger`."""
        return self._parts[1]

    @property
    def _is_made(self) -> bool:
        return "_parts" in self.__dict__

    def anchor(self, target_ids: Sequence[int], draft_ids: Sequence[int]) -> None:
        """See `Ledger.anchor`; for the text that comes next."""
        self._anchor = list(target_ids), list(draft_ids)
        if self._is_made:
            self.ledger.anchor(target_ids, draft_ids)

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        """None where the drafter cannot spell the text or its context is full."""
        if k < 1:
            return Draft()
        start = perf_counter()
        self._reader.lap()  # a law that was worked out later has asked, too
        ledger, bridge = self._parts
        try:
            spelled = ledger.sync(context)
        except TokenizerError as error:
            self._warn(f"pauses: it cannot spell the text: {error}")
            return Draft()
        if ledger.n_lost:
            self._warn("reads on without characters that it has no tokens for")
        if not spelled:
            return Draft()
        shown = self._window.of(spelled)
        if self._reader.room(shown) < MAX_PIECES:  # what one token may take
            self._warn(f"pauses: its context is full ({len(spelled)} tokens)")
            return Draft()
        if bridge.asks:
            self._reader.pays = self.pays
        draft = bridge.draft(self._reader, shown, context, k, drawing)
        self._made = draft, len(shown)
        if self._learner is not None:
            self._learner.hold()
        spent = self._reader.lap()
        rest_s = perf_counter() - start - spent.read_s - spent.step_s
        return replace(draft, spent=spent._replace(translate_s=rest_s))

    def n_unread(self, context: Sequence[int]) -> int:
        """See window.Reads; 0 for a text that it cannot spell and will not draft for."""
        if not self._is_made and not 0 < self._n_begun < len(context):
            self._n_begun = len(context)
            return max(len(context), FEW + 1)  # more than is read along with a draft
        ledger = self.ledger
        try:
            return self._reader.n_unread(self._window.of(ledger.sync(context)))
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
        n_syncs, n_full = (self.ledger.n_syncs, self.ledger.n_full) if self._is_made else (0, 0)
        return {"lossless": self.lossless, "n_syncs": n_syncs, "n_full_syncs": n_full}

    def close(self) -> None:
        """Nothing: model and n-grams are others' to close and to save."""

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("drafter %s %s", self.name, what)
