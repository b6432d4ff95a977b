"""What drafts of the draft model are worth, kept between runs in the file of one text's session.

What a guess of the model's is worth is the same however many texts it drafts for. What else such a
file has is not, and stays as sessions have it: what a draft takes, and what decoding gains by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgespec.drafters.mixed import USUAL
from edgespec.pace.kept import Kept, load
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
        """See Learns. Of a source, what has seen more drafts counts."""
        sources, found = dict(saved["planner"]["sources"]), Source()
        if MODEL in sources:
            found.load(sources[MODEL])
            self.learn(found)
        self._file = saved


class KeptBeside(Kept):
    """The same file as sessions write meanwhile: what they know of the rest stays."""

    def __init__(self, file: Path, worth: Worth) -> None:
        super().__init__(file, worth)
        self._worth = worth

    def save(self, *, at_least: int = 1) -> None:
        """See Kept."""
        if self._worth.n_tested - self._n_saved >= at_least:
            load(self._file, self._worth)
            super().save(at_least=at_least)
