"""The plain speculators: one drafter at a controller's pace, and none at all."""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.protocols import Controller, Drafter, Drawing
from edgespec.types import NO_DRAFT, Draft, Round


class Paced:
    """Implements protocols.Speculator: `drafter` drafts as many tokens as `controller` says."""

    def __init__(self, drafter: Drafter, controller: Controller) -> None:
        self.drafter, self.controller = drafter, controller
        self.name, self.most, self.n_leaves = drafter.name, controller.most, drafter.n_leaves

    @property
    def reason(self) -> str:
        """Why drafting is paused; empty while it is not."""
        return self.controller.reason

    def propose(self, context: Sequence[int], room: int, drawing: Drawing | None) -> Draft:
        if room < 1:  # a controller that is asked takes no draft for a failure
            return NO_DRAFT
        k = min(self.controller.next_length(), room)
        return self.drafter.draft(context, k, drawing) if k > 0 else NO_DRAFT

    def observe(self, done: Round) -> None:
        self.drafter.observe(done)
        self.controller.observe(done)

    def close(self) -> None:
        self.drafter.close()


class Plain:
    """Implements protocols.Speculator: plain decoding."""

    name, most, n_leaves, reason = "", 0, 1, ""

    def propose(self, context: Sequence[int], room: int, drawing: Drawing | None) -> Draft:
        return NO_DRAFT

    def observe(self, done: Round) -> None:
        """Nothing to learn."""

    def close(self) -> None:
        """Nothing to free."""
