"""The likeliest text of a drafter, in the tokens that the target would write it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.follow import Reader
from edgespec.drafters.bridges.healing import Healing
from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.drafters.bridges.retold import Retold
from edgespec.drafters.bridges.units import Units
from edgespec.errors import TokenizerError
from edgespec.types import Draft, FloatArray

Columns = NDArray[np.intp] | None
Able = NDArray[np.bool_]
PASSED_OVER = 4  # tokens at most


@dataclass
class Said:
    """What is drafted. behind: what the drafter has read before it. sure: that the pieces up to
    each are what the target will say.
    """

    behind: Sequence[int]
    text: Retold
    sure: list[float] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """All that the drafter has to read for one more."""
        return [*self.behind, *self.text.pieces]

    def add(self, piece: int, share: float) -> bool:
        """See Retold.add. share: how likely the drafter finds the piece."""
        self.sure.append(share * (self.sure[-1] if self.sure else 1.0))
        return self.text.add(piece)

    def confidence(self, tokens: Sequence[int]) -> tuple[float, ...]:
        """Of each token that follows, as of its last piece."""
        return tuple(self.sure[n] for n in self.text.pieces_ending(tokens))


class Likeliest:
    """Drafts greedily; what it proposes is verified by equality, and so has no law.

    The tokens of two vocabularies need not end at the same places: a drafter writes `{`, then a
    line break with the next line's indentation, where a target writes `{` with the break, and then
    the indentation. So the text so far is encoded as the target would, piece by piece. Its last
    token waits for one piece more where it may yet become a part of another: where an n-gram goes
    on, or the target has a token for it and a line break. At the context's end a break may be
    spelled again, see healing.
    """

    def __init__(self, units: Units, name: str) -> None:
        self._units, self._name = units, name
        self._healing = Healing(units.mapping.draft)
        self._work = np.empty(0, np.float32)

    def draft(
        self, reader: Reader, spelled: Sequence[int], context: Sequence[int], k: int
    ) -> Draft:
        """At most k tokens, see bridges.Bridge; there is room for MAX_PIECES of each."""
        said, row = self._begun(reader, spelled, context)
        tokens = self._settled(said.text)
        while len(tokens) < k and len(said.text.pieces) < k * MAX_PIECES:
            if tokens and not reader.pays(said.confidence(tokens)):
                break
            row = reader.read(said.ids) if row is None else row
            piece, share = self._next(said.text, row, reader.columns)
            if piece < 0:
                break
            if not said.add(piece, share):
                tokens = self._ended(said.text)
                break
            tokens, row = self._settled(said.text), None
        if not tokens:
            return Draft()
        return Draft(
            tuple(tokens[:k]),
            sources=(self._name,) * len(tokens[:k]),
            confidence=said.confidence(tokens[:k]),
            pieces=said.text.spelled_by(tokens)[:k],
        )

    def heals(self, spelled: Sequence[int]) -> bool:
        """Whether the last of the drafter's ids may be taken back."""
        return bool(self._healing.taken_back(spelled))

    def _begun(
        self, reader: Reader, spelled: Sequence[int], context: Sequence[int]
    ) -> tuple[Said, FloatArray | None]:
        """A draft that says nothing yet, and the logits of its first piece; or one that says what a
        break at the context's end is the beginning of.
        """
        mapping, data = self._units.mapping, self._healing.taken_back(spelled)
        plain = Said(spelled, Retold(mapping, context))
        if not data:
            return plain, reader.read(spelled)
        healed = Said(spelled[:-1], Retold(mapping, context, n_known=len(data)))
        row, left = reader.read(healed.behind), data
        other = self._next(healed.text, row, reader.columns, self._but(data, spelled[-1]))
        while left:
            piece, share = self._next(healed.text, row, reader.columns, self._healing.able(left))
            if piece < 0:
                return plain, reader.read(spelled)
            healed.add(piece, share)
            left = left[len(mapping.draft.pieces[piece]) :]
            row = reader.read(healed.ids) if left else row
        if healed.text.pieces != [spelled[-1]]:
            return healed, None
        row, stays = reader.read(spelled), healed.sure[0]
        if mapping.draft.pieces[other[0]].startswith(data) and self._leads_nowhere(
            plain.text, row, reader.columns, (1 - stays) * other[1] / stays
        ):
            healed = Said(spelled[:-1], Retold(mapping, context, n_known=len(data)))
            healed.add(*other)
            return healed, None
        return plain, row

    def _but(self, data: bytes, token: int) -> Able:
        """[V] what may stand in place of `data`, but this token."""
        able = self._healing.able(data).copy()
        able[token] = False
        return able

    def _leads_nowhere(self, text: Retold, row: FloatArray, columns: Columns, share: float) -> bool:
        """Whether the likeliest piece would grow together with the context's end, and less than
        this share is left to all others.
        """
        piece, its_share = self.best(row, columns, self._units.usable)
        return text.reaches_over(piece) and 1 - its_share < share

    def _next(
        self, text: Retold, row: FloatArray, columns: Columns, among: Able | None = None
    ) -> tuple[int, float]:
        """The likeliest piece and its share of all, or of those `among` [V]; -1 if there is none.

        At the text's beginning those are passed over that would grow together with the context's
        end: the target would have written that otherwise.
        """
        able = self._units.usable if among is None else self._units.usable & among
        piece, share = likeliest = self.best(row, columns, able, among=among is not None)
        for _ in range(PASSED_OVER):
            if piece < 0 or not text.reaches_over(piece):
                return piece, share
            able = able.copy()
            able[piece] = False
            piece, share = self.best(row, columns, able, among=among is not None)
        return likeliest

    def _settled(self, text: Retold) -> list[int]:
        """What the target writes, whatever the next piece is; nothing it has no tokens for."""
        try:
            tokens = text.following()
        except TokenizerError:
            return []
        if tokens and text.is_spelled_by(tokens) and self._is_open(text, tokens):
            tokens.pop()
        return tokens

    def _is_open(self, text: Retold, tokens: Sequence[int]) -> bool:
        """Whether the last token, which ends the text, may become a part of another."""
        target = self._units.mapping.target
        data, begun = target.pieces[tokens[-1]], text.pieces_of_last(tokens)
        if not data.isspace() and data + b"\n" in target.by_bytes:
            return True
        return 0 < len(begun) < MAX_PIECES and self._units.cache.longest(begun, 0)[2]

    def _ended(self, text: Retold) -> list[int]:
        """All that the target writes, and its token for the end of the text, if it has one."""
        try:
            tokens = text.following()
        except TokenizerError:
            return []
        image = int(self._units.mapping.image[text.pieces[-1]])
        return [*tokens, image] if image >= 0 and text.is_spelled_by(tokens) else tokens

    def best(
        self, row: FloatArray, columns: Columns, able: Able, *, among: bool = False
    ) -> tuple[int, float]:
        """The likeliest of the tokens `able` [V], and its probability among all, or among these.

        columns: ids [K] that the logits [K] are of, None if every id has its own. -1 for none.
        """
        column = int(row.argmax())
        if among or not able[column if columns is None else columns[column]]:
            some = np.where(able if columns is None else able[columns], row, -np.inf)
            column = int(some.argmax())
            if some[column] == -np.inf:
                return -1, 0.0
            row = some if among else row
        if len(self._work) != len(row):
            self._work = np.empty_like(row)
        work = np.subtract(row, row.max(), out=self._work)
        np.exp(work, out=work)
        piece = column if columns is None else int(columns[column])
        return piece, float(work[column]) / float(work.sum())
