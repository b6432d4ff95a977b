"""What drafts of the draft model are worth, kept between runs in the file of one text's session.

What a guess of the model's is worth is the same however many texts it drafts for. What else such a
file has is not, and stays as it is: what a draft takes, and what decoding gains by it.
"""

from __future__ import annotations

from typing import Any

from edgespec.drafters.mixed import USUAL
from edgespec.pace.source import Source

MODEL = "model"


class Worth:
    """Implements pace.kept.Learns: `source` is what the text that has seen most drafts knows."""

    def __init__(self) -> None:
        self.source = Source()
        planner = {"gain": 1.0, "sources": {}}
        self._file: dict[str, Any] = {"planner": planner, "usual": USUAL, "steps": {}, "reads": {}}

    def learn(self, source: Source) -> None:
        """What a text has learned so far."""
        if source.n_tested > self.source.n_tested:
            self.source.load(source.saved())

    @property
    def n_tested(self) -> int:
        """See Learns."""
        return self.source.n_tested

    def saved(self) -> dict[str, Any]:
        """See Learns."""
        planner = self._file["planner"]
        sources = {**planner["sources"], MODEL: self.source.saved()}
        return {**self._file, "planner": {**planner, "sources": sources}}

    def load(self, saved: dict[str, Any]) -> None:
        """See Learns."""
        sources = dict(saved["planner"]["sources"])
        if MODEL in sources:
            self.source.load(sources[MODEL])
        self._file = saved
