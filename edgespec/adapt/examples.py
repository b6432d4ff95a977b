"""What a drafter is taught from: positions a target has judged, in bounded memory, the oldest out.

No text and no token before a position is kept: a hidden state, what was proposed and what the
target said. Of the drafter's logits a position keeps those of its slots and the log of the mass of
all others. Slots are the label's columns, the piece, the drafted token and the drafter's own
likeliest `n_top` others. That, not all of a row: 64 + 2 + 64 slots and 576 numbers of hidden state
are 2.2 kB, a row of 16k logits alone is 32 kB and a step on 256 of them 70 ms.

How far the slope in B is from that over all 16,384 rows (relative error of a batch of 256; a
synthetic pair whose drafter has 30 % of its mass outside 128 slots; after 60 steps):

    n_top                        0     32     64    128    256
    rest stays, reverse KL     .10    .09    .09    .08    .05
    rest stays, forward KL     .15    .09    .08    .07    .05
    rest moves with the slots  .56    .24    .20    .15    .11   (reverse KL)
    32 rows drawn from rest    .20    .16    .17    .12    .10   (reverse KL)

That is at the start. Over thousands of steps a rest that stays lets rows rise that no position
names, so what is lifted there counts (corrected.py). It is exact where the rows outside the slots
are not held. With n_top
0, 32, 64, 256 and 1024 of 4,096 columns, 200 steps brought an acceptance of .49 to .748, .753,
.756, .763 and .764; a position took 0.8, 1.0, 1.2, 2.3 and 6.9 kB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.labels import KEPT, Floats, Ints, Labels
from edgespec.errors import ShapeError, UsageError

TOP = 64  # the drafter's own likeliest columns beside the label's
BUDGET = 32 << 20  # bytes
HELD_OUT = 8  # every eighth request is not learned from,
FIRST, OF_FIRST = 16, 2  # of the first ones every other one: so many judge soon
MOST_HELD = 2048  # positions of those that are judged by
NONE = -3e4  # log probability of a slot that is not used; float16 reaches -65504


@dataclass(frozen=True)
class Slots:
    """What is kept of m rows of logits.

    columns: [m, s] of the head, -1 unused, none twice in a row. base: [m, s + 1] log probabilities
    of the slots before any correction, at last that of all other columns. labels: over slots.
    """

    columns: Ints
    base: NDArray[np.float32]
    labels: Labels


@dataclass(frozen=True)
class Batch(Slots):
    """Positions to learn from or to judge by.

    hidden: [m, d] states before the head. request: [m] which request each is of. n_columns: of the
    head.
    """

    hidden: NDArray[np.float32]
    request: Ints
    n_columns: int

    def __len__(self) -> int:
        return len(self.hidden)

    def part(self, some: slice) -> Batch:
        """Some of the positions."""
        of = self.labels
        labels = Labels(
            of.ids[some], of.probs[some], of.piece[some], of.drafted[some], of.accepted[some]
        )
        return Batch(
            self.columns[some], self.base[some], labels, self.hidden[some], self.request[some],
            self.n_columns,
        )  # fmt: skip


def slots(logits: Floats, labels: Labels, *, n_top: int = TOP) -> Slots:
    """The slots of m positions: [label's K columns, piece, drafted, n_top others].

    logits: [m, V] of the drafter, before any correction. labels: over columns of the head.
    Raises: ShapeError.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ShapeError(
            f"drafter logits are {logits.shape}: expected [{len(labels)}, V]; pass one row for "
            "each label"
        )
    piece, piece_slot = _slot_of(labels.piece, labels.ids)
    known = np.concatenate([labels.ids, piece[:, None]], axis=1)
    drafted, drafted_slot = _slot_of(labels.drafted, known)
    known = np.concatenate([known, drafted[:, None]], axis=1)
    law = _log_softmax(logits)  # [m, V + 1], the last column spare: -1 leads there
    rest = law.copy()
    np.put_along_axis(rest, known, NONE, axis=1)
    n_top = min(n_top, logits.shape[1])
    top = np.argpartition(-rest, n_top, axis=1)[:, :n_top]  # [m, n_top]
    top = np.where(np.take_along_axis(rest, top, 1) == NONE, -1, top)  # of a small vocabulary
    np.put_along_axis(rest, top, NONE, axis=1)
    columns = np.concatenate([known, top], axis=1)
    rest_mass = np.maximum(np.exp(rest).sum(axis=1, keepdims=True), np.exp(np.float32(-80)))
    base = np.concatenate([np.take_along_axis(law, columns, 1), np.log(rest_mass)], axis=1)
    ids = np.where(labels.ids < 0, -1, np.arange(labels.ids.shape[1]))
    over = Labels(ids, labels.probs, piece_slot, drafted_slot, labels.accepted)
    return Slots(columns, base, over)


def _slot_of(column: Ints, known: Ints) -> tuple[Ints, Ints]:
    """What the next slot holds, and the slot that each column is in: a known one or the next.

    column: [m], -1 none. known: [m, k]. Results: [m] the columns not known yet, else -1, and [m].
    """
    same = known == column[:, None]
    found = same.any(axis=1)
    slot = np.where(found, same.argmax(axis=1), known.shape[1])
    return np.where(found, -1, column), np.where(column < 0, -1, slot)


def _log_softmax(logits: Floats) -> NDArray[np.float32]:
    """log q [m, V + 1], the last column NONE."""
    shifted = np.asarray(logits, np.float32)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    spare = np.full((len(shifted), 1), NONE, np.float32)
    return np.concatenate([np.maximum(shifted, NONE), spare], axis=1)


@dataclass(frozen=True)
class Owner:
    """Whose a request is: a topic's; held_out: to judge its head by, not to teach it."""

    topic: int
    held_out: bool


def is_held_out(n: int) -> bool:
    """Whether a topic's n-th answer, from 0 on, is to judge its head."""
    every = OF_FIRST if n < FIRST else HELD_OUT
    return n % every == every - 1


class Examples:
    """A ring of positions within a number of bytes, which all topics share.

    Log probabilities and hidden states are float16: near 0, where they matter, an error of 1e-3.
    """

    def __init__(
        self,
        n_hidden: int,
        *,
        kept: int = KEPT,
        n_top: int = TOP,
        budget_bytes: int = BUDGET,
        held_out: int = HELD_OUT,
    ) -> None:
        n_slots = kept + 2 + n_top
        kind = np.dtype(
            [
                ("request", np.int64),
                ("topic", np.int16),
                ("held_out", np.bool_),
                ("place", np.int32),
                ("hidden", np.float16, (n_hidden,)),
                ("columns", np.int32, (n_slots,)),
                ("base", np.float16, (n_slots + 1,)),
                ("probs", np.float32, (kept,)),
                ("piece", np.int16),
                ("drafted", np.int16),
                ("accepted", np.bool_),
            ]
        )
        capacity = budget_bytes // kind.itemsize
        if capacity < 1:
            raise UsageError(
                f"{budget_bytes} bytes for examples: expected {kind.itemsize} or more, which is "
                "one; leave the budget as it is"
            )
        self._ring: NDArray[Any] = np.zeros(capacity, kind)
        self._n_added, self._kept, self._n_top, self._every = 0, kept, n_top, held_out
        self._n_columns = 0

    def __len__(self) -> int:
        return min(self._n_added, len(self._ring))

    @property
    def n_bytes(self) -> int:
        """Memory when full."""
        return self._ring.nbytes

    def n_of(self, topic: int) -> int:
        """Positions of a topic."""
        return int(self._is_of(topic).sum())

    def add(
        self,
        request: int,
        hidden: Floats,
        logits: Floats,
        labels: Labels,
        *,
        place: int = 0,
        owner: Owner | None = None,
    ) -> None:
        """Keep m positions of a request, one after the other, the first at `place` in its text.

        hidden: [m, d]. logits: [m, V] before any correction. labels: over columns of the head, of
        at most `kept` columns. owner: None where there is one topic. Raises: ShapeError.
        """
        (m, k), d = labels.ids.shape, self._ring["hidden"].shape[1]
        if k > self._kept or hidden.shape != (m, d):
            raise ShapeError(
                f"{m} labels of {k} columns and hidden states {hidden.shape}: expected at most "
                f"{self._kept} columns and [{m}, {d}]; pass one row each"
            )
        self._n_columns = int(np.isfinite(logits[-1]).sum())  # a trimmed head has no others
        of = slots(logits, _padded(labels, self._kept), n_top=self._n_top)
        new = np.zeros(m, self._ring.dtype)
        new["request"], new["hidden"] = request, hidden
        owner = owner or Owner(0, request % self._every == self._every - 1)
        new["topic"], new["held_out"] = owner.topic, owner.held_out
        new["place"] = place + np.arange(m)
        n = of.columns.shape[1]
        new["columns"], new["base"] = -1, NONE
        new["columns"][:, :n], new["base"][:, :n] = of.columns, of.base[:, :-1]
        new["base"][:, -1], new["probs"] = of.base[:, -1], of.labels.probs
        new["piece"], new["drafted"] = of.labels.piece, of.labels.drafted
        new["accepted"] = of.labels.accepted
        new = new[-len(self._ring) :]
        self._ring[(self._n_added + np.arange(len(new))) % len(self._ring)] = new
        self._n_added += len(new)

    def move(self, request: int, owner: Owner) -> None:
        """A request turns out to be another's."""
        ring = self._ring[: len(self)]
        its = ring["request"] == request
        ring["topic"][its], ring["held_out"][its] = owner.topic, owner.held_out

    def sample(self, m: int, rng: np.random.Generator, topic: int = 0) -> Batch:
        """Up to m positions of a topic to learn from, none twice, any order."""
        taught = np.flatnonzero(self._is_of(topic) & ~self._ring["held_out"][: len(self)])
        return self._batch(rng.choice(taught, min(m, len(taught)), replace=False))

    def newest(self, m: int) -> Batch:
        """The m positions that were added last, held out or not, in the order of the text."""
        first = self._n_added - min(m, len(self))
        return self._batch(self._in_order(np.arange(first, self._n_added) % len(self._ring)))

    def held_out(self, topic: int = 0) -> Batch:
        """A topic's positions that are not learned from, whole requests, the oldest first, in the
        order of their text; the latest `MOST_HELD` of them.
        """
        held = self._is_of(topic) & self._ring["held_out"][: len(self)]
        order = self._in_order(np.flatnonzero(held))
        return self._batch(order[-MOST_HELD:])

    def _in_order(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """These places of the ring by request and text; what was labelled later lies later."""
        of = self._ring[index]
        return index[np.lexsort((of["place"], of["request"]))]

    def _is_of(self, topic: int) -> NDArray[np.bool_]:
        """[len] whether a position is a topic's."""
        return np.asarray(self._ring["topic"][: len(self)] == topic)

    def _batch(self, index: NDArray[np.int64]) -> Batch:
        """The positions at these places of the ring."""
        of = self._ring[index]
        ids = np.where(of["columns"][:, : self._kept] < 0, -1, np.arange(self._kept))
        piece, drafted = of["piece"].astype(np.int64), of["drafted"].astype(np.int64)
        return Batch(
            columns=of["columns"].astype(np.int64),
            base=of["base"].astype(np.float32),
            labels=Labels(ids, of["probs"], piece, drafted, of["accepted"]),
            hidden=of["hidden"].astype(np.float32),
            request=of["request"],
            n_columns=self._n_columns,
        )


def _padded(labels: Labels, kept: int) -> Labels:
    """The same with exactly `kept` columns."""
    more = ((0, 0), (0, kept - labels.ids.shape[1]))
    ids = np.pad(labels.ids, more, constant_values=-1)
    probs = np.pad(labels.probs, more)
    return Labels(ids, probs, labels.piece, labels.drafted, labels.accepted)
