"""The exact law of a draft whose tokens were merged and split on the way to the target.

`OmniDraft` compares the target's law with a law that only knows the n-grams that happened to be
drawn, which biases what is emitted. Here each proposed token is compared with the probability of
having proposed it, whatever the way to it; what that takes beyond the rows on the drawn path is
worked out when, and only if, a comparison depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.follow import Reader
from edgespec.decode.verify import overlap
from edgespec.drafters.bridges.units import Path, Units, by_target, walked
from edgespec.protocols import Law
from edgespec.types import Chances, FloatArray


@dataclass(frozen=True)
class Place:
    """Where one target token was proposed: at the start of a unit, or within a split token.

    n_before: drafted tokens before the unit. row: [V_D] law of the unit's first token, up to a
    factor. begun: the target's tokens that the split token has already given.
    """

    n_before: int
    row: FloatArray
    begun: Path = ()


class DraftRows:
    """Laws [V_D] of the token after a path that may still go on, drawn or not.

    drafted: the tokens that were drafted, which paths branch off from. A path that was not drawn
    costs a forward of the drafter; each is kept.
    """

    def __init__(self, reader: Reader, units: Units, law: Law, spelled: Sequence[int]) -> None:
        self._reader, self._units, self._law = reader, units, law
        self._spelled = list(spelled)
        self.drafted: list[int] = []
        self._known: dict[tuple[int, Path], FloatArray] = {}

    def first(self, n_before: int, logits: FloatArray) -> FloatArray | None:
        """The law of a unit's first token, None if the drafter gives usable tokens no chance."""
        allowed = np.where(self._units.usable, self._reader.whole(logits), -np.inf)
        if allowed.max() == -np.inf:
            return None
        return self._law(allowed, self._spelled + self.drafted[:n_before])

    def after(self, n_before: int, path: Path) -> FloatArray:
        """The law of the token after `path`, which leads on in the trie; its row if not known."""
        if (n_before, path) not in self._known:
            self._probe(n_before, path)
        return self._known[n_before, path]

    def knows(self, n_before: int, path: Path) -> bool:
        return (n_before, path) in self._known

    def keep(self, n_before: int, path: Path, logits: FloatArray) -> FloatArray:
        """The law after `path` from the drafter's logits [K] there."""
        units = self._units
        node = walked(units, path)
        onward = units.onward(node)
        logits = self._reader.whole(logits)
        if units.end(path, node) >= 0:
            mask = units.usable.copy()
            mask[onward] = True
        else:
            mask = np.zeros(len(logits), bool)
            mask[onward] = True
        before = [*self._spelled, *self.drafted[:n_before], *path]
        allowed = np.where(mask, logits, -np.inf)
        if allowed.max() == -np.inf:  # any law will do, as long as it is the one drawn from
            allowed[mask] = 0
        row = self._law(allowed, before)
        self._known[n_before, path] = row
        return row

    def _probe(self, n_before: int, path: Path) -> None:
        context = [*self._spelled, *self.drafted[:n_before], *path]
        logits = self._reader.rows(context, len(path))
        for n in range(1, len(path) + 1):
            if not self.knows(n_before, path[:n]):
                self.keep(n_before, path[:n], logits[n - 1])


class MergedLaw:
    """Implements types.DraftLaw for places and rows.

    The probability of a target's token at the start of a unit is the sum over its spellings: its
    preimage, if the unit then ends; each cached n-gram, if it then ends; each token that is split
    and begins with it. Given that tokens before it were kept, whether the unit has ended is known,
    but not which of the tokens that continue alike was drawn.
    """

    def __init__(self, units: Units, rows: DraftRows, places: Sequence[Place]) -> None:
        self._units, self._rows, self._places = units, rows, places

    def exact(self, i: int, token: int) -> float:
        """The probability with which `token` was the i-th proposal, given the ones before it."""
        place = self._places[i]
        known, pending = self._shares(place, token)
        return known + self._worked_out(place, pending)

    def keeps(self, i: int, token: int, p: float, u: float) -> bool:
        """Whether u * exact < p, by bounds where they decide."""
        place = self._places[i]
        known, pending = self._shares(place, token)
        if u * (known + sum(most for most, _ in pending)) < p:
            return True
        if u * known >= p:
            return False
        return u * (known + self._worked_out(place, pending)) < p

    def residual(self, i: int, p: FloatArray, chances: Chances) -> int:
        """A token with law (p - law i)+, by rejection from an envelope that tightens as it goes.

        The envelope leaves out what only n-grams may propose; a token that is drawn from it is
        kept with the share of its weight that remains once its own probability is known.
        """
        place = self._places[i]
        weights = np.maximum(p - self._floor(place), 0)
        settled: set[int] = set()
        while weights.any():
            token = chances.pick(weights)
            if token in settled or not self._unsettled(place, token):
                return token
            settled.add(token)
            rest = max(float(p[token]) - self.exact(i, token), 0.0)
            if chances.under(rest / float(weights[token])):
                return token
            weights[token] = rest
        return chances.pick(p)

    def shared(self, p: FloatArray) -> float | None:
        """See DraftLaw. Of what surely begins with its own token; the rest is taken to be alike."""
        floor = self._floor(self._places[0])
        return overlap(floor, p) if floor.any() else None

    def _floor(self, place: Place) -> FloatArray:
        """[V_T] at most the probability of each token: what needs no row but the place's own."""
        units, row = self._units, place.row
        if not place.begun:
            return shares_of(units.settled(row), row)
        going_on = units.parts(place.begun, longer=True)
        weights = row[units.mapping.split_ids[going_on]]
        nexts = [parts[len(place.begun)] for parts in units.mapping.splits[going_on]]
        found = by_target(np.array(nexts, np.intp), weights, units.mapping.target.n_vocab)
        return shares_of(found, weights)

    def _unsettled(self, place: Place, token: int) -> bool:
        """Whether the floor may be less than the probability of `token`."""
        if place.begun:
            return False
        paths = self._units.spellings(token)
        return any(place.row[path[0]] > 0 and self._units.opens(path[0]) for path in paths)

    def _shares(self, place: Place, token: int) -> tuple[float, list[tuple[float, Path]]]:
        """Probability of `token` that is known, and of further paths to it an upper bound each."""
        units, row = self._units, place.row
        ids = units.mapping.split_ids
        part = float(row[ids[units.parts((*place.begun, token))]].sum(dtype=np.float64))
        if place.begun:
            whole = row[ids[units.parts(place.begun, longer=True)]].sum(dtype=np.float64)
            return part / float(whole), []
        whole = row.sum(dtype=np.float64)
        known = part / float(whole)
        pending: list[tuple[float, Path]] = []
        for path in units.spellings(token):
            most = float(row[path[0]] / whole)
            if most <= 0:
                continue
            if self._known(place, path):
                known += most * self._follows(place, path)
            else:
                pending.append((most, path))
        return known, pending

    def _worked_out(self, place: Place, pending: list[tuple[float, Path]]) -> float:
        return sum(most * self._follows(place, path) for most, path in pending)

    def _known(self, place: Place, path: Path) -> bool:
        """Whether the probability of `path` needs no forward."""
        needed = [path[:n] for n in range(1, len(path))]
        if len(self._units.onward(walked(self._units, path))):
            needed.append(path)
        return all(self._rows.knows(place.n_before, part) for part in needed)

    def _follows(self, place: Place, path: Path) -> float:
        """Probability that a unit which begins with path[0] is `path`."""
        share = 1.0
        onward = self._units.onward(walked(self._units, path))
        if len(onward):
            share = ends(self._rows.after(place.n_before, path), onward)
        for n in range(len(path) - 1, 0, -1):
            row = self._rows.after(place.n_before, path[:n])
            share *= float(row[path[n]]) / float(row.sum(dtype=np.float64))
        return share


def shares_of(weights: FloatArray, row: FloatArray) -> FloatArray:
    """Weights by target token as shares of a row's sum."""
    shares: FloatArray = weights / row.sum(dtype=np.float64)
    return shares


def ends(row: FloatArray, onward: NDArray[np.intp]) -> float:
    """Share of a row that does not lead on."""
    rest = row.copy()
    rest[onward] = 0
    return float(rest.sum(dtype=np.float64)) / float(row.sum(dtype=np.float64))
