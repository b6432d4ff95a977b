"""Makes tiny random embedding models: one like BERT with a vocabulary of words, and decoders."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from model_maker import make

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["the", "fox", "bear", "runs", "sleeps", "in", "wood", "lake", "and", "."]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]
WIDTH, N_FF, N_LAYERS, N_HEADS, N_CONTEXT = 32, 64, 2, 4, 64
MEAN, CLS, LAST, RANK = 1, 2, 3, 4


def make_bert(path: Path, *, pooling: int | None = MEAN, seed: int = 7) -> Path:
    """Write a model that reads in both directions, and return `path`."""
    tokens = [*SPECIAL, *(f"\u2581{word}" for word in [*WORDS, *LETTERS]), *LETTERS]
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("tiny bert")
    writer.add_context_length(N_CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_uint32("bert.pooling_type", pooling)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_type_count(2)
    for name, token in (("padding", 0), ("unknown", 1), ("cls", 2), ("seperator", 3), ("mask", 4)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)  # spelled so
    writer.add_bos_token_id(SPECIAL.index("[CLS]"))
    writer.add_eos_token_id(SPECIAL.index("[SEP]"))
    rng = np.random.default_rng(seed)
    for name, shape in shapes(len(tokens)).items():
        values = rng.normal(0, 0.3, shape)
        if "norm" in name:
            values = 1 + values if name.endswith("weight") else values
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(n_vocab: int) -> dict[str, tuple[int, ...]]:
    """Name and shape, rows first, of every tensor."""
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_vocab, WIDTH),
        "token_types.weight": (2, WIDTH),
        "position_embd.weight": (N_CONTEXT, WIDTH),
        **norm("token_embd_norm"),
    }
    for i in range(N_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found |= {f"blk.{i}.{name}.weight": (WIDTH, WIDTH), f"blk.{i}.{name}.bias": (WIDTH,)}
        found |= {f"blk.{i}.ffn_up.weight": (N_FF, WIDTH), f"blk.{i}.ffn_up.bias": (N_FF,)}
        found |= {f"blk.{i}.ffn_down.weight": (WIDTH, N_FF), f"blk.{i}.ffn_down.bias": (WIDTH,)}
        found |= norm(f"blk.{i}.attn_output_norm") | norm(f"blk.{i}.layer_output_norm")
    return found


def norm(name: str) -> dict[str, tuple[int, ...]]:
    """A layer's norm."""
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def make_decoder(path: Path, *, pooling: int = LAST, architecture: str = "llama") -> Path:
    """A decoder whose file says how its states are pooled."""
    return make(path, architecture, metadata={f"{architecture}.pooling_type": pooling})
