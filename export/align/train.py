"""The training loop: lessons in batches, by a recipe, with checkpoints to go on from."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgespec.adapt import learned
from edgespec.adapt.labels import Labels, only_pieces
from edgespec.adapt.losses import Loss
from edgespec.adapt.trainer import most_above
from edgespec.types import Progress

from ..gguf.file import replacing
from .lesson import Lesson
from .network import Network
from .recipes import Kind, Recipe

log = logging.getLogger("edgespec")

CHUNK = 256  # rows of logits at once; TVD++ makes its rewards even within these
CHECKPOINT_S = 120.0
SLACK = 1 << 20  # bytes of a checkpoint that are no numbers


@dataclass(frozen=True)
class Scores:
    """agreement: how often the drafter's likeliest token is the target's. overlap: the mean of
    sum min(p, q). Both where the target's law is known."""

    agreement: float
    overlap: float
    n: int


def batches(lessons: Sequence[Lesson], recipe: Recipe) -> list[list[Lesson]]:
    """All epochs, each in an order of its own, lessons of like length together."""
    rng = np.random.default_rng(recipe.seed)
    out = list[list[Lesson]]()
    for _ in range(recipe.epochs):
        jitter = [len(one.ids) * (1 + 0.2 * rng.random()) for one in lessons]
        order = [lessons[i] for i in np.argsort(jitter)]
        made = list(filled(order, recipe.tokens))
        out += [made[i] for i in rng.permutation(len(made))]
    return out


def filled(lessons: Sequence[Lesson], tokens: int) -> Iterator[list[Lesson]]:
    """Batches of at most so many tokens, padding included, one lesson at least."""
    batch = list[Lesson]()
    for one in lessons:
        longest = max([len(other.ids) for other in batch], default=0)
        if batch and (len(batch) + 1) * max(longest, len(one.ids)) > tokens:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def teach(
    network: Network, lessons: Sequence[Lesson], recipe: Recipe, checkpoint: Path,
    progress: Progress, *, of: str,
) -> None:  # fmt: skip
    """Teach the network, and before it a reference, where the recipe wants one."""
    if recipe.kind.by_token:
        lessons = [replace(one, labels=only_pieces(one.said)) for one in lessons]
    if recipe.kind.share < 1:
        lessons = referred(network, lessons, recipe, checkpoint, progress, of=of)
    told = partial(_told, progress, "training")
    train(network, lessons, recipe, checkpoint, told, of=of)


def referred(
    network: Network, lessons: Sequence[Lesson], recipe: Recipe, checkpoint: Path,
    progress: Progress, *, of: str,
) -> list[Lesson]:  # fmt: skip
    """The lessons with what a reference, taught by all of them, loses at each row.

    The network is as it was afterwards.
    """
    begun, file = network.state(), checkpoint.with_stem(f"{checkpoint.stem}-reference")
    train(network, lessons, recipe, file, partial(_told, progress, "training a reference"), of=of)
    found = list[Lesson]()
    with torch.no_grad():
        for one in lessons:
            losses, _ = scored(network, rows_of(network, [one]), one.labels, recipe.kind.loss)
            found.append(replace(one, reference=losses))
            progress("asking the reference", len(found) / len(lessons))
    network.become(begun)
    return found


def _told(progress: Progress, what: str, loss: float, share: float) -> None:
    progress(f"{what}, loss {loss:.3f}", share)


def train(
    network: Network, lessons: Sequence[Lesson], recipe: Recipe, checkpoint: Path,
    told: Callable[[float, float], None], *, of: str,
) -> None:  # fmt: skip
    """Teach the network; goes on from `checkpoint`, if it is of the same recipe and lessons.

    told: of a step's loss and the share that is done. of: tells drafter, layers and target from
    others.
    """
    made = batches(lessons, recipe)
    optimizer = torch.optim.AdamW(network.parameters, lr=recipe.rate, weight_decay=0.0)
    whose = f"{of} {recipe} {digest(lessons)} {sum(one.numel() for one in network.parameters)}"
    first = resumed(network, optimizer, checkpoint, whose)
    saved_at = time.monotonic()
    for step in range(first, len(made)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step, len(made))
        optimizer.zero_grad()
        value = backward(network, made[step], recipe.kind)
        torch.nn.utils.clip_grad_norm_(network.parameters, 1.0)
        optimizer.step()
        told(value, (step + 1) / len(made))
        if time.monotonic() - saved_at > CHECKPOINT_S:
            keep(network, optimizer, checkpoint, whose, step + 1)
            saved_at = time.monotonic()
    keep(network, optimizer, checkpoint, whose, len(made))


def backward(network: Network, batch: Sequence[Lesson], kind: Kind) -> float:
    """Slopes of the mean loss of the rows that a batch teaches; the loss."""
    hidden = rows_of(network, batch)
    losses, slopes = scored(network, hidden, joined([one.labels for one in batch]), kind.loss)
    taught = worth(losses, batch, kind.share)
    some = np.zeros_like(slopes)
    some[taught] = slopes[taught] / np.float32(len(taught))
    hidden.backward(torch.from_numpy(some))
    return float(losses[taught].mean())


def scored(
    network: Network, hidden: Tensor, labels: Labels, loss: Loss
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Losses [m] of rows of states [m, d], and their slopes in these.

    The head is a constant: its logits and their slopes are computed in parts, by numpy.
    """
    states, head = hidden.detach().numpy(), network.head.numpy()
    losses, slopes = np.empty(len(states), np.float32), np.empty_like(states)
    for at in range(0, len(states), CHUNK):
        part = slice(at, at + CHUNK)
        one = loss(states[part] @ head.T, taken(labels, part))
        losses[part], slopes[part] = one.loss, one.dz.astype(np.float32) @ head
    return losses, slopes


def worth(losses: NDArray[np.float32], batch: Sequence[Lesson], share: float) -> NDArray[np.int64]:
    """Which rows to learn from: all, or those most above a reference, where there is one."""
    reference = np.concatenate([one.reference for one in batch])
    if len(reference) < len(losses):
        return np.arange(len(losses))
    known = np.flatnonzero(np.concatenate([one.is_mapped for one in batch]))
    return known[most_above(losses[known], reference[known], share)]


def rows_of(network: Network, batch: Sequence[Lesson]) -> Tensor:
    """States [m, d] behind the labelled rows of all lessons, in their order."""
    ids = torch.zeros(len(batch), max(len(one.ids) for one in batch), dtype=torch.long)
    for line, one in zip(ids, batch, strict=True):
        line[: len(one.ids)] = torch.from_numpy(one.ids.astype(np.int64))
    hidden = network.hidden(ids)
    parts = [line[one.rows.astype(np.int64)] for line, one in zip(hidden, batch, strict=True)]
    return torch.cat(parts)


def joined(labels: Sequence[Labels]) -> Labels:
    """The labels of several lessons, one after the other."""
    fields = ("ids", "probs", "piece", "drafted", "accepted")
    return Labels(*(np.concatenate([getattr(one, name) for one in labels]) for name in fields))


def taken(labels: Labels, part: slice) -> Labels:
    """Some of the positions."""
    return Labels(
        labels.ids[part], labels.probs[part], labels.piece[part], labels.drafted[part],
        labels.accepted[part],
    )  # fmt: skip


def _silent(share: float) -> None:
    """Nobody is told."""


def scores(
    network: Network, lessons: Sequence[Lesson], tokens: int,
    told: Callable[[float], None] = _silent,
) -> Scores:  # fmt: skip
    """How near the drafter is to its target on these lessons. told: the share that is done."""
    agree, overlap = list[NDArray[Any]](), list[NDArray[Any]]()
    head, n_done = network.head.numpy(), 0
    with torch.no_grad():
        for batch in filled(lessons, tokens):
            states = rows_of(network, batch).numpy()
            labels = joined([one.labels for one in batch])
            for at in range(0, len(states), CHUNK):
                part = slice(at, at + CHUNK)
                compared(states[part] @ head.T, taken(labels, part), agree, overlap)
            n_done += len(batch)
            told(n_done / len(lessons))
    n = sum(map(len, agree))
    return Scores(*(float(np.concatenate(one).mean()) for one in (agree, overlap)), n)


def compared(
    z: NDArray[np.float32], labels: Labels, agree: list[NDArray[Any]], overlap: list[NDArray[Any]]
) -> None:
    """Add what the rows with a known law say."""
    known = labels.ids.max(axis=1) >= 0
    z, ids, probs = z[known], labels.ids[known], labels.probs[known]
    law = np.exp(z - z.max(axis=1, keepdims=True))
    law /= law.sum(axis=1, keepdims=True)
    mine = np.where(ids < 0, 0, np.take_along_axis(law, np.maximum(ids, 0), 1))
    agree.append(z.argmax(axis=1) == ids[np.arange(len(ids)), probs.argmax(axis=1)])
    overlap.append(np.minimum(mine, probs).sum(axis=1))


def digest(lessons: Sequence[Lesson]) -> str:
    """Tells lessons from others, by their texts and labels."""
    total = hashlib.sha256()
    for one in lessons:
        of = one.labels
        for part in (one.ids, one.rows, of.ids, of.probs, of.piece):
            total.update(f"{part.shape}".encode() + part.tobytes())
    return total.hexdigest()


def keep(network: Network, optimizer: Any, path: Path, whose: str, step: int) -> None:
    """Write a checkpoint, whole or not. Raises: UsageError."""
    learned.sweep(path)
    n_bytes = 3 * sum(one.nbytes for one in network.parameters)  # AdamW has two numbers of each
    state = {"whose": whose, "step": step, "adapters": network.state()}
    with replacing(path, n_bytes + SLACK) as part:
        torch.save(state | {"optimizer": optimizer.state_dict()}, part)


def resumed(network: Network, optimizer: Any, path: Path, whose: str) -> int:
    """The step to go on at, 0 without a checkpoint that fits: then both are as they were."""
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        if state["whose"] != whose:
            log.warning("%s is of other models or answers: training begins anew", path)
            return 0
        step, adapters = int(state["step"]), state["adapters"]
        if shapes(adapters) != shapes(network.state()):
            raise ValueError("adapters of other sizes")
        optimizer.load_state_dict(state["optimizer"])  # raises before it changes anything
    except Exception:  # torch raises many kinds
        log.warning("%s cannot be read: training begins anew", path)
        return 0
    network.become(adapters)
    return step


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """What sizes adapters have."""
    return {name: value.shape for name, value in state.items()}
