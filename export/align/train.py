"""The training loop: lessons in batches, a loss of adapt.losses, checkpoints to go on from."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgespec.adapt.labels import Labels
from edgespec.adapt.losses import Loss, loss_named
from edgespec.types import Progress

from .lesson import Lesson
from .network import Network

log = logging.getLogger("edgespec")

CHUNK = 256  # rows of logits at once
CHECKPOINT_S = 120.0
HELD_OUT = 10  # every tenth lesson is not learned from


@dataclass(frozen=True)
class Recipe:
    """How to train. tokens: of a batch, the padding included."""

    loss: str = "covering"
    epochs: int = 3
    rate: float = 5e-4
    warmup: float = 0.05
    tokens: int = 2048
    seed: int = 0

    def rate_at(self, step: int, steps: int) -> float:
        """Rises in the first `warmup` of the steps, then falls along half a cosine."""
        start = max(1.0, self.warmup * steps)
        if step < start:
            return self.rate * (step + 1) / start
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, steps - start)))


@dataclass(frozen=True)
class Scores:
    """agreement: how often the drafter's likeliest token is the target's. overlap: the mean of
    sum min(p, q). Both where the target's law is known."""

    agreement: float
    overlap: float
    n: int


def split(lessons: Sequence[Lesson]) -> tuple[list[Lesson], list[Lesson]]:
    """Those to learn from, and those held out."""
    held = [one for i, one in enumerate(lessons) if i % HELD_OUT == HELD_OUT - 1]
    return [one for i, one in enumerate(lessons) if i % HELD_OUT != HELD_OUT - 1], held


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


def train(
    network: Network, lessons: Sequence[Lesson], recipe: Recipe, checkpoint: Path,
    progress: Progress, *, of: str,
) -> None:  # fmt: skip
    """Teach the network; goes on from `checkpoint`, if it is of the same recipe and lessons.

    of: tells drafter, layers and target from others.
    """
    loss, made = loss_named(recipe.loss), batches(lessons, recipe)
    optimizer = torch.optim.AdamW(network.parameters, lr=recipe.rate, weight_decay=0.0)
    whose = f"{of} {recipe} {digest(lessons)} {sum(one.numel() for one in network.parameters)}"
    first = resumed(network, optimizer, checkpoint, whose)
    saved_at = time.monotonic()
    for step in range(first, len(made)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step, len(made))
        optimizer.zero_grad()
        value = backward(network, made[step], loss)
        torch.nn.utils.clip_grad_norm_(network.parameters, 1.0)
        optimizer.step()
        progress(f"training, loss {value:.3f}", (step + 1) / len(made))
        if time.monotonic() - saved_at > CHECKPOINT_S:
            keep(network, optimizer, checkpoint, whose, step + 1)
            saved_at = time.monotonic()
    keep(network, optimizer, checkpoint, whose, len(made))


def backward(network: Network, batch: Sequence[Lesson], loss: Loss) -> float:
    """Slopes of the mean loss of a batch's rows; the loss.

    The head is a constant: its logits and their slopes are computed in parts, by numpy.
    """
    hidden = rows_of(network, batch)
    labels = joined([one.labels for one in batch])
    states, head = hidden.detach().numpy(), network.head.numpy()
    slopes, total = np.empty_like(states), 0.0
    for at in range(0, len(states), CHUNK):
        part = slice(at, at + CHUNK)
        scored = loss(states[part] @ head.T, taken(labels, part))
        slopes[part] = scored.dz.astype(np.float32) @ head
        total += float(scored.loss.sum())
    hidden.backward(torch.from_numpy(slopes / len(states)))
    return total / len(states)


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


def scores(network: Network, lessons: Sequence[Lesson], tokens: int) -> Scores:
    """How near the drafter is to its target on these lessons."""
    agree, overlap = list[NDArray[Any]](), list[NDArray[Any]]()
    head = network.head.numpy()
    with torch.no_grad():
        for batch in filled(lessons, tokens):
            states = rows_of(network, batch).numpy()
            labels = joined([one.labels for one in batch])
            for at in range(0, len(states), CHUNK):
                part = slice(at, at + CHUNK)
                compared(states[part] @ head.T, taken(labels, part), agree, overlap)
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
    """Tells lessons from others."""
    total = hashlib.sha256()
    for one in lessons:
        total.update(one.ids.tobytes())
    return total.hexdigest()


def keep(network: Network, optimizer: Any, path: Path, whose: str, step: int) -> None:
    """Write a checkpoint, whole or not."""
    part = path.with_name(path.name + ".part")
    state = {"whose": whose, "step": step, "adapters": network.state()}
    torch.save(state | {"optimizer": optimizer.state_dict()}, part)
    os.replace(part, path)


def resumed(network: Network, optimizer: Any, path: Path, whose: str) -> int:
    """The step to go on at, 0 without a checkpoint that fits."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["whose"] != whose:
        log.warning("%s is of other models or answers: training begins anew", path)
        return 0
    network.become(state["adapters"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
