"""A hybrid of short convolutions and attention (LFM2, arXiv 2511.23404) and its way into a GGUF.

The residual network of `network.py` with other mixers: most layers look back over three tokens by a
gated convolution, whose state is two columns a layer, and the others attend to all of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from edgespec.models.network import HEAD_DIM, Network, Shape, full, half, write
from torch import Tensor, nn

N_KV_HEADS = 2
L_CACHE = 3  # tokens a convolution sees, itself the last
ATTENDS = (False, False, True, False, True)  # by layer


class Convolution(nn.Module):
    """Gated, causal and depthwise: x [B, T, D] -> [B, T, D]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.enter = nn.Linear(shape.n_embd, 3 * shape.n_embd, bias=False)
        self.kernel = nn.Parameter(torch.full((shape.n_embd, L_CACHE, 1), L_CACHE**-0.5))
        self.leave = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        del cos, sin  # the order is in the kernel
        before, after, content = self.enter(x).chunk(3, dim=-1)
        gated, length = before * content, x.shape[1]
        shifted = F.pad(gated, (0, 0, L_CACHE - 1, 0))
        kernel = self.kernel.to(x.dtype)
        mixed = sum(shifted[:, at : at + length] * kernel[:, at, 0] for at in range(L_CACHE))
        return self.leave(after * mixed)


class Attention(nn.Module):
    """Grouped queries, both sides normed before they are rotated: x [B, T, D] -> [B, T, D]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_heads, self.eps = shape.n_heads, shape.rms_eps
        self.q = nn.Linear(shape.n_embd, shape.n_heads * HEAD_DIM, bias=False)
        self.k = nn.Linear(shape.n_embd, N_KV_HEADS * HEAD_DIM, bias=False)
        self.v = nn.Linear(shape.n_embd, N_KV_HEADS * HEAD_DIM, bias=False)
        self.q_norm = nn.Parameter(torch.ones(HEAD_DIM))
        self.k_norm = nn.Parameter(torch.ones(HEAD_DIM))
        self.leave = nn.Linear(shape.n_heads * HEAD_DIM, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (-1, HEAD_DIM)) for part in (self.q, self.k, self.v))
        q = rotate_halves(F.rms_norm(q, (HEAD_DIM,), self.q_norm.to(q.dtype), self.eps), cos, sin)
        k = rotate_halves(F.rms_norm(k, (HEAD_DIM,), self.k_norm.to(k.dtype), self.eps), cos, sin)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        said = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.leave(said.transpose(1, 2).flatten(2))


class HybridBlock(nn.Module):
    """A pre-norm mixer and a SwiGLU feed-forward."""

    def __init__(self, shape: Shape, attends: bool) -> None:
        super().__init__()
        self.eps = shape.rms_eps
        self.mixer_norm = nn.Parameter(torch.ones(shape.n_embd))
        self.mixer = Attention(shape) if attends else Convolution(shape)
        self.ffn_norm = nn.Parameter(torch.ones(shape.n_embd))
        self.gate_up = nn.Linear(shape.n_embd, 2 * shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]; cos, sin [T, HEAD_DIM]."""
        h = F.rms_norm(x, x.shape[-1:], self.mixer_norm.to(x.dtype), self.eps)
        x = x + self.mixer(h, cos, sin)
        h = F.rms_norm(x, x.shape[-1:], self.ffn_norm.to(x.dtype), self.eps)
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def hybrid(shape: Shape) -> Network:
    """A network with a block for each of ATTENDS."""
    blocks = [HybridBlock(shape, attends) for attends in ATTENDS]
    return Network(shape, blocks, rotation_of_halves(shape))


def rotation_of_halves(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine [context, HEAD_DIM] of llama.cpp's "neox" rope: pairs half a head apart."""
    rates = shape.rope_base ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
    angles = torch.outer(torch.arange(shape.context).float(), rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rope of x [B, T, heads, HEAD_DIM]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def write_hybrid(network: Network, vocabulary: dict[str, object], path: Path, name: str) -> None:
    """Write the network in F16 (norms and kernels F32); otherwise as `network.write_gguf`."""
    more: dict[str, int | list[int]] = {
        "attention.head_count_kv": [N_KV_HEADS if attends else 0 for attends in ATTENDS],
        "shortconv.l_cache": L_CACHE,
    }
    write(network.shape, "lfm2", more, vocabulary, tensors(network), path, name)


def tensors(network: Network) -> Iterator[tuple[str, np.ndarray]]:
    """All weights by llama.cpp's names; LFM2 calls the norm of the output by another."""
    yield "token_embd.weight", half(network.embedding.weight)
    yield "token_embd_norm.weight", full(network.norm)
    for i, block in enumerate(network.blocks):
        for name, values in block_tensors(block).items():
            yield f"blk.{i}.{name}.weight", values


def block_tensors(block: HybridBlock) -> dict[str, np.ndarray]:
    """A block's weights by llama.cpp's names."""
    gate, up = block.gate_up.weight.chunk(2)
    out = {
        "attn_norm": full(block.mixer_norm),
        "ffn_norm": full(block.ffn_norm),
        "ffn_gate": half(gate),
        "ffn_up": half(up),
        "ffn_down": half(block.down.weight),
    }
    mixer = block.mixer
    if isinstance(mixer, Attention):
        return out | {
            "attn_q": half(mixer.q.weight),
            "attn_k": half(mixer.k.weight),
            "attn_v": half(mixer.v.weight),
            "attn_q_norm": full(mixer.q_norm),
            "attn_k_norm": full(mixer.k_norm),
            "attn_output": half(mixer.leave.weight),
        }
    return out | {
        "shortconv.in_proj": half(mixer.enter.weight),
        "shortconv.conv": full(mixer.kernel[..., 0]),
        "shortconv.out_proj": half(mixer.leave.weight),
    }
