"""Sequences of the drafter's tokens that are one token of the target's: a trie in packed arrays.

It learns from what the target emits, stays within its bytes by forgetting what was seen least,
and knows nothing of texts, vocabularies or files. Source: the n-gram cache of OmniDraft, arXiv
2507.02659, whose entries take about 230 bytes each; from the 300th on these take 28 to 40.

A node is an index, the root 0, and a child's is greater than its parent's. An edge is found by
hashing (parent, piece) into a table of nodes with open addressing. Nothing is ever removed from
it: forgetting builds the arrays anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ShapeError, UsageError

MIN_PIECES, MAX_PIECES = 2, 8
MAX_BYTES = 1 << 20
MIN_BYTES = 1 << 10
MAX_HITS = 255  # a byte; whoever is seen so often stays anyway
NODE_BYTES = 20  # parent, piece and token 4 each, hits and open 1 each, 1.5 slots of 4
FIRST_NODES = 32
# Sightings per entry between two halvings of all hits. On 140,000 sightings of Llama-3's tokens by
# Llama-2's, with room for a quarter of the entries, 4 loses 1 % of the finds and 16 none.
AGEING = 16
FORGET = 16  # one entry in so many leaves when there is no room
MEMO = 512  # nodes whose children are kept as arrays

Ids = NDArray[np.intp]
_EMPTY: Ids = np.empty(0, np.intp)
_EMPTY.flags.writeable = False


class NgramCache:
    """Entries (pieces, target): 2 to 8 ids of the drafter's that spell one id of the target's.

    version changes with every insertion and whenever entries leave; node indices hold as long as
    no entry leaves. max_bytes bounds n_bytes.
    """

    _children: dict[int, Ids]
    _firsts: tuple[Ids, Ids] | None

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        """An empty cache. Raises: UsageError for less than 1 KiB."""
        if max_bytes < MIN_BYTES:
            raise UsageError(
                f"an n-gram cache of {max_bytes} bytes: expected at least {MIN_BYTES}; give it more"
            )
        self.max_bytes = max_bytes
        self.version = 0
        self._n_entries = self._n_sightings = 0
        self._clear(FIRST_NODES)

    def __len__(self) -> int:
        return self._n_entries

    @property
    def n_bytes(self) -> int:
        """What the arrays take, their free places included; memoised results are on top."""
        arrays = (self._parents, self._pieces, self._tokens, self._hits, self._open, self._slots)
        return sum(len(one) * one.itemsize for one in arrays)

    # Looking up

    def child(self, node: int, piece: int) -> int:
        """The node one piece below `node`, -1 for none."""
        slots, parents = self._slots, self._parents
        at = (node * _A + piece * _B) % len(slots)
        while found := slots[at]:
            if parents[found] == node and self._pieces[found] == piece:
                return found
            at = (at + (1 << (piece & _STEPS))) % len(slots)
        return -1

    def token(self, node: int) -> int:
        """The target's token that the path to `node` spells, -1 where no entry ends."""
        return self._tokens[node]

    def children(self, node: int) -> Ids:
        """The pieces of a node's children, in no order; read only."""
        if not self._open[node]:
            return _EMPTY
        known = self._children.get(node)
        if known is None:
            n = self._n_nodes
            places = np.flatnonzero(_view(self._parents)[1:n] == node) + 1
            known = _view(self._pieces)[places].astype(np.intp)
            known.flags.writeable = False
            if len(self._children) >= MEMO:
                self._children.clear()
            self._children[node] = known
        return known

    def longest(self, pieces: Sequence[int], at: int) -> tuple[int, int, bool]:
        """The longest entry that begins at pieces[at]: its length, its target, and `open`.

        Length 0 and target -1 for none. open: all of pieces[at:] was walked, and there is an entry
        that goes on from there.
        """
        node, n, target = 0, 0, -1
        is_open, child = self._open, self.child
        for i in range(at, len(pieces)):
            node = child(node, pieces[i])
            if node < 0:
                return n, target, False
            if (token := self._tokens[node]) >= 0:
                n, target = i + 1 - at, token
            if not is_open[node]:
                return n, target, False
        return n, target, is_open[node] > 0

    def spellings(self, target: int) -> list[tuple[int, ...]]:
        """The pieces of every entry for `target`."""
        nodes = np.flatnonzero(_view(self._tokens)[: self._n_nodes] == target)
        return [self._path(node) for node in nodes.tolist()]

    def firsts(self) -> tuple[Ids, Ids]:
        """Of all entries the targets [m] and the first pieces [m]; read only."""
        if self._firsts is None:
            nodes = np.flatnonzero(_view(self._tokens)[: self._n_nodes] >= 0)
            targets = _view(self._tokens)[nodes].astype(np.intp)
            parents = _view(self._parents)
            while (above := parents[nodes]).any():
                nodes = np.where(above, above, nodes)
            first = _view(self._pieces)[nodes].astype(np.intp)
            targets.flags.writeable = first.flags.writeable = False
            self._firsts = targets, first
        return self._firsts

    def entries(self) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Every entry's pieces, target and hits, the oldest first."""
        for node in range(1, self._n_nodes):
            if self._tokens[node] >= 0:
                yield self._path(node), self._tokens[node], self._hits[node]

    # Learning and forgetting

    def learn(self, pieces: Sequence[int], target: int, *, hits: int = 1) -> None:
        """Insert an entry, or count that it was seen again; a sequence's last target stands.

        Raises: ShapeError unless there are 2 to 8 pieces and no id is negative.
        """
        if not MIN_PIECES <= len(pieces) <= MAX_PIECES or min(pieces) < 0 or target < 0:
            raise ShapeError(
                f"the n-gram {tuple(pieces)} for token {target}: expected {MIN_PIECES} to "
                f"{MAX_PIECES} ids, none negative"
            )
        try:
            self._learn(pieces, target, hits)
        except BaseException:  # an interrupt too: a way that ends nowhere would be walked
            self._prune(0, len(self._parents))
            raise

    def _learn(self, pieces: Sequence[int], target: int, hits: int) -> None:
        node, n = self._walk(pieces)
        if n < len(pieces) and not self._has_room(len(pieces) - n):
            self._forget()
            node, n = self._walk(pieces)  # part of the way may have left
        for piece in pieces[n:]:
            node = self._append(node, piece)
        if self._tokens[node] == target:
            hits += self._hits[node]
        else:
            self._n_entries += self._tokens[node] < 0
            self._tokens[node] = target
            self.version += 1
            self._firsts = None
        self._hits[node] = min(hits, MAX_HITS)
        self._n_sightings += 1
        if self._n_sightings >= AGEING * self._n_entries:
            self._age()

    def _walk(self, pieces: Sequence[int]) -> tuple[int, int]:
        """The deepest node on the way, and how many pieces lead to it."""
        node = 0
        for n, piece in enumerate(pieces):
            below = self.child(node, piece)
            if below < 0:
                return node, n
            node = below
        return node, len(pieces)

    def _append(self, parent: int, piece: int) -> int:
        """A new node; there must be room."""
        node = self._n_nodes
        self._parents[node], self._pieces[node], self._tokens[node] = parent, piece, -1
        self._open[parent] = 1
        slots = self._slots
        at = (parent * _A + piece * _B) % len(slots)
        while slots[at]:
            at = (at + (1 << (piece & _STEPS))) % len(slots)
        slots[at] = node
        self._n_nodes += 1
        self._children.pop(parent, None)
        return node

    def _path(self, node: int) -> tuple[int, ...]:
        out: list[int] = []
        while node:
            out.append(self._pieces[node])
            node = self._parents[node]
        return tuple(reversed(out))

    def _age(self) -> None:
        """Halve all hits, at least 1: what was often seen long ago can leave."""
        hits = _view(self._hits)
        hits -= hits >> 1
        self._n_sightings = 0

    def _has_room(self, n_new: int) -> bool:
        """Whether so many new nodes fit, in larger arrays if max_bytes allows them."""
        room, most = len(self._parents), self.max_bytes // NODE_BYTES
        needed = self._n_nodes + n_new
        if room < needed <= most:
            self._rebuild(np.arange(self._n_nodes), min(max(room + room // 16, needed + 8), most))
        return needed <= most

    def _forget(self) -> None:
        """Drop entries with the fewest hits, of equals the oldest, until any new one fits."""
        most = self.max_bytes // NODE_BYTES
        lump = max(self._n_entries // FORGET, 1)
        while self._n_nodes + MAX_PIECES > most:  # an entry on another's way frees no node
            self._prune(lump, most)

    def _prune(self, n_dropped: int, room: int) -> None:
        """Drop the entries that are worth least, and the nodes on no entry's way."""
        tokens, parents = _view(self._tokens)[: self._n_nodes], _view(self._parents)
        entries = np.flatnonzero(tokens >= 0)
        order = entries[np.argsort(_view(self._hits)[entries], kind="stable")]
        tokens[order[:n_dropped]] = -1
        keep = np.zeros(self._n_nodes, np.bool_)
        keep[0] = True
        above = order[n_dropped:]
        self._n_entries = len(above)
        while len(above):
            keep[above] = True
            above = parents[above].astype(np.intp)
            above = above[~keep[above]]
        self._rebuild(np.flatnonzero(keep), room)
        self.version += 1

    def _clear(self, room: int) -> None:
        """Arrays with the root alone and room for so many nodes."""
        self._n_nodes = 1
        self._parents = array("i", bytes(4 * room))
        self._pieces = array("i", bytes(4 * room))
        self._tokens = array("i", [-1]) * room
        self._hits, self._open = array("B", bytes(room)), array("B", bytes(room))
        n_slots = (room + (room - 1) // 2 - 1) | 1
        self._slots = array("i", bytes(4 * n_slots))  # 0: free
        self._children, self._firsts = {}, None

    def _rebuild(self, kept: Ids, room: int) -> None:
        """New arrays for the nodes `kept`, which include the root, in order."""
        old = [_view(one) for one in (self._parents, self._pieces, self._tokens, self._hits)]
        number = np.zeros(self._n_nodes, np.int32)
        number[kept] = np.arange(len(kept))
        self._clear(room)
        self._n_nodes = n = len(kept)
        new = [_view(one) for one in (self._parents, self._pieces, self._tokens, self._hits)]
        for one, before in zip(new, old, strict=True):
            one[:n] = before[kept]
        parents, pieces = new[0][:n], new[1][:n]
        parents[:] = number[parents]
        _view(self._open)[parents[1:]] = 1
        _fill(_view(self._slots), parents, pieces)


# An edge's place is (node * A + piece * B) modulo the number of slots, and from there every
# 2 ** (piece & 7)th: their number is odd, so all are reached. A and B are primes near 2 ** 30 over
# the golden ratio and over its square; sums of their products with ids below 2 ** 31 fit 63 bits.
_A, _B, _STEPS = 663608969, 410132897, 7


def _fill(slots: NDArray[np.int32], parents: NDArray[np.int32], pieces: NDArray[np.int32]) -> None:
    """Enter all nodes but the root where `child` looks for them."""
    nodes = np.arange(1, len(parents), dtype=np.int32)
    at = (parents[1:].astype(np.int64) * _A + pieces[1:].astype(np.int64) * _B) % len(slots)
    step = 1 << (pieces[1:] & _STEPS)
    while len(nodes):
        free = slots[at] == 0
        slots[at[free]] = nodes[free]  # of several that want one place one gets it
        lost = slots[at] != nodes
        nodes, step = nodes[lost], step[lost]
        at = (at[lost] + step) % len(slots)


def _view(one: array[int]) -> NDArray[np.int32]:
    """The same memory for numpy; single numbers are read faster from the array itself."""
    return np.frombuffer(one, one.typecode)
