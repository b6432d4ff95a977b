"""A trained network answers many prompts at once: the text its drafters are distilled on.

Sequence-level distillation (FastDraft; DistillSpec, arXiv 2310.08461): answers are drawn at
temperatures 0 and above, and written as one conversation per line.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from edgespec.models.network import HEAD_DIM, Block, Network, rotate
from torch import Tensor


def step(block: Block, x: Tensor, at: int, cache: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One block, one new token a row: x [B, 1, D]; cache [2, B, heads, T, HEAD_DIM] gains `at`."""
    n_rows = len(x)
    h = F.rms_norm(x, x.shape[-1:], block.attn_norm.to(x.dtype), block.eps)
    q, k, v = block.qkv(h).view(n_rows, 1, 3, block.n_heads, HEAD_DIM).unbind(2)
    q, k = (
        rotate(q, cos[at : at + 1], sin[at : at + 1]),
        rotate(k, cos[at : at + 1], sin[at : at + 1]),
    )
    cache[0, :, :, at], cache[1, :, :, at] = k[:, 0], v[:, 0]
    h = F.scaled_dot_product_attention(
        q.transpose(1, 2), cache[0, :, :, : at + 1], cache[1, :, :, : at + 1]
    )
    x = x + block.attn_out(h.transpose(1, 2).flatten(2))
    h = F.rms_norm(x, x.shape[-1:], block.ffn_norm.to(x.dtype), block.eps)
    gate, up = block.gate_up(h).chunk(2, dim=-1)
    return x + block.down(F.silu(gate) * up)


@torch.inference_mode()
def answers(
    network: Network, prompts: list[list[int]], end: int, n_max: int, temperature: Tensor
) -> list[list[int]]:
    """For each prompt its continuation up to and with `end`, at most n_max ids.

    temperature: [B], 0 for greedy. Rows of unequal length are forced along their own prompts.
    """
    shape, n_rows = network.shape, len(prompts)
    longest = max(map(len, prompts)) + n_max
    cache = [torch.zeros(2, n_rows, shape.n_heads, longest, HEAD_DIM) for _ in network.blocks]
    rows = torch.full((n_rows, longest), end)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    for row, prompt in zip(rows, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(prompt)
    done = torch.zeros(n_rows, dtype=torch.bool)
    for at in range(longest - 1):
        x = network.embedding(rows[:, at : at + 1])
        for block, stored in zip(network.blocks, cache, strict=True):
            x = step(block, x, at, stored, network.cos, network.sin)
        x = F.rms_norm(x[:, 0], x.shape[-1:], network.norm, shape.rms_eps)
        chosen = choose(F.linear(x, network.embedding.weight), temperature)
        answering = at + 1 >= lengths
        rows[:, at + 1] = torch.where(answering & ~done, chosen, rows[:, at + 1])
        done |= answering & (chosen == end)
        if done.all():
            break
    return [
        cut(row[n:].tolist(), end, n_max) for row, n in zip(rows, lengths.tolist(), strict=True)
    ]


def choose(logits: Tensor, temperature: Tensor) -> Tensor:
    """One id a row of logits [B, V]: the likeliest where temperature is 0, else drawn."""
    heat = temperature.clamp(min=1e-3)[:, None]
    noise = -torch.empty_like(logits).exponential_().log() * (temperature[:, None] > 0)
    return (logits / heat + noise).argmax(dim=-1)


def cut(ids: list[int], end: int, n_max: int) -> list[int]:
    """ids up to and with the first `end`."""
    ids = ids[:n_max]
    return ids[: ids.index(end) + 1] if end in ids else ids
