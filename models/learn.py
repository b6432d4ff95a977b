"""The training loop: rows of token ids, a schedule, two optimizers, checkpoints to go on from."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Constant learning rate, then a linear decay over the last `decay` share of the steps.

    The constant part lets a run be prolonged from a checkpoint (warmup-stable-decay,
    MiniCPM, arXiv 2404.06395, section 4). The last `long_share` of the steps train on rows of
    `long_row` tokens, the others on cheaper rows of `row`; a step always has `step_tokens`.
    """

    steps: int
    lr: float = 4e-3
    warmup: int = 100
    decay: float = 0.35
    row: int = 256
    long_row: int = 1024
    long_share: float = 0.2
    step_tokens: int = 8192

    def rate(self, step: int) -> float:
        left = (self.steps - step) / (self.decay * self.steps)
        return self.lr * min(1.0, (step + 1) / self.warmup, max(left, 0.02))

    def row_tokens(self, step: int) -> int:
        return self.row if step < (1 - self.long_share) * self.steps else self.long_row


def rows(docs: Iterator[list[int]], length: int) -> Iterator[list[int]]:
    """Rows of `length` ids that begin with a document or with the larger rest of one."""
    row: list[int] = []
    for ids in docs:
        row += ids
        while len(row) >= length:
            yield row[:length]
            row = row[length - 1 :] if len(row) - length > length // 4 else []


def batches(docs: Iterator[list[int]], schedule: Schedule) -> Iterator[Tensor]:
    """Batches [rows, row + 1], one a step."""
    step = 0
    while step < schedule.steps:
        length = schedule.row_tokens(step)
        source = rows(docs, length + 1)
        while step < schedule.steps and schedule.row_tokens(step) == length:
            yield torch.tensor([next(source) for _ in range(schedule.step_tokens // length)])
            step += 1


def optimizers(network: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding, norms and kernels."""
    matrices = [weight for weight in network.blocks.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in matrices}
    others = [weight for weight in network.parameters() if id(weight) not in inside]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.01),
    ]


def next_token_loss(network: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy in nats of batch [B, T + 1]."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def train(
    network: nn.Module,
    docs: Iterator[list[int]],
    schedule: Schedule,
    path: Path,
    loss_function: Callable[[nn.Module, Tensor], Tensor],
    evaluate: Callable[[nn.Module], str],
) -> None:
    """Run the schedule; a checkpoint every 3 minutes and at the end."""
    optimizers_ = optimizers(network, schedule.lr)
    step = restore(network, optimizers_, path)
    loss_of = torch.compile(loss_function)
    saved = time.monotonic()
    # A restart reads past what it was trained on already.
    for batch in itertools.islice(batches(docs, schedule), step, None):
        for optimizer in optimizers_:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
        loss = loss_of(network, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers_:
            optimizer.step()
        network.zero_grad()
        step += 1
        if step % 20 == 0:
            print(
                f"step {step} loss {loss.item():.4f} lr {schedule.rate(step):.2e} {time.ctime()}",
                flush=True,
            )
        if step % 200 == 0 or step == schedule.steps:
            print(f"step {step} held-out {evaluate(network)}", flush=True)
        if time.monotonic() - saved > 180 or step == schedule.steps:
            save(network, optimizers_, step, path)
            saved = time.monotonic()


def save(
    network: nn.Module, optimizers_: list[torch.optim.Optimizer], step: int, path: Path
) -> None:
    partial = path.with_name(path.name + ".part")
    states = [optimizer.state_dict() for optimizer in optimizers_]
    torch.save({"network": network.state_dict(), "optimizers": states, "step": step}, partial)
    os.replace(partial, path)


def restore(network: nn.Module, optimizers_: list[torch.optim.Optimizer], path: Path) -> int:
    """Load the checkpoint at `path` if there is one; the step to go on from."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    for optimizer, stored in zip(optimizers_, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return state["step"]
