"""Pages of a mapped file that were read are left to the kernel, so that they do not count twice.

Where weights are reordered llama.cpp reads them from the mapped file into memory of its own, and
both stay resident: 2.2 GB for a pair of 1.2 GB. A page given back is read again from the kernel's
cache, should it be needed. On Linux and Android; elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MAPS = Path("/proc/self/maps")
DONT_NEED = 4  # MADV_DONTNEED; of a file that is mapped for reading nothing is lost
STEP = 1 / 16  # of loading, after which pages are given back


class ReadPages:
    """Gives back what was read of some files while they are loaded; then calls `tell`, if any."""

    def __init__(self, paths: Sequence[Path], tell: Callable[[float], None] | None) -> None:
        self._paths = {os.fsencode(path.resolve()) for path in paths}
        self._tell = tell
        self._next = 0.0

    def __call__(self, share: float) -> None:
        if share >= min(self._next, 1.0):
            self._next = share + STEP
            self.give_back()
        if self._tell is not None:
            self._tell(share)

    def give_back(self) -> None:
        """Leave all mapped pages of the files to the kernel."""
        for start, end in list(self._ranges()):
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(start), ctypes.c_size_t(end - start), DONT_NEED
            )

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Addresses of the files' mapped parts, from where to where."""
        if not MAPS.exists():
            return
        for line in MAPS.read_bytes().splitlines():
            place, *_, path = line.split(maxsplit=5)
            if path in self._paths:
                start, end = place.split(b"-")
                yield int(start, 16), int(end, 16)
