"""What was learned of a pair's acceptance, kept between runs: a fresh session begins with it.

Without it every session begins by finding out, which costs short answers most. No text is kept.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Protocol

from edgespec.errors import UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec")


class Learns(Protocol):
    """What is kept. n_tested: drafted tokens it has learned from."""

    @property
    def n_tested(self) -> int: ...

    def saved(self) -> dict[str, Any]:
        """What was learned, for a file."""
        ...

    def load(self, saved: dict[str, Any]) -> None:
        """Begin with it. Raises: KeyError, TypeError, ValueError for what was not saved."""
        ...


class Kept:
    """Implements adapt.learned.Kind: what one speculator learns, begun with the file's."""

    def __init__(self, file: Path, speculator: Learns) -> None:
        self._file, self._speculator = file, speculator
        load(file, speculator)
        self._n_saved = speculator.n_tested

    def save(self, *, at_least: int = 1) -> None:
        """Write it, if so many tokens were tested since."""
        if self._speculator.n_tested - self._n_saved < at_least:
            return
        self._n_saved = self._speculator.n_tested
        try:
            write_whole(self._file, json.dumps(self._speculator.saved()).encode(), ours=True)
        except UsageError as error:
            log.info("what was learned of acceptance is not stored: %s", error)


def load(file: Path, speculator: Learns) -> None:
    """Begin with what is in the file; one that cannot be read is as good as none."""
    try:
        speculator.load(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.info("%s is damaged (%s): acceptance is learned anew", file, error)
