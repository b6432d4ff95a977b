"""Drafts with a model of another vocabulary: the text is kept in both, a bridge translates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.bridges import Bridge, Drawing
from edgespec.bridges.ledger import Ledger
from edgespec.errors import TokenizerError
from edgespec.protocols import LanguageModel, Law
from edgespec.reader import Reader
from edgespec.types import Draft, Verdict
from edgespec.verify import Uniforms

logger = logging.getLogger(__name__)


class Translated:
    """A drafter of the target's tokens out of a model of others.

    on_close: called when the drafter is closed, before its model is, to keep what was learned.
    """

    def __init__(
        self,
        model: LanguageModel,
        ledger: Ledger,
        bridge: Bridge,
        *,
        name: str = "model",
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name, self.ledger, self.bridge = name, ledger, bridge
        self._reader = Reader(model)
        self._on_close = on_close
        self._warned = False

    def draft(
        self,
        context: Sequence[int],
        k: int,
        *,
        law: Law | None = None,
        u: NDArray[np.float64] | None = None,
    ) -> Draft:
        """None where the drafter cannot spell the text or its context is full."""
        if k < 1:
            return Draft()
        try:
            spelled = self.ledger.sync(context)
        except TokenizerError as error:
            self._warn(f"cannot spell the text: {error}")
            return Draft()
        if not self._reader.room(spelled) or not spelled:
            self._warn(f"its context is full ({len(spelled)} tokens)")
            return Draft()
        drawing = None if law is None or u is None else Drawing(law, Uniforms(*u))
        return self.bridge.draft(self._reader, spelled, context, k, drawing)

    def observe(self, context: Sequence[int], draft: Draft, verdict: Verdict) -> None:
        """Nothing here; the ledger learns what was emitted with the next draft."""

    def close(self) -> None:
        if self._on_close is not None:
            self._on_close()
        self._reader.close()

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("drafter %s pauses: %s", self.name, why)
