"""Keeps what a drafter learns of its target's tokens, beside what others learned meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path

from edgespec.drafters.bridges.ngram_file import load, save
from edgespec.errors import EdgeSpecError
from edgespec.text.vocabulary import Vocabulary

log = logging.getLogger("edgespec")


class Learner:
    """Implements adapt.learned.Kind: n-grams of two tokenizers in use, begun with the file's.

    cache: what bridges look up. Called with every token that was seen.
    """

    def __init__(
        self, path: Path, draft: Vocabulary, target: Vocabulary, names: tuple[str, str]
    ) -> None:
        self._path, self._sides, self._names = path, (draft, target), names
        self.cache = load(path, draft, target)
        self._new: list[tuple[tuple[int, ...], int]] = []  # since the file was read or written

    def __call__(self, pieces: tuple[int, ...], token: int) -> None:
        self.cache.learn(pieces, token)
        self._new.append((pieces, token))

    def save(self, *, at_least: int = 1) -> None:
        """Add what is new to the file as it is now; a warning in the log where that fails.

        at_least: fewer sightings are not worth the writing.
        """
        if len(self._new) < at_least:
            return
        latest = load(self._path, *self._sides)
        for pieces, token in self._new:
            latest.learn(pieces, token)
        self._new.clear()
        try:
            save(latest, self._path, *self._sides, names=self._names)
        except EdgeSpecError as error:
            log.warning("the n-grams learned were not saved: %s", error)
