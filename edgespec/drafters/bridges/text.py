"""Drafts text and lets the target's tokenizer read it: works for any two vocabularies.

No probability survives the way through text, so what is proposed is verified by equality, which
keeps the target's law whatever is proposed; the likeliest text is then the best, sampling or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

from edgespec.decode.follow import Reader
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.drafters.bridges.pieces import Pieces
from edgespec.drafters.bridges.retold import Retold
from edgespec.errors import TokenizerError
from edgespec.protocols import Drawing
from edgespec.types import Draft

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
        text = Retold(self.mapping, context)
        tokens = self._read(pieces, text, k, most)[:k]
        sure = list(accumulate(pieces.shares, mul))
        confidence = tuple(sure[n] for n in text.pieces_ending(tokens))
        sources = (self.name,) * len(tokens)
        return Draft(tuple(tokens), sources=sources, confidence=confidence)

    def _read(self, pieces: Pieces, text: Retold, k: int, most: int) -> list[int]:
        """At least k of the target's tokens, if at most so many pieces give them."""
        tokens: list[int] = []
        while len(tokens) < k and len(pieces.ids) < most:
            # Half of what is missing, then the text is read again: a piece too many costs more.
            n = min(max((k - len(tokens)) // 2, 1), most - len(pieces.ids))
            while n and text.add(pieces.say()):
                n -= 1
            try:
                tokens = text.following()
            except TokenizerError:
                break  # a byte that the target cannot write
            if n:
                end = int(self.mapping.image[pieces.ids[-1]])
                return [*tokens, end] if end >= 0 and text.is_spelled_by(tokens) else tokens
        return tokens
