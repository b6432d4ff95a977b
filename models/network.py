"""The Llama architecture in torch, small enough to train on a laptop, and its way into a GGUF file.

Knows tensors and shapes; knows nothing of text. `Network` trains (train.py) and is the reference
in tests; `write_gguf` stores the weights under llama.cpp's names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_DIM = 64  # widening a model (export pad) multiplies heads of this size
# Branch outputs start small so that the depth does not add up (GPT-2's choice).
ENDS = ("attn_out", "leave", "down")


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model; `n_heads` heads of 64, as many key heads, input and output tied."""

    n_vocab: int
    n_embd: int
    n_layers: int
    n_heads: int
    n_ff: int
    context: int = 1024
    rope_base: float = 10000.0
    rms_eps: float = 1e-5


class Block(nn.Module):
    """Pre-norm attention and SwiGLU feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.n_heads * HEAD_DIM
        self.n_heads, self.eps = shape.n_heads, shape.rms_eps
        self.attn_norm = nn.Parameter(torch.ones(shape.n_embd))
        self.ffn_norm = nn.Parameter(torch.ones(shape.n_embd))
        self.qkv = nn.Linear(shape.n_embd, 3 * inner, bias=False)
        self.attn_out = nn.Linear(inner, shape.n_embd, bias=False)
        self.gate_up = nn.Linear(shape.n_embd, 2 * shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]; cos, sin [T, HEAD_DIM]."""
        n_rows, length, _ = x.shape
        h = F.rms_norm(x, x.shape[-1:], self.attn_norm.to(x.dtype), self.eps)
        q, k, v = self.qkv(h).view(n_rows, length, 3, self.n_heads, HEAD_DIM).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (rotate(q, cos, sin), rotate(k, cos, sin), v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.attn_out(h)
        h = F.rms_norm(x, x.shape[-1:], self.ffn_norm.to(x.dtype), self.eps)
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Network(nn.Module):
    """Token ids [B, T] -> logits [B, T, V].

    blocks: a Llama's unless others are given, as hybrid.py has them. turns: cosine and sine
    [context, HEAD_DIM] for those.
    """

    def __init__(
        self,
        shape: Shape,
        blocks: Iterable[nn.Module] | None = None,
        turns: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(blocks or (Block(shape) for _ in range(shape.n_layers)))
        self.norm = nn.Parameter(torch.ones(shape.n_embd))
        cos, sin = turns or rotation(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        for name, weight in self.blocks.named_parameters():
            if weight.ndim == 2:
                shrink = (2 * shape.n_layers) ** -0.5 if name.split(".")[-2] in ENDS else 1
                nn.init.normal_(weight, std=shrink * weight.shape[1] ** -0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.embedding(tokens)
        if torch.is_autocast_enabled("cpu"):
            x = x.bfloat16()
        cos, sin = self.cos[:length].to(x.dtype), self.sin[:length].to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        x = F.rms_norm(x, x.shape[-1:], self.norm.to(x.dtype), self.shape.rms_eps)
        return F.linear(x, self.embedding.weight)

    def n_params(self) -> int:
        """Number of weights, the tied embedding counted once."""
        return sum(weight.numel() for weight in self.parameters())


def rotation(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine [context, HEAD_DIM] of llama.cpp's "norm" rope: pairs lie side by side."""
    rates = shape.rope_base ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
    angles = torch.outer(torch.arange(shape.context).float(), rates).repeat_interleave(2, dim=1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rope of x [B, T, heads, HEAD_DIM]."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    return x * cos[:, None] + turned * sin[:, None]


def write_gguf(network: Network, vocabulary: dict[str, object], path: Path, name: str) -> None:
    """Write the network in F16 (norms F32) with its vocabulary, through a temporary name.

    vocabulary: `tokens`, `types`, `merges`, `bos`, `eos`, `chat_template`.
    """
    kv_heads = {"attention.head_count_kv": network.shape.n_heads}
    write(network.shape, "llama", kv_heads, vocabulary, tensors(network), path, name)


def write(
    shape: Shape, architecture: str, more: dict[str, int | list[int]],
    vocabulary: dict[str, object], weights: Iterable[tuple[str, np.ndarray]], path: Path, name: str,
) -> None:  # fmt: skip
    """The file. more: what the architecture has besides, by llama.cpp's keys."""
    partial = path.with_name(path.name + ".part")
    writer = gguf.GGUFWriter(str(partial), architecture)
    writer.add_name(name)
    writer.add_license("CDLA-Sharing-1.0 AND CC-BY-SA-4.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_vocab_size(shape.n_vocab)
    for key, value in more.items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    add_vocabulary(writer, vocabulary)
    for tensor_name, tensor in weights:
        writer.add_tensor(tensor_name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: dict[str, object]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["types"])
    writer.add_token_merges(vocabulary["merges"])
    writer.add_bos_token_id(vocabulary["bos"])
    writer.add_eos_token_id(vocabulary["eos"])
    writer.add_eot_token_id(vocabulary["eos"])
    writer.add_add_bos_token(True)
    writer.add_chat_template(vocabulary["chat_template"])


def half(weight: Tensor) -> np.ndarray:
    """As a matrix is stored."""
    return weight.detach().half().numpy()


def full(weight: Tensor) -> np.ndarray:
    """As a norm is stored."""
    return weight.detach().float().numpy()


def tensors(network: Network) -> list[tuple[str, np.ndarray]]:
    """llama.cpp's tensor names with F16 matrices and F32 norms."""

    out = [
        ("token_embd.weight", half(network.embedding.weight)),
        ("output_norm.weight", full(network.norm)),
    ]
    for i, block in enumerate(network.blocks):
        q, k, v = block.qkv.weight.chunk(3)
        gate, up = block.gate_up.weight.chunk(2)
        out += [
            (f"blk.{i}.attn_norm.weight", full(block.attn_norm)),
            (f"blk.{i}.attn_q.weight", half(q)),
            (f"blk.{i}.attn_k.weight", half(k)),
            (f"blk.{i}.attn_v.weight", half(v)),
            (f"blk.{i}.attn_output.weight", half(block.attn_out.weight)),
            (f"blk.{i}.ffn_norm.weight", full(block.ffn_norm)),
            (f"blk.{i}.ffn_gate.weight", half(gate)),
            (f"blk.{i}.ffn_up.weight", half(up)),
            (f"blk.{i}.ffn_down.weight", half(block.down.weight)),
        ]
    return out


def network_of(path: Path) -> Network:
    """The network that `write_gguf` wrote."""
    reader = gguf.GGUFReader(path)
    weights = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    sizes = {
        size: int(reader.get_field(f"llama.{key}").contents())
        for size, key in (
            ("n_embd", "embedding_length"), ("n_layers", "block_count"),
            ("n_heads", "attention.head_count"), ("n_ff", "feed_forward_length"),
            ("context", "context_length"),
        )
    }  # fmt: skip
    network = Network(Shape(n_vocab=len(weights["token_embd.weight"]), **sizes))
    network.load_state_dict(
        {"embedding.weight": weights["token_embd.weight"], "norm": weights["output_norm.weight"]}
        | {
            f"blocks.{i}.{name}": weight
            for i in range(network.shape.n_layers)
            for name, weight in block_weights(weights, f"blk.{i}.").items()
        }
    )
    return network


def block_weights(weights: dict[str, Tensor], block: str) -> dict[str, Tensor]:
    """A block's weights by this module's names."""

    def joined(*names: str) -> Tensor:
        return torch.cat([weights[f"{block}{name}.weight"] for name in names])

    return {
        "attn_norm": joined("attn_norm"),
        "ffn_norm": joined("ffn_norm"),
        "qkv.weight": joined("attn_q", "attn_k", "attn_v"),
        "attn_out.weight": joined("attn_output"),
        "gate_up.weight": joined("ffn_gate", "ffn_up"),
        "down.weight": joined("ffn_down"),
    }
