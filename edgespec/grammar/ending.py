"""A constraint whose text always ends in time: no token may begin what cannot be finished.

Peers cut an answer in JSON where the token limit falls, and it does not parse. Here the grammar
also counts: near the limit only those tokens are allowed after which the shortest ending still
fits. That depends on the emitted tokens alone, so what is emitted has a law of its own like that
of any other constraint, and drafts keep it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.follow import common_prefix
from edgespec.grammar.gbnf import LONG, Grammar
from edgespec.grammar.walk import DEAD, Walk, WalkPlace
from edgespec.types import Constraint

FEW = 16  # tokens up to which each is looked at, without a table of all
MASKS = 32  # places in the grammar whose tables are kept: within a string it is the same one
MANY = 20_000  # places whose bytes are kept in a table
PIECE = 16  # bytes up to which a token counts when an ending is spelled
FAR = 1 << 30  # tokens of what has no end
Mask = NDArray[np.bool_]
Counts = NDArray[np.int32]


class Spelling(Protocol):
    """The part of a tokenizer that is needed here."""

    n_vocab: int

    @property
    def stop_tokens(self) -> Set[int]: ...

    @property
    def spelled(self) -> tuple[bytes, NDArray[np.int64]]:
        """The bytes of all tokens in a row, and where each token's end."""
        ...

    @property
    def spellings(self) -> Set[bytes]:
        """What single tokens spell that do not end a text."""
        ...

    def piece(self, token: int) -> bytes: ...


class Endings:
    """How many tokens the shortest ending takes, at any place in the grammar.

    The fewest that spell the one with the fewest bytes, `Walk.rest`: after each of those tokens
    it takes one less. With more than LONG bytes each counts as a token.
    """

    def __init__(self, walk: Walk, spelling: Spelling) -> None:
        raw, ends = spelling.spelled
        self._raw, self._ends = np.frombuffer(raw, np.uint8), ends
        self._starts = np.concatenate(([0], ends[:-1]))
        self._walk, self._spellings = walk, spelling.spellings
        self._spelled = {b"": 0}  # rests, and how many tokens spell them
        self._counts = {DEAD: FAR}
        self._forget()

    def _forget(self) -> None:
        self._places, self._numbers = [DEAD], {DEAD: 0}
        self._n_tokens = np.array([FAR], np.int32)  # [P] by a place's number
        self._next = np.zeros((1, 256), np.int32)  # [P, 256] places' numbers, -1 not yet known

    def n_tokens(self, place: WalkPlace) -> int:
        """FAR if no tokens spell it, or the text cannot end."""
        if place not in self._counts:
            self._counts[place] = self._count(place)
        return self._counts[place]

    def after(self, place: WalkPlace, ids: NDArray[np.integer]) -> Counts:
        """[n] the same after each of `ids`; FAR after one that spells nothing."""
        if len(self._places) > MANY:
            self._forget()
        starts, lengths = self._starts[ids], (self._ends - self._starts)[ids]
        at = np.where(lengths > 0, np.int32(self._number(place)), np.int32(0))
        on, i = np.flatnonzero(at), 0
        while len(on):
            at[on] = self._read(at[on], self._raw[starts[on] + i])
            i += 1
            on = on[(lengths[on] > i) & (at[on] > 0)]
        out: Counts = self._n_tokens[at]
        return out

    def _read(self, places: Counts, data: NDArray[np.uint8]) -> Counts:
        """The numbers of the places that a byte each leads to."""
        out: Counts = self._next[places, data]
        if len(new := places[out < 0]):
            for number in set(new.tolist()):
                row = np.zeros(256, np.int32)
                for first, last, place in self._walk.ways(self._places[number]):
                    row[first : last + 1] = self._number(place)
                self._next[number] = row
            out = self._next[places, data]
        return out

    def _number(self, place: WalkPlace) -> int:
        if place not in self._numbers:
            number = self._numbers[place] = len(self._places)
            self._places.append(place)
            if number == len(self._n_tokens):
                self._n_tokens = np.resize(self._n_tokens, 2 * number)
                unknown = np.full((number, 256), -1, np.int32)
                self._next = np.concatenate((self._next, unknown))
            self._n_tokens[number] = self.n_tokens(place)
        return self._numbers[place]

    def _count(self, place: WalkPlace) -> int:
        n_bytes, text = self._walk.rest(place)
        if n_bytes > LONG:
            return min(n_bytes, FAR)
        for i in range(len(text) - 1, -1, -1) if text not in self._spelled else ():
            if (rest := text[i:]) not in self._spelled:
                parts = range(1, min(PIECE, len(rest)) + 1)
                can = (self._spelled[rest[n:]] for n in parts if rest[:n] in self._spellings)
                self._spelled[rest] = min(1 + min(can, default=FAR), FAR)
        return self._spelled[text]


class Ending:
    """Implements types.Limit: `inner`, and an end within n_tokens, its stop token included.

    Nothing is held back while even the shortest ending takes more tokens than are left.
    """

    def __init__(
        self, inner: Constraint, grammar: Grammar, spelling: Spelling, n_tokens: int
    ) -> None:
        """grammar: the one that `inner` follows."""
        self.inner, self.n_tokens = inner, n_tokens
        self._spelling, self._walk = spelling, Walk(grammar)
        self._endings = Endings(self._walk, spelling)
        self._most = grammar.most_bytes() + 1  # tokens that no ending has more of
        self._stops = list(spelling.stop_tokens)
        self._path: list[int] = []
        self._places = [self._walk.start]  # after each token of the path
        self._held: set[tuple[int, ...]] = set()  # texts after which the limit refused anything
        self._forced: set[tuple[int, ...]] = set()  # of these, where it was likeliest
        self._tables: dict[int, tuple[NDArray[np.int8], Counts]] = {}  # by state

    def allowed(self, generated: Sequence[int], ids: NDArray[np.integer]) -> Mask:
        """See types.Constraint."""
        place = self._after(list(generated))
        n_left = self.n_tokens - len(generated)
        may = self._within(place, generated, ids)
        if self._most < n_left or self._endings.n_tokens(place) >= n_left:
            return may
        fits = self._endings_after(place, ids, may) < n_left
        if not fits[may].all():
            self._held.add(tuple(generated))
        return may & fits

    def note(self, generated: Sequence[int], likelier: NDArray[np.integer]) -> None:
        """See types.Limit."""
        if tuple(generated) in self._held:
            place, n_left = self._after(list(generated)), self.n_tokens - len(generated)
            endings = self._endings_after(place, likelier, np.ones(len(likelier), np.bool_))
            if ((endings >= n_left) & (endings < FAR)).any():
                self._forced.add(tuple(generated))

    def forced(self, generated: Sequence[int]) -> bool:
        """See types.Limit."""
        return any(tuple(generated[: len(text)]) == text for text in self._forced)

    def _within(self, place: WalkPlace, generated: Sequence[int], ids: NDArray[np.integer]) -> Mask:
        """What `inner` says, asked once for each place in the grammar."""
        if len(ids) <= FEW or place.begun or place.state < 0:
            return self.inner.allowed(generated, ids)
        known, _ = self._table(place.state)
        new = ids[known[ids] < 0]
        if len(new):
            known[new] = self.inner.allowed(generated, new)
        out: Mask = known[ids] > 0
        return out

    def _table(self, state: int) -> tuple[NDArray[np.int8], Counts]:
        """[V] what is known of each token after it: whether it may follow, and the ending then."""
        if state not in self._tables and len(self._tables) == MASKS:
            del self._tables[next(iter(self._tables))]
        n_vocab = self._spelling.n_vocab
        nothing = np.full(n_vocab, -1, np.int8), np.full(n_vocab, -1, np.int32)
        return self._tables.setdefault(state, nothing)

    def _endings_after(self, place: WalkPlace, ids: NDArray[np.integer], may: Mask) -> Counts:
        """[n] tokens of the shortest ending after each that may follow, and of its stop token."""
        if len(ids) <= FEW or place.begun or place.state < 0:
            return self._counted(place, ids, may)
        _, known = self._table(place.state)
        new = known[ids] < 0
        if new.any():
            known[ids[new]] = self._counted(place, ids[new], may[new])
        out: Counts = known[ids]
        return out

    def _counted(self, place: WalkPlace, ids: NDArray[np.integer], may: Mask) -> Counts:
        out, asked = np.full(len(ids), FAR, np.int32), np.flatnonzero(may)
        if len(asked) > FEW:
            out[asked] = self._endings.after(place, ids[asked]) + 1
        for i in asked if len(asked) <= FEW else np.flatnonzero(np.isin(ids, self._stops)):
            piece = self._spelling.piece(token := int(ids[i]))
            if token in self._spelling.stop_tokens:
                out[i] = 0
            elif piece:
                out[i] = self._endings.n_tokens(self._walk.read(place, piece)) + 1
        return out

    def _after(self, generated: list[int]) -> WalkPlace:
        n_same = common_prefix(self._path, generated, len(generated))
        del self._path[n_same:], self._places[n_same + 1 :]
        for token in generated[n_same:]:
            self._places.append(self._walk.read(self._places[-1], self._spelling.piece(token)))
            self._path.append(token)
        return self._places[-1]
