"""Drafts text and lets the target's tokenizer read it: works for any two vocabularies.

No probability survives the way through text, so what is proposed is verified by equality, which
keeps the target's law whatever is proposed; the likeliest text is then the best, sampling or not.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import mul

from edgespec.decode.follow import Reader
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.drafters.bridges.pieces import Pieces
from edgespec.errors import TokenizerError
from edgespec.protocols import Drawing
from edgespec.types import Draft

# Tokens of the context that are encoded again, for merges with what follows. On 2,000 cuts of a
# text between five pairs of real vocabularies 2, 4 and 10 gave the same tokens.
LOOK_BEHIND = 4
MAX_PIECES = 4  # drafted per proposed token; long runs of spaces take more


class TextBridge:
    """Implements bridges.Bridge: a round trip through the text.

    The draft is spelled, encoded for the target together with the end of the context, and what
    follows that end is proposed. Where it lies is known in bytes; the longest diagonal of the
    matrix of equal ids, by which strings are aligned, takes a repeated token for another.
    Source: universal assisted generation of HF transformers 4.46; string-level exact match in
    Timor et al. 2025, arXiv 2502.05202, algorithm 2, which draws the text: that is accepted with
    the share sum(p q) in place of p at q's largest.
    """

    lossless = True
    asks = False

    def __init__(self, mapping: Mapping, cache: NgramCache, *, name: str = "model") -> None:
        """cache: not used."""
        self.mapping, self.name = mapping, name

    def draft(
        self,
        reader: Reader,
        spelled: Sequence[int],
        context: Sequence[int],
        k: int,
        drawing: Drawing | None,
    ) -> Draft:
        """See bridges.Bridge. Never drawn, and never with a law."""
        most = min(MAX_PIECES * k, reader.room(spelled))
        if most < 1:
            return Draft()
        pieces = Pieces(reader, spelled, None, self.mapping.preimage)
        window = Window(self.mapping, context)
        tokens = self._read(pieces, window, k, most)[:k]
        sure = list(accumulate(pieces.shares, mul))
        confidence = tuple(sure[n] for n in window.pieces_ending(tokens))
        sources = (self.name,) * len(tokens)
        return Draft(tuple(tokens), sources=sources, confidence=confidence)

    def _read(self, pieces: Pieces, window: Window, k: int, most: int) -> list[int]:
        """At least k of the target's tokens, if at most so many pieces give them."""
        tokens: list[int] = []
        while len(tokens) < k and len(pieces.ids) < most:
            # Half of what is missing, then the text is read again: a piece too many costs more.
            n = min(max((k - len(tokens)) // 2, 1), most - len(pieces.ids))
            while n and window.add(pieces.say()):
                n -= 1
            try:
                tokens = window.following()
            except TokenizerError:
                break  # a byte that the target cannot write
            if n:
                end = int(self.mapping.image[pieces.ids[-1]])
                return [*tokens, end] if end >= 0 and window.is_spelled_by(tokens) else tokens
        return tokens


class Window:
    """The end of a context and the text drafted after it.

    Spaces that a vocabulary adds where a text opens are no part of it, on either side.
    """

    def __init__(self, mapping: Mapping, context: Sequence[int]) -> None:
        self._draft, self._target = mapping.draft, mapping.target
        spells = self._target.pieces
        start, lowest = len(context), max(len(context) - LOOK_BEHIND, 0)
        while start > lowest and spells[context[start - 1]]:
            start -= 1
        self._opens = start == len(context)
        while start < len(context) and spells[context[start]][0] & 0xC0 == 0x80:
            start += 1  # the window would begin within a character
        self._behind = self._target.spelling(context[start:])
        self._text = b""
        self._ends: list[int] = []  # where in the text each piece ends

    def add(self, piece: int) -> bool:
        """One more piece; False if it spells nothing, as a control token does."""
        data = self._draft.pieces[piece]
        if not data:
            return False
        if self._opens and not self._ends and self._draft.adds_space:
            data = data.removeprefix(b" ")
        self._text += data
        self._ends.append(len(self._text))
        return True

    def following(self) -> list[int]:
        """The target's ids for the text, up to its last whole character.

        Raises: TokenizerError if a byte has no token.
        """
        data = self._behind + self._text
        data = data[: codecs.utf_8_decode(data, "ignore", False)[1]]
        text = data[len(self._behind) :]
        if not text or self._opens:
            return self._target.encode(text, start=True)
        found = self._after_behind(self._target.encode(data))
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
