"""The lossless bridge: direct images, cached n-grams and split tokens, with their exact law.

OmniDraft's translation (arXiv 2507.02659, section 3) with three changes. A token without an image
is split into the target's own tokens for its bytes instead of ending the draft. What cannot be
translated is not drawn in the first place. And when sampling, each proposal is compared with the
probability of having made it (`merged`), not with equation 2 of the paper, so that what is emitted
keeps the target's law. The likeliest text, which needs no law, is translated whole (`likeliest`).
"""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.decode.follow import Reader
from edgespec.drafters.bridges.likeliest import Likeliest
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.merged import DraftRows, MergedLaw, Place
from edgespec.drafters.bridges.ngrams import MAX_PIECES, NgramCache
from edgespec.drafters.bridges.units import Path, Units, walked
from edgespec.protocols import Drawing
from edgespec.types import Draft, FloatArray


class ExactBridge:
    """Implements bridges.Bridge."""

    lossless = True
    asks = True

    def __init__(self, mapping: Mapping, cache: NgramCache, *, name: str = "model") -> None:
        self.units, self.name = Units(mapping, cache), name
        self._likeliest = Likeliest(self.units, name)

    def draft(
        self,
        reader: Reader,
        spelled: Sequence[int],
        context: Sequence[int],
        k: int,
        drawing: Drawing | None,
    ) -> Draft:
        """See bridges.Bridge. Fewer than k where the drafter's context ends.

        Not drawn, and without a law, where the text's end has to be spelled again.
        """
        k = min(k, reader.room(spelled) // MAX_PIECES)
        if k < 1 or not self.units.usable.any():
            return Draft()
        if drawing is None or self._likeliest.heals(spelled):
            return self._likeliest.draft(reader, spelled, context, k)
        return self._drawn(reader, spelled, k, drawing)

    def _alone(self, piece: int) -> Path:
        """The target's tokens for one of the drafter's."""
        image = int(self.units.mapping.image[piece])
        return (image,) if image >= 0 else self.units.mapping.split_of(piece) or ()

    def _drawn(self, reader: Reader, spelled: Sequence[int], k: int, drawing: Drawing) -> Draft:
        """Units drawn one after the other; whether another is, depends on its law and those before
        it, never on what it is.
        """
        law = drawing.law.translated(self.units.mapping.preimage)
        rows = DraftRows(reader, self.units, law, spelled)
        tokens: list[int] = []
        spelled_by: list[Path] = []
        places: list[Place] = []
        confidence: list[float] = []
        sure = 1.0
        row, share = self._first(rows, reader.read(spelled), reader)
        ahead = -1  # the next unit's first token, where looking ahead has already drawn it
        while row is not None:
            sure *= share
            goes_on = reader.pays((*confidence, sure), True)
            if tokens and not goes_on:
                break
            n_before = len(rows.drafted)
            path, rest, next_ahead = self._unit(reader, rows, row, ahead, drawing)
            found = self._meaning(path)
            for n in range(len(found)):
                places.append(Place(n_before, row, found[:n]))
            tokens += found
            confidence += [sure] * len(found)
            spelled_by += [tuple(path), *[()] * (len(found) - 1)]
            rows.drafted += path
            if not goes_on or len(tokens) >= k or not reader.pays(confidence):
                break
            row, ahead = rest, next_ahead
            if row is None:
                row, share = self._first(rows, reader.step(path[-1]), reader)
            else:
                share = float(row.max()) / float(row.sum())
        tokens = tokens[:k]
        if not tokens:
            return Draft()
        sources = (self.name,) * len(tokens)
        merged = MergedLaw(self.units, rows, places)
        return Draft(
            tuple(tokens),
            sources=sources,
            confidence=tuple(confidence[:k]),
            law=merged,
            pieces=tuple(spelled_by[:k]),
        )

    def _first(
        self, rows: DraftRows, logits: FloatArray, reader: Reader
    ) -> tuple[FloatArray | None, float]:
        """The law of a unit's first token, and the likeliest one's share of all."""
        return rows.first(len(rows.drafted), logits), self._likeliest.best(
            logits, reader.columns, self.units.usable
        )[1]

    def _unit(
        self, reader: Reader, rows: DraftRows, row: FloatArray, ahead: int, drawing: Drawing
    ) -> tuple[Path, FloatArray | None, int]:
        """One unit's tokens, and if one more had to be drawn: its law given that, and itself."""
        units, n_before = self.units, len(rows.drafted)
        path: Path = (ahead if ahead >= 0 else drawing.chances.pick(row),)
        node = units.node(path[0])
        while len(onward := units.onward(node)):
            after = rows.keep(n_before, path, reader.step(path[-1]))
            token = drawing.chances.pick(after)
            deeper = units.cache.child(node, token)
            if deeper < 0:
                rest = after.copy()
                rest[onward] = 0
                return path, rest, token
            path, node = (*path, token), deeper
        return path, None, -1

    def _meaning(self, path: Path) -> Path:
        """The target's tokens for a unit."""
        if len(path) == 1:
            return self._alone(path[0])
        return (self.units.cache.token(walked(self.units, path)),)
