"""AdamW over a few arrays, in place.

Dense: all of 16k rows at rank 32 take 2 ms on a core, and a step that touched only the rows with
a slope would also decay moments as no paper does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adapter import moved
from edgespec.errors import ShapeError

Floats = NDArray[np.floating[Any]]

BLOCK = 1 << 15  # numbers: five blocks of float32 stay in a core's cache


@dataclass(frozen=True)
class Settings:
    """How fast it learns; the defaults but the rate are those of OmniDraft, arXiv 2507.02659."""

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0


class AdamW:
    """Moments of some arrays, which `step` changes in place.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2, with the schedule constant;
    the decay is scaled by the rate, as torch does.
    """

    def __init__(self, arrays: Sequence[Floats], settings: Settings | None = None) -> None:
        self.settings = Settings() if settings is None else settings
        self.first = [np.zeros_like(array) for array in arrays]
        self.second = [np.zeros_like(array) for array in arrays]
        self.n_steps = 0

    def step(self, arrays: Sequence[Floats], slopes: Sequence[Floats]) -> None:
        """Move the arrays, those it was made for, against their slopes. Raises: ShapeError."""
        shapes = [part.shape for part in self.first]
        if [part.shape for part in arrays] != shapes or [part.shape for part in slopes] != shapes:
            raise ShapeError(
                f"arrays of {[part.shape for part in arrays]}: expected {shapes}; call `move` when "
                "rows change"
            )
        assert all(part.flags.c_contiguous for part in arrays)  # flattened in place below
        self.n_steps += 1
        for parts in zip(arrays, slopes, self.first, self.second, strict=True):
            flat = [part.reshape(-1) for part in parts]
            for start in range(0, flat[0].size, BLOCK):
                self._step(*(part[start : start + BLOCK] for part in flat))

    def _step(self, array: Floats, slope: Floats, first: Floats, second: Floats) -> None:
        """A block of one array; Python floats keep float32 what it is."""
        of = self.settings
        first *= of.beta1
        first += (1 - of.beta1) * slope
        second *= of.beta2
        square = slope * slope
        square *= 1 - of.beta2
        second += square
        size = np.sqrt(second, out=square)
        size /= (1 - of.beta2**self.n_steps) ** 0.5
        size += of.epsilon
        np.divide(first, size, out=size)
        size *= of.rate / (1 - of.beta1**self.n_steps)
        if of.decay:
            array *= 1 - of.rate * of.decay
        array -= size

    def move(self, index: int, origin: NDArray[np.int64]) -> None:
        """Have the moments of one array follow its rows, those of new rows zero.

        origin: [n'] as of `HeadAdapter.hold`.
        """
        self.first[index] = moved(self.first[index], origin)
        self.second[index] = moved(self.second[index], origin)
