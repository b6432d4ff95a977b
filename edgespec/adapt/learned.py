"""What a pair has learned: several kinds, each in a file that the pair's fingerprint names.

Knows no kind; n-grams over two vocabularies are the first one (drafters/bridges/learner.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

WORTH_SAVING = 32  # sightings; a save takes some milliseconds
SHOWN = 12  # hexadecimal digits of each side's fingerprint: 48 bits


class Kind(Protocol):
    """One kind of what is learned, loaded when it is made, learning while it is used."""

    def save(self, *, at_least: int = 1) -> None:
        """Write what is new, unless it is less than `at_least`; never half, and never raising."""
        ...


class Learned:
    """All kinds of one pair in use."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = tuple(kinds)

    def save(self) -> None:
        """Write all that is new."""
        for kind in self.kinds:
            kind.save()

    def save_if_worth(self) -> None:
        """Write the kinds that have much new: between answers."""
        for kind in self.kinds:
            kind.save(at_least=WORTH_SAVING)


def file_of(state: Path, kind: str, draft: str, target: str, ending: str) -> Path:
    """Where a kind lies in the state folder; draft, target: the sides' fingerprints."""
    return state / kind / f"{draft[:SHOWN]}-{target[:SHOWN]}{ending}"
