"""A drafted text in the target's tokens: what its tokenizer makes of the end of a context and of
what was drafted after it.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Sequence

from edgespec.drafters.bridges.mapping import Mapping
from edgespec.errors import TokenizerError

# Tokens of the context that are encoded again, for merges with what follows. On 2,000 cuts of a
# text between five pairs of real vocabularies 2, 4 and 10 gave the same tokens.
LOOK_BEHIND = 4


Path = tuple[int, ...]


class Retold:
    """The end of a context and the text drafted after it.

    Spaces that a vocabulary adds where a text opens are no part of it, on either side. pieces: the
    drafter's tokens so far.
    """

    def __init__(self, mapping: Mapping, context: Sequence[int], *, n_known: int = 0) -> None:
        """n_known: bytes of the context that the first pieces spell again."""
        self._draft, self._target = mapping.draft, mapping.target
        spells = self._target.pieces
        start, lowest = len(context), max(len(context) - LOOK_BEHIND, 0)
        while start > lowest and spells[context[start - 1]]:
            start -= 1
        self._opens = start == len(context)
        while start < len(context) and spells[context[start]][0] & 0xC0 == 0x80:
            start += 1  # the window would begin within a character
        self._behind = self._target.spelling(context[start:])
        self._text, self._last = b"", (b"", list[int]())
        self.pieces: list[int] = []
        self._ends: list[int] = []  # where in the text each piece that spells something ends
        self._n_again = n_known  # those that are still to come
        self._n_healed = 0  # pieces that spell any of them

    def add(self, piece: int) -> bool:
        """One more piece; False if it spells nothing, as a control token does."""
        data = self._draft.pieces[piece]
        self.pieces.append(piece)
        if not data:
            return False
        if self._n_again:
            self._n_healed = len(self.pieces)
            data, self._n_again = data[self._n_again :], max(self._n_again - len(data), 0)
        if self._opens and not self._ends and self._draft.adds_space:
            data = data.removeprefix(b" ")
        self._text += data
        self._ends.append(len(self._text))
        return True

    def reaches_over(self, piece: int) -> bool:
        """Whether with this as the text's first piece the target would write a token that began
        within the context.
        """
        data = self._draft.pieces[piece][self._n_again :]
        if self._text or self._opens or not data:
            return False
        try:
            return self._after_behind(self._read(self._behind + data)) is None
        except TokenizerError:
            return False

    def following(self) -> list[int]:
        """The target's ids for the text, up to its last whole character.

        Raises: TokenizerError if a byte has no token.
        """
        data = self._behind + self._text
        data = data[: codecs.utf_8_decode(data, "ignore", False)[1]]
        text = data[len(self._behind) :]
        if not text or self._opens:
            return self._target.encode(text, start=True)
        found = self._after_behind(self._read(data))
        # A token may reach over the end of the context; the target can no longer choose that one.
        return self._target.encode(text) if found is None else found

    def is_spelled_by(self, ids: Sequence[int]) -> bool:
        """Whether ids that follow are all of the text."""
        return self._added() + len(self._target.spelling(ids)) == len(self._text)

    def pieces_ending(self, ids: Sequence[int]) -> list[int]:
        """For each of the ids that follow, the number of the piece by which it is complete."""
        spells, end, out = self._target.pieces, self._added(), list[int]()
        for token in ids:
            end += len(spells[token])
            # What spells nothing came with the piece after the text.
            out.append(bisect_left(self._ends, end) if spells[token] else len(self._ends))
        return out

    def pieces_of_last(self, ids: Sequence[int]) -> Path:
        """The pieces that the last of the ids, which end the text, is; none if one began before."""
        start = len(self._text) - len(self._target.pieces[ids[-1]])
        first = bisect_left(self._ends, start + 1)
        begins = self._ends[first - 1] if first else 0
        return tuple(self.pieces[first:]) if begins == start and first >= self._n_healed else ()

    def spelled_by(self, ids: Sequence[int]) -> tuple[Path, ...]:
        """For each of the ids that follow its pieces, as of types.Draft.

        None for what the first piece is if it begins within the context, and none from where on
        several pieces are several ids.
        """
        spells, at, end = self._target.pieces, 0, self._added()
        found, group = list[Path](), 0
        for token in ids if self._n_healed < 2 else ():
            end, group = end + len(spells[token]), group + 1
            last = bisect_left(self._ends, end)  # the piece that the group ends in
            if not spells[token]:
                found.append(tuple(self.pieces[last + 1 :]))
            elif self._ends[last] == end:
                if last > at and (group > 1 or at < self._n_healed):
                    break
                path = self.pieces[at : last + 1] if at >= self._n_healed else ()
                found += [tuple(path), *[()] * (group - 1)]
                at = last + 1
            else:
                continue
            group = 0
        return (*found, *[()] * (len(ids) - len(found)))

    def _read(self, data: bytes) -> list[int]:
        """The target's ids for `data`, which is often asked for twice. Raises: TokenizerError."""
        if data != self._last[0]:
            self._last = data, self._target.encode(data)
        return self._last[1]

    def _added(self) -> int:
        """Less one where the target's ids spell a space more than the text has."""
        return -1 if self._opens and self._target.adds_space and self._text else 0

    def _after_behind(self, ids: Sequence[int]) -> list[int] | None:
        """Of ids for the window those after the context; None if one reaches over its end."""
        left, at = len(self._behind), 0
        while left > 0 and at < len(ids):
            left -= len(self._target.pieces[ids[at]])
            at += 1
        return None if left else list(ids[at:])
