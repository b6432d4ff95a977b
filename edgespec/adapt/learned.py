"""What a pair has learned: several kinds, each in a file that the pair's fingerprint names.

Knows no kind; n-grams over two vocabularies are the first one (drafters/bridges/learner.py).
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edgespec.files import PART

WORTH_SAVING = 32  # sightings; a save takes some milliseconds
DAMAGED = ".damaged"  # ends the name of a file that was set aside
STALE_S = 3600.0  # a part this old is of a process that was killed
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


def files_in(state: Path, kind: str, *endings: str) -> list[Path]:
    """A kind's files of all pairs, what was set aside, and parts: `is_being_written` tells."""
    ours = (*endings, DAMAGED, PART)
    return sorted(file for file in (state / kind).glob("*") if file.suffix in ours)


def files_of(path: Path, ending: str = "") -> list[Path]:
    """All of the pair that `path` is of, of its kind, what was set aside and parts included."""
    pair = glob.escape(path.name.partition(".")[0])
    return sorted(path.parent.glob(f"{pair}.*{ending}"))


def set_aside(path: Path, stem: str = "") -> None:
    """Give a file that does not check the name under which it counts as none.

    stem: the name's beginning, where it is not all of the file's.
    """
    with suppress(OSError):
        os.replace(path, path.with_name((stem or path.name) + DAMAGED))


def is_being_written(file: Path) -> bool:
    """Whether it is a part of a file that a process may still finish."""
    try:
        return file.suffix == PART and time.time() - file.stat().st_mtime <= STALE_S
    except OSError:  # it has finished
        return True


def sweep(path: Path) -> None:
    """Delete parts of the pair that `path` is of which nobody writes any more."""
    for part in files_of(path, PART):
        with suppress(OSError):  # another process may have been faster
            if not is_being_written(part):
                part.unlink()
