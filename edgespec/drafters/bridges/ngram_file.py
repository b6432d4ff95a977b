"""An n-gram cache as a file: one per pair of tokenizers, in the state folder.

A reader sees the old file or the new one, never a part. What does not check in every respect is set
aside and never used: a wrong entry would cost every answer time, a missing one costs some.

The file is a line with the format's name and version, a line of JSON (the head), then of all m
entries the numbers of pieces u1 [m], the hits u1 [m], the targets <i4 [m] and the pieces <i4, and
last the SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt import learned
from edgespec.adapt.learned import DAMAGED, file_of
from edgespec.drafters.bridges.ngrams import MAX_BYTES, MAX_PIECES, MIN_PIECES, NgramCache
from edgespec.errors import ModelFileError
from edgespec.files import write_whole
from edgespec.text.vocabulary import Vocabulary

log = logging.getLogger("edgespec")

FORMAT = b"edgespec n-grams "
VERSION = b"1"
FOLDER, ENDING = "ngrams", ".bin"
MOST_BYTES = 1 << 28  # of a file; a cache is a mebibyte

Entry = tuple[tuple[int, ...], int, int]
"""Pieces, target and hits."""


@dataclass(frozen=True)
class Head:
    """Which tokenizers the ids are of: fingerprints, sizes, names of models; and how many entries.

    Names are for people; "" if whoever saved the cache did not say.
    """

    draft: str = ""
    target: str = ""
    n_draft: int = 0
    n_target: int = 0
    draft_name: str = ""
    target_name: str = ""
    n_entries: int = 0

    def fits(self, draft: Vocabulary, target: Vocabulary) -> bool:
        """Whether the ids are of these vocabularies."""
        pair = (draft.fingerprint, target.fingerprint, draft.n_vocab, target.n_vocab)
        return (self.draft, self.target, self.n_draft, self.n_target) == pair


def path_of(state: Path, draft: Vocabulary, target: Vocabulary) -> Path:
    """The file of a pair of tokenizers."""
    return file_of(state, FOLDER, draft.fingerprint, target.fingerprint, ENDING)


def save(
    cache: NgramCache,
    path: Path,
    draft: Vocabulary,
    target: Vocabulary,
    *,
    names: tuple[str, str] | None = None,
) -> None:
    """Write all entries. names: of the models, None for those that the file has.

    Raises: UsageError.
    """
    fingerprints, sizes = (draft.fingerprint, target.fingerprint), (draft.n_vocab, target.n_vocab)
    head = Head(*fingerprints, *sizes, *(_names(path) if names is None else names))
    data = packed(head, list(cache.entries()))
    learned.sweep(path)
    write_whole(path, data, ours=True)


def load(
    path: Path, draft: Vocabulary, target: Vocabulary, *, max_bytes: int = MAX_BYTES
) -> NgramCache:
    """The cache in `path`; an empty one if there is none, or if it is damaged or another pair's.

    Such a file is renamed to NAME.damaged, with one warning in the log.
    """
    cache = NgramCache(max_bytes=max_bytes)
    try:
        head, entries = read(path)
        check_pair(path, head, entries, draft, target)
    except FileNotFoundError:
        return cache
    except OSError as error:
        log.warning("%s: %s: drafting starts without its n-grams", path, error.strerror)
        return cache
    except ModelFileError as error:
        log.warning("%s: %s; drafting starts without n-grams", error, _set_aside(path))
        return cache
    for pieces, token, hits in entries:
        cache.learn(pieces, token, hits=hits)
    return cache


def read(path: Path) -> tuple[Head, list[Entry]]:
    """What is in a file, the oldest entry first. Raises: ModelFileError, OSError."""
    if path.stat().st_size > MOST_BYTES:
        raise ModelFileError(f"{path} is too large for an n-gram cache")
    try:
        return unpacked(path.read_bytes())
    except ValueError as error:
        raise ModelFileError(f"{path} is no n-gram cache that can be used ({error})") from error


def files_in(state: Path) -> list[Path]:
    """All caches in a state folder, and what is left of others, by name."""
    return learned.files_in(state, FOLDER, ENDING)


def packed(head: Head, entries: Sequence[Entry]) -> bytes:
    """The bytes of a file; the head's number of entries is set here."""
    columns = (
        np.array([len(pieces) for pieces, _, _ in entries], np.uint8),
        np.array([hits for _, _, hits in entries], np.uint8),
        np.array([token for _, token, _ in entries], "<i4"),
        np.array([piece for pieces, _, _ in entries for piece in pieces], "<i4"),
    )
    line = json.dumps(asdict(replace(head, n_entries=len(entries)))).encode()
    data = b"\n".join((FORMAT + VERSION, line, b"".join(one.tobytes() for one in columns)))
    return data + hashlib.sha256(data).digest()


def unpacked(data: bytes) -> tuple[Head, list[Entry]]:
    """What `packed` was given. Raises: ValueError saying what is wrong."""
    first, _, rest = data.partition(b"\n")
    if not first.startswith(FORMAT):
        raise ValueError("it does not begin as one")
    if first != FORMAT + VERSION:
        raise ValueError("another version of EdgeSpec wrote it")
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise ValueError("its checksum is wrong")
    line, _, body = rest[:-32].partition(b"\n")
    head = _head(line)
    n = head.n_entries
    if len(body) < 6 * n or len(body) % 4 != 6 * n % 4:
        raise ValueError("entries are missing")
    lengths, hits = _column(body[:n], "u1"), _column(body[n : 2 * n], "u1")
    tokens, pieces = _column(body[2 * n : 6 * n], "<i4"), _column(body[6 * n :], "<i4")
    if lengths.sum(dtype=np.int64) != len(pieces) or not _within(lengths, MIN_PIECES, MAX_PIECES):
        raise ValueError("an entry has too few or too many pieces")
    if not _within(pieces, 0, head.n_draft - 1) or not _within(tokens, 0, head.n_target - 1):
        raise ValueError("an id is none of its vocabulary")
    if not hits.all():
        raise ValueError("an entry was never seen")
    rest_of = iter(pieces.tolist())
    spelled = [tuple(islice(rest_of, n_pieces)) for n_pieces in lengths.tolist()]
    return head, list(zip(spelled, tokens.tolist(), hits.tolist(), strict=True))


def _head(line: bytes) -> Head:
    """Raises: ValueError unless all fields are there and of their types."""
    try:
        values = json.loads(line)
        head = Head(**values)
        right = all(type(values[name]) is type(blank) for name, blank in asdict(Head()).items())
        if right and head.n_entries >= 0:
            return head
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"its head is {line!r:.60}")


def _column(data: bytes, dtype: str) -> NDArray[np.int32]:
    return np.frombuffer(data, dtype) if data else np.empty(0, np.int32)


def _within(ids: NDArray[np.int32], low: int, high: int) -> bool:
    return not len(ids) or bool(low <= int(ids.min()) and int(ids.max()) <= high)


def check_pair(
    path: Path, head: Head, entries: Sequence[Entry], draft: Vocabulary, target: Vocabulary
) -> None:
    """Raises: ModelFileError unless these vocabularies' tokens spell what the entries say."""
    if not head.fits(draft, target):
        raise ModelFileError(f"{path} is of other tokenizers")
    for pieces, token, _ in entries:
        if draft.spelling(pieces) != target.pieces[token]:
            raise ModelFileError(f"{path} says that {pieces} spell {token}, which they do not")


def _names(path: Path) -> tuple[str, str]:
    try:
        head, _ = read(path)
    except (OSError, ModelFileError):
        return "", ""
    return head.draft_name, head.target_name


def _set_aside(path: Path) -> str:
    """Rename a file that cannot be used; what became of it."""
    aside = path.with_name(path.name + DAMAGED)
    try:
        os.replace(path, aside)
    except OSError as error:
        return f"it stays where it is ({error.strerror})"
    return f"it is now {aside.name}"
