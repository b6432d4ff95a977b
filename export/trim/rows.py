"""Which rows of a head a drafter keeps: those always needed, then the most used ones.

Knows tokenizers and counts, no models. Among tokens used equally often the one with the lower id
goes first: vocabularies are learned merge by merge, the frequent ones early.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import TokenizerError, UsageError
from edgespec.protocols import Tokenizer

Counts = NDArray[np.int64]  # [V] how often each token was seen
# Kernels take rows in groups, and take other ways where some are left over. With as many left over
# as in the whole head, kept rows are computed as before, to the last bit.
GROUP = 32
PLACEHOLDER = re.compile(rb"<\W?unused\W?_?\d+\W?>")  # Gemma has thousands that nothing writes


@dataclass(frozen=True)
class Ranking:
    """All tokens, best first. order: [V] ids. n_forced: leading ones that are always kept."""

    order: NDArray[np.int32]
    n_forced: int
    counts: Counts

    @property
    def n_vocab(self) -> int:
        return len(self.order)

    def ids(self, k: int) -> NDArray[np.int32]:
        """The k best, ascending."""
        return np.sort(self.order[:k])

    def size(self, k: int) -> int:
        """The next number of rows from `k` on that kernels treat as they treat the whole head.

        Raises: UsageError for 0, for more than there are, for fewer than are always kept.
        """
        if not 1 <= k <= self.n_vocab:
            raise UsageError(f"--keep is {k}: expected 1 to the {self.n_vocab} of the vocabulary")
        if k < self.n_forced:
            raise UsageError(
                f"--keep is {k}: expected at least {self.n_forced}, the control, byte, digit and "
                "whitespace tokens that are always kept"
            )
        return min(k + (self.n_vocab - k) % GROUP, self.n_vocab)

    def size_covering(self, share: float) -> int:
        """The least number of rows, as `size` has them, that cover this share of the counts.

        Raises: UsageError unless 0 < share <= 1, or if nothing was counted.
        """
        if not 0 < share <= 1:
            raise UsageError(f"--coverage is {share}: expected over 0, at most 1")
        reached = np.cumsum(self.counts[self.order])
        if reached[-1] == 0:
            raise UsageError("no token was counted: expected calibration text; give more of it")
        k = int(np.searchsorted(reached, share * reached[-1] - 1e-9)) + 1
        return self.size(max(k, self.n_forced))

    def coverage(self, k: int, counts: Counts) -> float:
        """Share of `counts` that the k best tokens have; 0 if there are none."""
        total = int(counts.sum())
        return float(counts[self.order[:k]].sum() / total) if total else 0.0


def count(tokenizer: Tokenizer, texts: Iterable[str], n_vocab: int) -> Counts:
    """How often each token comes in `texts`, each written on its own.

    Lines with characters that the vocabulary cannot write are left out.
    """
    found = np.zeros(n_vocab, np.int64)
    for text in texts:
        for ids in encoded(tokenizer, text):
            np.add.at(found, np.asarray(ids, np.int64), 1)
    return found


def encoded(tokenizer: Tokenizer, text: str) -> Iterator[list[int]]:
    """The ids of the text, in one piece if it can be written."""
    try:
        yield tokenizer.encode(text)
    except TokenizerError:
        lines = text.splitlines()
        if len(lines) > 1:
            for line in lines:
                yield from encoded(tokenizer, line)


def rank(
    tokenizer: Tokenizer, counts: Counts, *, target: tuple[Tokenizer, int] | None = None
) -> Ranking:
    """The tokens in the order they are kept in.

    target: another vocabulary, of n tokens, that drafts are translated to: what it cannot write
    goes first, however often counted, and of equals its own tokens stay.
    """
    n_vocab = len(counts)
    pieces = [tokenizer.piece(token) for token in range(n_vocab)]
    spellings = [
        piece or tokenizer.piece(token, special=True) for token, piece in enumerate(pieces)
    ]
    needed = np.array([always_kept(*both) for both in zip(pieces, spellings, strict=True)])
    direct = usable = np.ones(n_vocab, bool)
    if target is not None:
        direct, usable = images(pieces, spellings, *target)
        needed &= usable
    needed[list(tokenizer.stop_tokens)] = True
    if tokenizer.bos is not None:
        needed[tokenizer.bos] = True
    order = np.lexsort((np.arange(n_vocab), ~direct, -counts, ~usable, ~needed))
    return Ranking(order.astype(np.int32), int(needed.sum()), counts)


def always_kept(piece: bytes, spelling: bytes) -> bool:
    """Whether a drafter needs a token whatever is counted.

    piece: its bytes as text, none for a control token, whose name is then the spelling. True for
    control tokens, single bytes (byte tokens, and the alphabet of a byte-level vocabulary), digits
    and runs of white space.
    """
    if PLACEHOLDER.fullmatch(spelling):
        return False
    if not piece:
        return bool(spelling)
    if len(piece) == 1 or piece.strip().isdigit():
        return True
    return not piece.decode("utf-8", "replace").strip()


def images(
    pieces: list[bytes], spellings: list[bytes], target: Tokenizer, n_target: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each token whether the target has it too, and whether the target can write it at all.

    Compared as bytes; control tokens by name.
    """
    texts, names = set[bytes](), set[bytes]()
    for token in range(n_target):
        piece = target.piece(token)
        if piece:
            texts.add(piece)
        else:
            names.add(target.piece(token, special=True))
    longest = max(map(len, texts), default=0)
    writes_all = sum(len(text) == 1 for text in texts) == 256
    direct, usable = np.zeros(len(pieces), bool), np.zeros(len(pieces), bool)
    for token, (piece, spelling) in enumerate(zip(pieces, spellings, strict=True)):
        direct[token] = piece in texts if piece else spelling in names and bool(spelling)
        usable[token] = direct[token] or (
            bool(piece) and (writes_all or writable(piece, texts, longest))
        )
    return direct, usable


def writable(piece: bytes, texts: set[bytes], longest: int) -> bool:
    """Whether `piece` is a row of members of `texts`, the longest of which has `longest` bytes."""
    reached = [True] + [False] * len(piece)
    for end in range(1, len(piece) + 1):
        reached[end] = any(
            reached[start] and piece[start:end] in texts
            for start in range(max(0, end - longest), end)
        )
    return reached[-1]
