"""Which tokens of two vocabularies mean the same: by their bytes, or as control tokens by role."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.learned import file_of
from edgespec.drafters.bridges import split_file
from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.errors import TokenizerError
from edgespec.text.vocabulary import Vocabulary

# An answer ends more often than a text: where one id has both roles, that is the one to keep.
ROLES = ("end_of_turn", "eos", "bos")


class Mapping:
    """Between a drafter's vocabulary D and a target's T.

    image: [V_D] the target's id with the same bytes or role, -1 for none; no two have the same.
    preimage: [V_T] its inverse. cache: the folder in which splits are kept, if they are.
    """

    def __init__(self, draft: Vocabulary, target: Vocabulary, *, cache: Path | None = None) -> None:
        self.draft, self.target, self._cache = draft, target, cache
        self.image: NDArray[np.int32] = np.full(draft.n_vocab, -1, np.int32)
        self.preimage: NDArray[np.int32] = np.full(target.n_vocab, -1, np.int32)
        for piece, token in draft.by_bytes.items():
            same = target.by_bytes.get(piece)
            if same is not None:
                self.image[token], self.preimage[same] = same, token
        for role in ROLES:
            self._cross(draft.roles.get(role), target.roles.get(role))

    @cached_property
    def splits(self) -> list[tuple[int, ...]]:
        """What the target writes as 2 to 8 tokens and the drafter as one, sorted."""
        return sorted(self._splits.values())

    @cached_property
    def split_ids(self) -> NDArray[np.int32]:
        """The drafter's id of each of `splits`."""
        by_pieces = {pieces: token for token, pieces in self._splits.items()}
        return np.array([by_pieces[pieces] for pieces in self.splits], np.int32)

    def split_of(self, token: int) -> tuple[int, ...] | None:
        """The target's ids for a drafter's token that is several of them, None for any other."""
        return self._splits.get(token)

    @cached_property
    def _splits(self) -> split_file.Splits:
        if self._cache is None:
            return self._found_splits()
        draft, target = self.draft, self.target
        file = file_of(self._cache, "splits", draft.fingerprint, target.fingerprint, ".npy")
        found = split_file.load(file, draft.n_vocab, target.n_vocab)
        if found is None:
            found = self._found_splits()
            split_file.save(found, file)
        return found

    def _found_splits(self) -> split_file.Splits:
        found: split_file.Splits = {}
        for piece, token in self.draft.by_bytes.items():
            if self.image[token] < 0:
                pieces = self._split(piece)
                if pieces:
                    found[token] = pieces
        return found

    def _split(self, piece: bytes) -> tuple[int, ...] | None:
        try:
            piece.decode()
            ids = self.target.encode(piece)
        except (UnicodeDecodeError, TokenizerError):
            return None
        if not 2 <= len(ids) <= MAX_PIECES:
            return None
        # Bytes of a character that the target has no token for: long to draft, and one start for
        # thousands of characters.
        stray = all(
            self.target.pieces[i][0] >= 0x80 and len(self.target.pieces[i]) == 1 for i in ids
        )
        return None if stray else tuple(ids)

    def _cross(self, ours: int | None, theirs: int | None) -> None:
        if ours is None or theirs is None or self.image[ours] >= 0 or self.preimage[theirs] >= 0:
            return
        if self.draft.is_control(ours) and self.target.is_control(theirs):
            self.image[ours], self.preimage[theirs] = theirs, ours
