"""Adapters as files: the last versions of one pair's, in the state folder.

A reader sees a whole version or none. One that does not check in every respect, or is of another
pair, is set aside with a warning, and the one before it counts.

A version is a line with the format's name, its number and the SHA-256 of all that follows, a line
of JSON (the head), and the arrays as npz. The newest has the highest number in its name.
"""

from __future__ import annotations

import io
import json
import logging
import re
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from edgespec.adapt import learned
from edgespec.adapt.adapter import RANKS, HeadAdapter
from edgespec.adapt.learned import file_of
from edgespec.adapt.seal import check_stored, opened, sealed
from edgespec.errors import ModelFileError, ShapeError
from edgespec.files import write_whole

log = logging.getLogger("edgespec")

FORMAT = b"edgespec head adapter 1 "
FOLDER, ENDING = "heads", ".adapter"
VERSIONS = 3
BUDGET = 64 << 20  # bytes of all versions of a pair; 49k rows at rank 64 are 13 MB each
MOST_BYTES = 1 << 28  # of a file that is read
MOST_ROWS = 1 << 21  # of a head; the largest vocabularies have an eighth of it
MOST_DAYS = 366  # the latest, in a head


@dataclass
class Day:
    """What one day's adaptation came to. before, after: accepted tokens of a round, held out."""

    n_updates: int = 0
    n_positions: int = 0
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True)
class Head:
    """Whose an adapter is, its sizes, and by days ("2026-01-31") what was learned.

    n_columns: of the head that it corrects, whose rows mean others in a trimmed one; 0: not stated.
    """

    draft: str
    target: str
    rank: int
    n_rows: int
    n_hidden: int
    days: dict[str, Day] = field(default_factory=dict)
    n_columns: int = 0


@dataclass(frozen=True)
class Saved:
    """A version: its head, and the adapter."""

    head: Head
    adapter: HeadAdapter


class AdapterFiles:
    """The versions of one pair. draft, target: fingerprints; state: the folder of all pairs.

    topic: of the first one the files are named as where there is one only.
    """

    def __init__(
        self, state: Path, draft: str, target: str, *, topic: int = 0, budget_bytes: int = BUDGET
    ) -> None:
        self._stem = file_of(state, FOLDER, draft, target, f".topic{topic}" if topic else "")
        self._pair, self._budget = (draft, target), budget_bytes

    def versions(self) -> list[Path]:
        """The files there are, the newest first."""
        name = re.compile(re.escape(self._stem.name) + r"\.(\d{8})" + re.escape(ENDING))
        with suppress(OSError):
            return sorted(
                (path for path in self._stem.parent.iterdir() if name.fullmatch(path.name)),
                reverse=True,
            )
        return []

    def save(self, adapter: HeadAdapter, days: dict[str, Day], *, n_columns: int = 0) -> Path:
        """Write the next version; the oldest leave, and old parts of others. Raises: UsageError."""
        sizes = (adapter.rank, len(adapter.rows), adapter.n_hidden)
        latest = dict(sorted(days.items())[-MOST_DAYS:])
        data = packed(Saved(Head(*self._pair, *sizes, latest, n_columns), adapter))
        before = self.versions()
        number = 1 + (int(before[0].name.split(".")[-2]) if before else 0)
        path = self._stem.with_name(f"{self._stem.name}.{number:08}{ENDING}")
        write_whole(path, data, ours=True)
        self._sweep()
        return path

    def load(self) -> Saved | None:
        """The newest version that checks; None if there is none. Sets aside what does not check."""
        for path in self.versions():
            try:
                return self.own(path)
            except FileNotFoundError:  # another process swept it
                continue
            except OSError as error:
                log.warning("%s: %s: drafting starts without it", path, error.strerror)
            except ModelFileError as error:
                log.warning("%s; drafting starts without it", error)
                learned.set_aside(path, self._stem.name)
        return None

    def remove(self) -> int:
        """Delete every version; how many there were."""
        versions = self.versions()
        for path in versions:
            path.unlink(missing_ok=True)
        return len(versions)

    def own(self, path: Path) -> Saved:
        """A version of this pair. Raises: ModelFileError, OSError."""
        saved = read(path)
        if (saved.head.draft, saved.head.target) != self._pair:
            raise ModelFileError(
                f"{path} is of models {saved.head.draft[:8]} and {saved.head.target[:8]}: expected "
                f"{self._pair[0][:8]} and {self._pair[1][:8]}; move it to where it was"
            )
        return saved

    def _sweep(self) -> None:
        """Delete versions beyond the number and the budget, but not the newest; and old parts."""
        n_bytes = 0
        for age, path in enumerate(self.versions()):
            with suppress(OSError):
                n_bytes += path.stat().st_size
                if age and (age >= VERSIONS or n_bytes > self._budget):
                    path.unlink()
        learned.sweep(self._stem)


def read(path: Path) -> Saved:
    """One version, whosever it is. Raises: ModelFileError, OSError."""
    if path.stat().st_size > MOST_BYTES:
        raise ModelFileError(f"{path} is too large for an adapter: expected {MOST_BYTES} bytes")
    try:
        return unpacked(path.read_bytes())
    except (
        ValueError, KeyError, TypeError, AttributeError, ShapeError, RecursionError, EOFError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise ModelFileError(f"{path} is no adapter that can be used ({error})") from error


def packed(saved: Saved) -> bytes:
    """As bytes of a file."""
    arrays = io.BytesIO()
    adapter = saved.adapter
    np.savez(arrays, rows=adapter.rows, down=adapter.down, up=adapter.up, bias=adapter.bias)
    body = json.dumps(asdict(saved.head)).encode() + b"\n" + arrays.getvalue()
    return sealed(FORMAT, body)


def unpacked(data: bytes) -> Saved:
    """What `packed` made. Raises: ValueError and others where the bytes are not those."""
    body = opened(FORMAT, data)
    line, _, arrays = body.partition(b"\n")  # from here on it is what somebody saved
    fields = json.loads(line)
    days = {day: Day(**counts) for day, counts in fields.pop("days").items()}
    head = Head(**fields, days=days)
    _check_days(days)
    check_stored(arrays)
    with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
        adapter = HeadAdapter(file["rows"], file["down"], file["up"], file["bias"])
    kinds = [adapter.rows.dtype, *(part.dtype for part in adapter.parameters)]
    if kinds != [np.int64, np.float32, np.float32, np.float32]:
        raise ValueError(f"arrays of {kinds}")
    sizes = adapter.rank, len(adapter.rows), adapter.n_hidden
    if type(head.n_columns) is not int:
        raise ValueError(f"a head of {head.n_columns!r:.40} columns")
    if (head.rank, head.n_rows, head.n_hidden) != sizes:
        raise ValueError("arrays of other sizes than its head says")
    if adapter.rank not in RANKS or (len(adapter.rows) and adapter.rows[-1] >= MOST_ROWS):
        raise ValueError(f"rank {adapter.rank}, rows up to {adapter.rows[-1:]}")
    if not all(np.isfinite(part).all() for part in adapter.parameters):
        raise ValueError("not all of its values are finite")
    return Saved(head, adapter)


def _check_days(days: dict[str, Day]) -> None:
    """Raises: ValueError unless all counts are numbers."""
    for day, did in days.items():
        if not all(type(n) in (int, float) for n in asdict(did).values()):
            raise ValueError(f"what {day} brought is {did}")
