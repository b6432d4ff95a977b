"""Units: what the drafter's next tokens become in the target's vocabulary, one decision at a time.

A unit is one token of the drafter's or several. One stands for the target's token of the same
bytes (its image) or is split into several; several are an n-gram of the cache and become one.
Whether a unit goes on is decided as soon as the next token is known, so that every probability
involved lies on the path that was drawn: a token that leads on in the cache's trie goes on, any
other begins the next unit. Where a path may not end yet, only tokens that lead on are allowed.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.types import FloatArray

Path = tuple[int, ...]
NONE = np.empty(0, np.intp)


class Units:
    """The rules of one mapping and one cache; they follow the cache as it grows.

    A token that is split begins no n-gram here: the law of its parts would need the drafter's
    opinion of what follows each of them.
    """

    def __init__(self, mapping: Mapping, cache: NgramCache) -> None:
        self.mapping, self.cache = mapping, cache
        self._version = -1
        self._split = np.zeros(mapping.draft.n_vocab, bool)
        self._split[mapping.split_ids] = True
        self._alone = mapping.image.astype(np.intp)
        firsts = np.array([parts[0] for parts in mapping.splits], np.int64)
        self._alone[mapping.split_ids] = firsts

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[V_D] the drafter's tokens that can begin a unit."""
        self._follow()
        return self._usable

    def node(self, token: int) -> int:
        """The trie's node for a unit that begins with `token`, -1 if it can only be alone."""
        return -1 if self._split[token] else self.cache.child(0, token)

    def opens(self, token: int) -> bool:
        """Whether a unit that begins with `token` may go on."""
        return len(self.onward(self.node(token))) > 0

    def onward(self, node: int) -> NDArray[np.intp]:
        """Tokens that lead on from a node."""
        return NONE if node < 0 else self.cache.children(node)

    def end(self, path: Path, node: int) -> int:
        """The target's token that `path` is, -1 if the unit cannot end there; splits have none."""
        return int(self.mapping.image[path[0]]) if len(path) == 1 else self.cache.token(node)

    def parts(self, begun: Path, *, longer: bool = False) -> slice:
        """Which splits begin with these of the target's tokens; longer: and have still more."""
        splits = self.mapping.splits
        low = bisect_left(splits, begun)
        high = bisect_left(splits, (*begun[:-1], begun[-1] + 1), low)
        if longer and low < high and splits[low] == begun:
            low += 1
        return slice(low, high)

    def spellings(self, target: int) -> list[Path]:
        """The paths that end as `target`, splits left out."""
        own = int(self.mapping.preimage[target])
        found = [] if own < 0 else [(own,)]
        return found + [p for p in self.cache.spellings(target) if not self._split[p[0]]]

    def settled(self, row: FloatArray) -> FloatArray:
        """[V_T] share of row [V_D] by the target's token that a unit then surely begins with.

        Left out are tokens that may go on as an n-gram.
        """
        self._follow()
        n_targets = self.mapping.target.n_vocab
        return by_target(self._sure, row[self._sure_ids], n_targets)

    def _follow(self) -> None:
        if self._version == self.cache.version:
            return
        self._version = self.cache.version
        opening = self.cache.children(0)
        opening = opening[~self._split[opening]]
        self._usable = self._alone >= 0
        sure = self._usable.copy()
        sure[opening] = False
        self._usable[opening] = True
        self._sure_ids = np.flatnonzero(sure)
        self._sure = self._alone[self._sure_ids]


def walked(units: Units, path: Path) -> int:
    """The trie's node at the end of a unit's path, -1 if it leads nowhere."""
    node = units.node(path[0])
    for token in path[1:]:
        node = units.cache.child(node, token)
    return node


def by_target(targets: NDArray[np.intp], weights: FloatArray, n_targets: int) -> FloatArray:
    """[n_targets] sums of weights."""
    return np.asarray(np.bincount(targets, weights, n_targets), weights.dtype)
