"""What a prompt is about, as far as hashing tells: its last tokens, and pairs of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BITS = 12
BUCKETS = 1 << BITS
SEEN = 256  # tokens at the end of a prompt
ONE, TWO = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)  # odd, bits well mixed

Buckets = NDArray[np.int64]
"""[m] places of the features that a prompt has, rising; each of them counts as 1 / sqrt(m)."""


def features(ids: Sequence[int]) -> Buckets:
    """Those of a prompt; none of an empty one. ids: of one vocabulary.

    Source: feature hashing, Weinberger et al. 2009, arXiv 0902.2206; without signs, as few of the
    buckets are hit.
    """
    tokens = np.array(ids[-SEEN:], np.uint64)
    pairs = tokens[:-1] * TWO + tokens[1:]
    mixed = np.concatenate([tokens, pairs]) * ONE
    return np.unique(mixed >> np.uint64(64 - BITS)).astype(np.int64)
