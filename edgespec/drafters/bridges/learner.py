"""Keeps what a drafter learns of its target's tokens, beside what others learned meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from edgespec.drafters.bridges.ngram_file import load, path_of, save
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.errors import EdgeSpecError
from edgespec.text.vocabulary import Vocabulary

log = logging.getLogger("edgespec")


class Learner:
    """Implements adapt.learned.Kind: n-grams of two tokenizers in use, begun with the file's.

    Called with every token that was seen.
    """

    def __init__(
        self,
        sides: Callable[[], tuple[Vocabulary, Vocabulary]],
        state: Path,
        names: tuple[str, str],
    ) -> None:
        """sides: the drafter's and the target's vocabulary, asked for when the file is."""
        self._sides, self._state, self._names = sides, state, names
        # How often each was seen since the file was read or written: as many as there are n-grams
        # at most, however long nobody saves; the last seen last.
        self._new: dict[tuple[tuple[int, ...], int], int] = {}

    @cached_property
    def cache(self) -> NgramCache:
        """What bridges look up."""
        return load(self._path, *self._sides())

    @cached_property
    def _path(self) -> Path:
        return path_of(self._state, *self._sides())

    def __call__(self, pieces: tuple[int, ...], token: int) -> None:
        self.cache.learn(pieces, token)
        self._new[pieces, token] = self._new.pop((pieces, token), 0) + 1

    def save(self, *, at_least: int = 1) -> None:
        """Add what is new to the file as it is now; a warning in the log where that fails.

        at_least: fewer sightings are not worth the writing.
        """
        if sum(self._new.values()) < at_least:
            return
        sides = self._sides()
        latest = load(self._path, *sides)
        for (pieces, token), n in self._new.items():
            latest.learn(pieces, token, hits=n)
        self._new.clear()
        try:
            save(latest, self._path, *sides, names=self._names)
        except EdgeSpecError as error:
            log.warning("the n-grams learned were not saved: %s", error)
