"""Which tokens are split into which, as a file in the cache: finding out takes 200 ms a pair."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np

from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.errors import UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec")

Splits = dict[int, tuple[int, ...]]
"""The target's ids for a drafter's token."""


def load(file: Path, n_draft: int, n_target: int) -> Splits | None:
    """What `file` holds; None if there is none or it is damaged."""
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if rows.dtype != np.int32 or rows.ndim != 2 or rows.shape[1] != 1 + MAX_PIECES:
        return None
    tokens, parts = rows[:, 0], rows[:, 1:]
    sound = (tokens >= 0).all() and (tokens < n_draft).all() and (parts < n_target).all()
    if not sound or (parts[:, :2] < 0).any():
        return None
    counts = (parts >= 0).sum(1).tolist()
    found = zip(tokens.tolist(), parts.tolist(), counts, strict=True)
    return {token: tuple(row[:n]) for token, row, n in found}


def save(splits: Splits, file: Path) -> None:
    """Write them whole; where that fails they are found again next time."""
    rows = np.full((len(splits), 1 + MAX_PIECES), -1, np.int32)
    for row, (token, parts) in zip(rows, splits.items(), strict=True):
        row[: 1 + len(parts)] = (token, *parts)
    buffer = io.BytesIO()
    np.save(buffer, rows)
    try:
        write_whole(file, buffer.getvalue(), ours=True)
    except UsageError as error:
        log.info("split tokens not stored: %s", error)
