"""How much of a target's vocabulary and text a drafter of another vocabulary can propose."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Shares:
    """Of the target's tokens in a text: proposed by images, with n-grams too, with splits too."""

    direct: float
    cached: float
    split: float


@dataclass(frozen=True)
class Coverage:
    """Shares of 1. draft, target: tokens of each vocabulary with a counterpart, of all that spell.

    possible: some way leads to the token, whatever the drafter's habits. natural: it is what the
    drafter's own tokens of the same text become, so a drafter that has the text right proposes it.
    """

    draft: float
    target: float
    n_tokens: int
    possible: Shares
    natural: Shares


def coverage(mapping: Mapping, texts: Iterable[bytes], cached: Collection[int]) -> Coverage:
    """The figures of one pair. cached: the target's tokens that n-grams stand for."""
    possible, natural, n_tokens = np.zeros(3), np.zeros(3), 0
    merged = np.zeros(mapping.target.n_vocab, bool)
    merged[list(cached)] = True
    splits = set(mapping.splits)
    for text in texts:
        ids = mapping.target.encode(text, start=True)
        ways = _ways(mapping, ids, merged, splits)
        possible += np.count_nonzero(ways, axis=1)
        natural += np.count_nonzero(_habits(mapping, text, ids, merged), axis=1)
        n_tokens += len(ids)
    n_draft, n_target = len(mapping.draft.by_bytes), len(mapping.target.by_bytes)
    n_direct = sum(int(mapping.image[t]) >= 0 for t in mapping.draft.by_bytes.values())
    total = max(n_tokens, 1)
    return Coverage(
        draft=n_direct / max(n_draft, 1),
        target=n_direct / max(n_target, 1),
        n_tokens=n_tokens,
        possible=Shares(*(float(n) for n in possible.cumsum() / total)),
        natural=Shares(*(float(n) for n in natural.cumsum() / total)),
    )


def _ways(
    mapping: Mapping, ids: list[int], merged: NDArray[np.bool_], splits: set[tuple[int, ...]]
) -> NDArray[np.bool_]:
    """[3, n] whether each token has an image's way, else an n-gram's, else a split's."""
    tokens = np.array(ids, np.intp)
    direct = mapping.preimage[tokens] >= 0
    cached = merged[tokens] & ~direct
    split = np.zeros(len(ids), bool)
    for at in range(len(ids)):
        if not (direct[at : at + MAX_PIECES] | cached[at : at + MAX_PIECES]).all():
            for end in range(at + 2, min(at + MAX_PIECES, len(ids)) + 1):
                if tuple(ids[at:end]) in splits:
                    split[at:end] = True
    return np.stack([direct, cached, split & ~direct & ~cached])


def _habits(
    mapping: Mapping, text: bytes, ids: list[int], merged: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """[3, n] whether each token is one of the drafter's own for `text`, several, or part of one.

    Several only where the n-gram is known, part only where the split is.
    """
    own = mapping.draft.encode(text, start=True)
    theirs, ours = _ends(mapping.target, ids), _ends(mapping.draft, own)
    found = np.zeros((3, len(ids)), bool)
    i = j = 0  # both sides have been spelled up to here
    for end in np.intersect1d(theirs, ours).tolist():
        n, m = np.searchsorted(theirs, end, "right"), np.searchsorted(ours, end, "right")
        if m - j == 1 and n - i == 1:
            found[0, i] = mapping.image[own[j]] == ids[i]
        elif n - i == 1:
            found[1, i] = m - j <= MAX_PIECES and merged[ids[i]]
        elif m - j == 1:
            found[2, i:n] = mapping.split_of(own[j]) == tuple(ids[i:n])
        i, j = n, m
    return found


def _ends(side: Vocabulary, ids: list[int]) -> NDArray[np.intp]:
    """Bytes of the text after each id, a space that the vocabulary added not counted."""
    sizes = np.fromiter((len(side.pieces[token]) for token in ids), np.intp, len(ids))
    return sizes.cumsum() - side.adds_space
