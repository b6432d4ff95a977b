"""Which layers a drafter can do without, and the model that has the others alone.

Layers are left out one by one, each time the one whose loss costs least of the overlap of both
laws on answers of the target; adapters heal it afterwards. Scores of an earlier round are looked at
again only where they might still win (lazy greedy, Minoux 1978), instead of all in every round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from edgespec.errors import UsageError

from ..read.checkpoint import Checkpoint, Tensor

BLOCK = re.compile(r"blk\.(\d+)\.(.+)")


def least_missed(
    n_layers: int, n_dropped: int, score: Callable[[Sequence[int]], float],
    told: Callable[[float], None],
) -> list[int]:  # fmt: skip
    """The layers to keep. score: of a model with these layers, the more the better."""
    kept = list(range(n_layers))
    if n_dropped == 0:
        return kept
    scored: list[tuple[float, int, int]] = []  # score without it, when that was, the layer
    for layer in kept:
        scored.append((score([other for other in kept if other != layer]), 0, layer))
        told(0.5 * len(scored) / n_layers)
    for turn in range(n_dropped):
        while True:
            scored.sort(key=lambda one: (-one[0], one[2]))
            _, when, layer = scored[0]
            if when == turn:
                break
            value = score([other for other in kept if other != layer])
            scored[0] = (value, turn, layer)
        kept.remove(layer)
        scored.pop(0)
        told(0.5 + 0.5 * (turn + 1) / n_dropped)
    return kept


def check_dropped(n_layers: int, n_dropped: int) -> None:
    """Raises: UsageError unless some layers are left."""
    if not 0 <= n_dropped < n_layers:
        raise UsageError(
            f"--drop-layers is {n_dropped}: expected 0 to {n_layers - 1}, as the drafter has "
            f"{n_layers} layers"
        )


class Renumbered(Mapping[str, Tensor]):
    """Tensors of a model whose layers are these, by their new numbers."""

    def __init__(self, tensors: Mapping[str, Tensor], kept: Sequence[int]) -> None:
        self._tensors = tensors
        new = {old: i for i, old in enumerate(kept)}
        self._names = dict[str, str]()
        for name in tensors:
            found = BLOCK.fullmatch(name)
            if found is None:
                self._names[name] = name
            elif int(found[1]) in new:
                self._names[f"blk.{new[int(found[1])]}.{found[2]}"] = name

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def with_layers(base: Checkpoint, kept: Sequence[int]) -> Checkpoint:
    """The model with these of its layers."""
    decoder = replace(base.decoder, n_layers=len(kept))
    return replace(base, decoder=decoder, tensors=Renumbered(base.tensors, kept))
