"""A constraint whose text always ends in time: no token may begin what cannot be finished.

Peers cut an answer in JSON where the token limit falls, and it does not parse. Here the grammar
also counts: near the limit only those tokens are allowed after which the shortest ending, a byte
a token at worst, still fits. That depends on the emitted tokens alone, so what is emitted has a
law of its own like that of any other constraint, and drafts keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.follow import common_prefix
from edgespec.grammar.gbnf import Grammar, Walk, WalkPlace
from edgespec.types import Constraint

FEW = 16  # tokens up to which each is looked at, without a table of all
MASKS = 32  # places in the grammar whose tables are kept: within a string it is the same one
Mask = NDArray[np.bool_]


class Spelling(Protocol):
    """The part of a tokenizer that is needed here."""

    n_vocab: int

    @property
    def stop_tokens(self) -> frozenset[int]: ...

    @property
    def spelled(self) -> tuple[bytes, NDArray[np.int64]]:
        """The bytes of all tokens in a row, and where each token's end."""
        ...

    def piece(self, token: int) -> bytes: ...


class Ending:
    """Implements types.Constraint: `inner`, and an end within n_tokens, its stop token included.

    Nothing is held back while even the shortest text has more bytes than tokens are left: it may
    still fit, since most tokens are longer than a byte.
    """

    def __init__(
        self, inner: Constraint, grammar: Grammar, spelling: Spelling, n_tokens: int
    ) -> None:
        """grammar: the one that `inner` follows."""
        self.inner, self.n_tokens = inner, n_tokens
        self._grammar, self._spelling, self._walk = grammar, spelling, Walk(grammar)
        self._path: list[int] = []
        self._places = [self._walk.start]  # after each token of the path
        self._rises: NDArray[np.int64] | None = None  # [V]
        self._masks: dict[int, tuple[Mask, Mask]] = {}  # by state, [V] each: asked, and allowed

    def allowed(self, generated: Sequence[int], ids: NDArray[np.integer]) -> Mask:
        """See types.Constraint."""
        place = self._after(list(generated))
        out = self._within(place, generated, ids)
        n_left = self.n_tokens - len(generated) - 2  # after one of these and a stop token
        if self._walk.least(place) > n_left + 1:
            return out
        unsure = np.flatnonzero(out)
        if len(unsure) > FEW:
            unsure = unsure[self._rise(ids[unsure]) > n_left - self._walk.most(place)]
        for i in unsure:
            token = int(ids[i])
            if token not in self._spelling.stop_tokens:
                after = self._walk.read(place, self._spelling.piece(token))
                out[i] = self._walk.least(after) <= n_left
        return out

    def _within(self, place: WalkPlace, generated: Sequence[int], ids: NDArray[np.integer]) -> Mask:
        """What `inner` says, asked once for each place in the grammar."""
        if len(ids) <= FEW or place.begun or place.state < 0:
            return self.inner.allowed(generated, ids)
        if place.state not in self._masks and len(self._masks) == MASKS:
            del self._masks[next(iter(self._masks))]
        n_vocab = self._spelling.n_vocab
        nothing = np.zeros(n_vocab, np.bool_), np.zeros(n_vocab, np.bool_)
        asked, mask = self._masks.setdefault(place.state, nothing)
        new = ids[~asked[ids]]
        if len(new):
            mask[new], asked[new] = self.inner.allowed(generated, new), True
        out: Mask = mask[ids]
        return out

    def _after(self, generated: list[int]) -> WalkPlace:
        n_same = common_prefix(self._path, generated, len(generated))
        del self._path[n_same:], self._places[n_same + 1 :]
        for token in generated[n_same:]:
            self._places.append(self._walk.read(self._places[-1], self._spelling.piece(token)))
            self._path.append(token)
        return self._places[-1]

    def _rise(self, ids: NDArray[np.integer]) -> NDArray[np.int64]:
        """By how much each token lengthens the shortest ending, at most."""
        if self._rises is None:
            self._rises = rises_of(self._grammar, self._spelling)
        out: NDArray[np.int64] = self._rises[ids]
        return out


def rises_of(grammar: Grammar, spelling: Spelling) -> NDArray[np.int64]:
    """[V] the sum over each token's characters, and what a character that is not over takes."""
    raw, ends = spelling.spelled
    by_byte = grammar.rises()
    by_byte[:0x80] -= 1  # the character itself is then no longer to come
    by_byte[0x80:0xC0] = 0  # counted with the first byte
    sums = np.concatenate(([0], np.cumsum(by_byte[np.frombuffer(raw, np.uint8)])))
    out: NDArray[np.int64] = np.diff(sums[ends], prepend=0) + 3
    return out
