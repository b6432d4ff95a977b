"""What a pair's topics are, as files: the versions of each one's head, and the map that routes.

A map that does not check is set aside and begun anew; the heads stay, as each answer asks them all.
"""

from __future__ import annotations

import io
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgespec.adapt import adapter_file, learned
from edgespec.adapt.adapter_file import BUDGET, FOLDER, AdapterFiles, Saved
from edgespec.adapt.answer import MOST
from edgespec.adapt.familiar import Familiar
from edgespec.adapt.features import BUCKETS
from edgespec.adapt.learned import file_of
from edgespec.adapt.router import Router
from edgespec.adapt.seal import check_stored, opened, sealed
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec")

FORMAT, ENDING = b"edgespec topics 1 ", ".topics"
MOST_BYTES = 1 << 20  # of a file: it has 150 kB


@dataclass(frozen=True)
class Map:
    """What routes prompts to topics."""

    router: Router
    familiar: Familiar


class TopicFiles:
    """Those of one pair. draft, target: fingerprints; state: the folder of all pairs."""

    def __init__(self, state: Path, draft: str, target: str) -> None:
        self.heads = [
            AdapterFiles(state, draft, target, topic=topic, budget_bytes=BUDGET // MOST)
            for topic in range(MOST)
        ]
        self.map = file_of(state, FOLDER, draft, target, ENDING)

    def topics(self) -> list[int]:
        """Those that have a head."""
        return [topic for topic, files in enumerate(self.heads) if files.versions()]

    def files(self) -> list[Path]:
        """All there are, what was set aside and what a process that was killed left included."""
        return learned.files_of(self.map)

    def take(self, heads: dict[int, Saved], known: Map | None) -> None:
        """Keep these heads, by topic, and this map in place of what there is. Raises: UsageError.

        First the heads are saved: who is killed meanwhile has more than he needs, not less.
        """
        for topic, files in enumerate(self.heads):
            if topic in heads:
                saved = heads[topic]
                n_columns = saved.head.n_columns
                files.save(saved.adapter, saved.head.days, n_columns=n_columns)
        for topic, files in enumerate(self.heads):
            if topic not in heads:
                files.remove()
        self.map.unlink(missing_ok=True)
        if known is not None:
            self.save_map(known)

    def save_map(self, what: Map) -> None:
        """Write the map; never raises."""
        learned.sweep(self.map)
        try:
            write_whole(self.map, packed(what), ours=True)
        except UsageError as error:
            log.info("which topics prompts are of is not stored: %s", error)

    def load_map(self) -> Map:
        """The map as it was saved, else a new one."""
        try:
            return read(self.map)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s: %s: topics are learned anew", self.map, error.strerror)
        except ModelFileError as error:
            log.warning("%s; topics are learned anew", error)
            learned.set_aside(self.map)
        return new_map()


def files_in(state: Path) -> list[Path]:
    """Heads and maps of all pairs, what was set aside, and parts."""
    return learned.files_in(state, FOLDER, ENDING, adapter_file.ENDING)


def new_map() -> Map:
    """One that knows nothing."""
    return Map(Router(MOST + 1), Familiar(MOST))


def read(path: Path) -> Map:
    """A map. Raises: ModelFileError, OSError."""
    if path.stat().st_size > MOST_BYTES:
        raise ModelFileError(f"{path} is too large for topics: expected {MOST_BYTES} bytes")
    try:
        return unpacked(path.read_bytes())
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path} holds no topics that can be used ({error})") from error


def packed(what: Map) -> bytes:
    """As bytes of a file."""
    arrays, known = io.BytesIO(), what.familiar
    np.savez(
        arrays, weights=what.router.weights, counts=known.counts, usual=known.usual,
        means=known.means.astype(np.float16), seen=known.seen,
    )  # fmt: skip
    return sealed(FORMAT, arrays.getvalue())


def unpacked(data: bytes) -> Map:
    """What `packed` made. Raises: ValueError and others where the bytes are not those."""
    arrays, what = opened(FORMAT, data), new_map()
    check_stored(arrays)
    with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
        found = {name: file[name] for name in ("weights", "counts", "usual", "means", "seen")}
    shapes = [(MOST + 1, BUCKETS), (MOST,), (MOST,), (MOST, BUCKETS), (BUCKETS,)]
    kinds = [np.float32, np.int64, np.float32, np.float16, np.float32]
    if [(one.shape, one.dtype) for one in found.values()] != list(zip(shapes, kinds, strict=True)):
        raise ValueError("arrays of other sizes")
    if not all(np.isfinite(one).all() for one in found.values()):
        raise ValueError("not all of its values are finite")
    if any((found[name] < 0).any() for name in ("counts", "means", "seen")):
        raise ValueError("counts below 0")
    what.router.weights = found["weights"]
    known = what.familiar
    known.counts, known.usual, known.seen = found["counts"], found["usual"], found["seen"]
    known.means = found["means"].astype(np.float32)
    return what
