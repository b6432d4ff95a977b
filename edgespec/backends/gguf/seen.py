"""Whether single tokens take in use what the trial of their file said they would.

If not, the choice of a way to load it may be wrong: the trial is marked, and made again at a later
start. Nothing is judged by what was seen while others computed on the same cores.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Protocol

from edgespec.backends.gguf.tried import remember, remembered
from edgespec.device import Others
from edgespec.pace.cost import quartile

log = logging.getLogger("edgespec.llamacpp")

ENOUGH, MOST = 64, 512  # tokens by which it is told, and the last ones that are looked at
SHORT = 1024  # tokens of a context: behind longer ones a token takes longer for its attention


class Cache(Protocol):
    """What a forward grows."""

    @property
    def length(self) -> int:
        """Tokens in it."""
        ...


class Seen:
    """Of one open model that was loaded by the way its trial chose; without files of none."""

    def __init__(
        self, files: Sequence[Path] = (), version: str = "", way: str = "", n_threads: int = 0
    ) -> None:
        self._files, self._version, self._way, self._n_threads = files, version, way, n_threads
        self._seconds: deque[float] = deque(maxlen=MOST)
        self._last = 0  # tokens of the last forward
        self._others: Others | None = None

    @contextmanager
    def timing(self, n: int, cache: Cache) -> Iterator[None]:
        """Around a forward of n tokens."""
        start = perf_counter()
        yield
        self.observe(n, perf_counter() - start, cache.length)

    def observe(self, n: int, seconds: float, length: int) -> None:
        """A forward of n tokens took this long, and the cache then held `length`.

        Only a single one after a single one is plain decoding, which the trial has timed.
        """
        if n == self._last == 1 and length <= SHORT and self._files:
            if self._others is None:
                self._others = Others(process_time)
            self._seconds.append(seconds)
        self._last = n

    def tell(self) -> None:
        """Mark the trial if enough was seen on a quiet device that contradicts it."""
        if len(self._seconds) < ENOUGH or self._others is None or self._others.compute:
            return
        tried = remembered(self._files, self._version)
        if tried is None or tried.doubt.since or tried.n_threads != self._n_threads:
            return
        why = tried.contradicts(self._way, quartile(self._seconds))
        if why:
            log.info("%s: %s: it is tried again later", self._files[0].name, why)
            remember(self._files, self._version, replace(tried, doubt=tried.doubt.raised(why)))
