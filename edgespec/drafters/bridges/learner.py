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
        self._new: list[tuple[tuple[int, ...], int]] = []  # since the file was read or written

    @cached_property
    def cache(self) -> NgramCache:
        """What bridges look up."""
        return load(self._path, *self._sides())

    @cached_property
    def _path(self) -> Path:
        return path_of(self._state, *self._sides())

    def __call__(self, pieces: tuple[int, ...], token: int) -> None:
        self.cache.learn(pieces, token)
        self._new.append((pieces, token))

    def save(self, *, at_least: int = 1) -> None:
        """Add what is new to the file as it is now; a warning in the log where that fails.

        at_least: fewer sightings are not worth the writing.
        """
        if len(self._new) < at_least:
            return
        sides = self._sides()
        latest = load(self._path, *sides)
        for pieces, token in self._new:
            latest.learn(pieces, token)
        self._new.clear()
        try:
            save(latest, self._path, *sides, names=self._names)
        except EdgeSpecError as error:
            log.warning("the n-grams learned were not saved: %s", error)
