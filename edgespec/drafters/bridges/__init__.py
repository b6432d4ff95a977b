"""Bridges by name: how a drafter of another vocabulary proposes the target's tokens.

Each is a strategy over the same parts: `mapping` (which tokens mean the same), `ledger` (both
contexts spell the same bytes), `ngrams` (sequences of the drafter's that are one token of the
target's). Only the chosen one is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from edgespec.config import BRIDGES
from edgespec.decode.follow import Reader
from edgespec.errors import UsageError
from edgespec.protocols import Drawing
from edgespec.types import Draft


class Bridge(Protocol):
    """Proposes target tokens with a drafter of another vocabulary.

    Built from a `mapping.Mapping` and an `ngrams.NgramCache`: every bridge takes both, and ignores
    what it does not need.
    """

    lossless: bool  # whether sampling keeps the target's law exactly
    asks: bool  # whether tokens are drafted one by one, while `reader.pays`

    def draft(
        self,
        reader: Reader,
        spelled: Sequence[int],
        context: Sequence[int],
        k: int,
        drawing: Drawing | None,
    ) -> Draft:
        """At most k target tokens to follow `context`.

        context: the target's ids. spelled: the drafter's, at least one, that spell the same text.
        drawing: None for the likeliest tokens, verified by equality; otherwise tokens are drawn
        and the draft has `probs` or `law`, unless the bridge knows no law.
        """
        ...


def find_bridge(name: str) -> Any:
    """The class a name stands for. Raises: UsageError listing the names it knows."""
    if name not in BRIDGES:
        raise UsageError(f"bridge {name!r}: expected auto, same, {', '.join(BRIDGES)}")
    return getattr(import_module(f"edgespec.drafters.bridges.{name}"), BRIDGES[name])
