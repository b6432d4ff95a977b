"""What an adapter makes of kept positions: logits of their slots, and the slopes on the way back.

A position keeps the logits of its slots and the mass of all other columns (examples.py). What an
adapter lifts outside the slots counts as well: its logit before is taken for the mean of the others
there. Without that nothing would ever push such a row down: a demo drafter that was taught 10,000
steps had the target's likeliest token at 0.46 of held-out positions by its slots, in use at 0.22,
because rows lifted elsewhere stood above them. A row that is hardly lifted, or lowered, counts as
it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e

import numpy as np

from edgespec.adapt.adapter import Floats, Gradients, HeadAdapter, Places
from edgespec.adapt.examples import Batch

LIFTED, HIGHEST = 1.0, 30.0  # corrections that count, and as what higher ones count


@dataclass(frozen=True)
class Lifted:
    """Held rows that are lifted outside the slots: `row` of position `line`, [k] each.

    slope: of the logarithm of all other columns' mass in this row's correction.
    """

    line: Places
    row: Places
    slope: Floats


@dataclass(frozen=True)
class Corrected:
    """z: [m, s + 1] logits of a batch's slots, at last the logarithm of all other columns' mass.

    places: [m, s] which held row each slot is, -1 for none. highest: [m] the largest logit among
    the other columns that are held.
    """

    z: Floats
    places: Places
    lifted: Lifted
    highest: Floats


def corrected(adapter: HeadAdapter, batch: Batch) -> Corrected:
    """A batch under an adapter."""
    places, z = adapter.places(batch.columns), batch.base.copy()
    change = adapter.corrections(batch.hidden)
    z[:, :-1] += np.take_along_axis(change, places, 1)  # -1 reads the spare column: 0
    np.put_along_axis(change, places, z.dtype.type(0), 1)
    n_others = np.maximum(batch.n_columns - (batch.columns >= 0).sum(axis=1), 1).astype(z.dtype)
    highest = z[:, -1] - np.log(n_others) + change.max(axis=1)
    line, row = np.nonzero(change > LIFTED)
    times = np.exp(np.minimum(change[line, row], HIGHEST)) / n_others[line]  # the others' mass
    grown = 1 + np.bincount(line, times - e / n_others[line], len(z)).astype(z.dtype)
    z[:, -1] += np.log(grown)
    return Corrected(z, places, Lifted(line, row, times / grown[line]), highest)


def backward(adapter: HeadAdapter, batch: Batch, seen: Corrected, dz: Floats) -> Gradients:
    """Slopes of a loss whose slope in `seen.z` is dz [m, s + 1].

    By a product that is dense over the rows that occur, a part of those held.
    """
    lifted, places = seen.lifted, seen.places
    occurs = np.zeros(len(adapter.rows) + 1, np.bool_)
    occurs[places] = occurs[lifted.row] = True
    occurs[-1] = False
    column = np.where(occurs, np.cumsum(occurs) - 1, -1)
    rows = np.zeros((len(dz), int(occurs.sum()) + 1), dz.dtype)  # the last for -1
    np.put_along_axis(rows, column[places], dz[:, :-1], 1)
    rows[lifted.line, column[lifted.row]] = dz[lifted.line, -1] * lifted.slope
    return adapter.backward(batch.hidden, rows[:, :-1], np.flatnonzero(occurs))
