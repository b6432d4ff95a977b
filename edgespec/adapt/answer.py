"""What is known of an answer while it is given, and of one that was given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.examples import Owner
from edgespec.adapt.features import Buckets

MOST = 4  # topics; OSD has five drafters
NONE = MOST  # stands for the uncorrected head beside them


@dataclass
class Answer:
    """request: its number. of: its prompt. is_strange: that is like no topic's.

    n: guesses labelled. right: [MOST + 1] positions at which each topic's head was right, at last
    the uncorrected one.
    """

    request: int
    of: Buckets
    topic: int
    owner: Owner
    is_strange: bool = False
    n: int = 0
    right: NDArray[np.float64] = field(default_factory=lambda: np.zeros(MOST + 1))
