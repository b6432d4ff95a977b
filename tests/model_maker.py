"""Makes tiny random GGUF models of many architectures, with a real tokenizer copied from a file.

    make(path, "gemma2", vocabulary=DEMO, kind="Q4_0", tied=True)

Weights are random but alive: logits depend on every tensor. Quantized kinds that the gguf package
cannot write (K-quants) are made of random blocks with moderate scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

DEMO = Path(__file__).resolve().parents[1] / "models" / "demo" / "drafter.gguf"
# Architectures whose layers are llama's, with what each adds to them.
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "smollm3")
TIED_ONLY = ("gemma", "gemma2")  # llama.cpp reads no head of their own
POST_NORMS = ("gemma2", "gemma3")
HEAD_NORMS = ("qwen3", "gemma3")
# Where a block of the K-quants has its float16 scales, and values of them that make random bytes
# weights of mean 0 and a deviation near 1/16.
SCALES = {
    Kind.Q4_K: {0: 4e-4, 2: 4e-4 * 7.5},
    Kind.Q5_K: {0: 2e-4, 2: 2e-4 * 15.5},
    Kind.Q6_K: {208: 5e-5},
}


@dataclass(frozen=True)
class Sizes:
    n_embd: int = 64
    n_layers: int = 2
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 16
    n_ff: int = 96
    n_context: int = 256


WIDE = Sizes(n_embd=256, head_dim=64, n_ff=256)  # rows that blocks of 256 fit


def make(
    path: Path,
    architecture: str = "llama",
    *,
    vocabulary: Path = DEMO,
    kind: str = "F16",
    tied: bool = True,
    head_bias: bool = False,
    sizes: Sizes | None = None,
    metadata: dict[str, int] | None = None,
    seed: int = 7,
) -> Path:
    """Write the model and return `path`. kind: of all matrices, embedding and head included."""
    sizes = sizes or (WIDE if kind.endswith("_K") else Sizes())
    source = gguf.GGUFReader(vocabulary)
    tokens = source.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    writer = gguf.GGUFWriter(str(path), architecture)
    write_sizes(writer, architecture, sizes)
    for key, value in (metadata or {}).items():
        writer.add_uint32(key, value)
    copy_tokenizer(source, writer)
    rng = np.random.default_rng(seed)
    for name, shape in shapes(architecture, sizes, len(tokens.data), tied, head_bias).items():
        if len(shape) == 1:
            low, high = (-0.5, 0.5) if name.endswith("bias") else (0.5, 1.5)
            writer.add_tensor(name, rng.uniform(low, high, shape).astype(np.float32))
        else:
            add_matrix(writer, name, shape, Kind[kind], rng)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_sizes(writer: gguf.GGUFWriter, architecture: str, sizes: Sizes) -> None:
    writer.add_name("tiny")  # not "phi3": llama.cpp then expects tokens of Phi-3's own
    writer.add_file_type(1)
    writer.add_context_length(sizes.n_context)
    writer.add_embedding_length(sizes.n_embd)
    writer.add_block_count(sizes.n_layers)
    writer.add_feed_forward_length(sizes.n_ff)
    writer.add_head_count(sizes.n_heads)
    writer.add_head_count_kv(sizes.n_kv_heads)
    writer.add_key_length(sizes.head_dim)
    writer.add_value_length(sizes.head_dim)
    writer.add_rope_dimension_count(sizes.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if architecture in POST_NORMS:
        writer.add_sliding_window(64)


def copy_tokenizer(source: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for field in source.fields.values():
        if field.name.startswith("tokenizer."):
            is_array = field.types[0] == gguf.GGUFValueType.ARRAY
            sub_type = field.types[-1] if is_array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)


def shapes(
    architecture: str, sizes: Sizes, n_vocab: int, tied: bool, head_bias: bool
) -> dict[str, tuple[int, ...]]:
    """Name and shape, rows first, of every tensor."""
    n_embd, n_ff = sizes.n_embd, sizes.n_ff
    heads, kv = sizes.n_heads * sizes.head_dim, sizes.n_kv_heads * sizes.head_dim
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_vocab, n_embd),
        "output_norm.weight": (n_embd,),
    }
    if not tied:
        assert architecture not in TIED_ONLY
        found["output.weight"] = (n_vocab, n_embd)
    if head_bias:
        found["output.bias"] = (n_vocab,)
    layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (n_embd,)}
    if architecture == "phi3":
        layer["attn_qkv.weight"] = (heads + 2 * kv, n_embd)
    else:
        layer |= {"attn_q.weight": (heads, n_embd), "attn_k.weight": (kv, n_embd)}
        layer["attn_v.weight"] = (kv, n_embd)
    if architecture == "qwen2":
        layer |= {"attn_q.bias": (heads,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if architecture in HEAD_NORMS:
        layer |= {"attn_q_norm.weight": (sizes.head_dim,), "attn_k_norm.weight": (sizes.head_dim,)}
    if architecture in POST_NORMS:
        layer |= {"post_attention_norm.weight": (n_embd,), "post_ffw_norm.weight": (n_embd,)}
    layer |= {"attn_output.weight": (n_embd, heads), "ffn_norm.weight": (n_embd,)}
    if architecture == "phi3":  # gate and up in one
        layer["ffn_up.weight"] = (2 * n_ff, n_embd)
    else:
        layer |= {"ffn_gate.weight": (n_ff, n_embd), "ffn_up.weight": (n_ff, n_embd)}
    layer["ffn_down.weight"] = (n_embd, n_ff)
    for i in range(sizes.n_layers):
        found |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    return found


def add_matrix(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], kind: Kind, rng: Any
) -> None:
    if kind in SCALES:
        n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (shape[0], shape[1] // n_values, n_bytes), dtype=np.uint8)
        for at, scale in SCALES[kind].items():
            raw[:, :, at : at + 2] = np.array([scale], np.float16).view(np.uint8)
        writer.add_tensor(name, raw.reshape(shape[0], -1), raw_dtype=kind)
        return
    weight = rng.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
    if kind in (Kind.F32, Kind.F16):
        writer.add_tensor(name, weight.astype(np.float32 if kind == Kind.F32 else np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
