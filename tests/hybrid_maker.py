"""Makes tiny random GGUF models whose memory is recurrent, of each kind that llama.cpp knows.

    make(path, "lfm2", vocabulary=DEMO)

Sizes are such that every state matters: logits depend on the text long before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from model_maker import DEMO, copy_tokenizer

N_EMBD, N_FF, N_HEADS, HEAD_DIM, N_KV = 64, 96, 4, 16, 2
D_CONV, D_INNER, D_STATE, N_GROUPS, N_SSM_HEADS = 4, 128, 16, 2, 4
LORA = 8  # of RWKV's small matrices
# Whether each layer is recurrent; llama.cpp rolls the first two kinds back by itself.
KINDS: dict[str, tuple[bool, ...]] = {
    "lfm2": (True, False, True),
    "qwen35": (True, True, False),
    "mamba2": (True, True),
    "granitehybrid": (True, False, True),
    "falcon-h1": (True, True),
    "rwkv7": (True, True),
}
BOUNDED = ("lfm2", "qwen35")
EVERY_DAY = ("lfm2", "mamba2")  # one of either sort; tests of the others are slow


Shapes = dict[str, tuple[int, ...]]


def make(path: Path, kind: str, *, vocabulary: Path = DEMO, seed: int = 7) -> Path:
    """Write the model, all in F32, and return `path`."""
    source = gguf.GGUFReader(vocabulary)
    tokens = source.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    writer = gguf.GGUFWriter(str(path), kind)
    write_sizes(writer, kind)
    copy_tokenizer(source, writer)
    rng = np.random.default_rng(seed)
    for name, shape in shapes(kind, len(tokens.data)).items():
        writer.add_tensor(name, weight(name, shape, rng))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_sizes(writer: gguf.GGUFWriter, kind: str) -> None:
    recurrent = KINDS[kind]
    writer.add_name("tiny")
    writer.add_file_type(0)
    writer.add_context_length(512)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(len(recurrent))
    writer.add_feed_forward_length(N_FF)
    writer.add_layer_norm_rms_eps(1e-5)
    if kind == "rwkv7":
        writer.add_layer_norm_eps(1e-5)
        writer.add_head_count(0)
        writer.add_wkv_head_size(N_EMBD)  # kernels take whole vectors of 64
        writer.add_decay_lora_rank(LORA)
        writer.add_iclr_lora_rank(LORA)
        writer.add_value_residual_mix_lora_rank(LORA)
        writer.add_gate_lora_rank(LORA)
        return
    if kind == "mamba2":
        writer.add_head_count(0)
    else:
        writer.add_head_count(N_HEADS)
        writer.add_key_length(HEAD_DIM)
        writer.add_value_length(HEAD_DIM)
        writer.add_rope_dimension_count(HEAD_DIM)
        writer.add_rope_freq_base(10000.0)
    if kind in ("lfm2", "granitehybrid"):  # a layer without keys is recurrent
        writer.add_head_count_kv([0 if one else N_KV for one in recurrent])
    elif kind in ("qwen35", "falcon-h1"):
        writer.add_head_count_kv(N_KV)
    if kind == "qwen35":
        writer.add_rope_dimension_sections([2, 3, 3, 0])
        writer.add_uint32("qwen35.full_attention_interval", 3)
    if kind == "lfm2":
        writer.add_shortconv_l_cache(3)
        return
    writer.add_ssm_conv_kernel(D_CONV)
    writer.add_ssm_inner_size(D_INNER)
    writer.add_ssm_state_size(D_INNER // N_SSM_HEADS if kind == "qwen35" else D_STATE)
    writer.add_ssm_time_step_rank(N_SSM_HEADS)
    writer.add_ssm_group_count(N_GROUPS)


def shapes(kind: str, n_vocab: int) -> Shapes:
    """Name and shape, rows first, of every tensor."""
    found: Shapes = {"token_embd.weight": (n_vocab, N_EMBD)}
    found |= OUTPUTS.get(kind, {"output_norm.weight": (N_EMBD,)})
    if kind == "rwkv7":
        found["output.weight"] = (n_vocab, N_EMBD)
    for i, is_recurrent in enumerate(KINDS[kind]):
        layer: Shapes = {"attn_norm.weight": (N_EMBD,)}
        if is_recurrent:
            layer |= RECURRENT[kind]
        if not is_recurrent or kind == "falcon-h1":
            layer |= ATTENTION.get(kind, attention())
        if kind not in ("mamba2", "rwkv7"):
            norm = {"qwen35": "post_attention_norm.weight", "falcon-h1": "ffn_norm"}
            layer[norm.get(kind, "ffn_norm.weight")] = (N_EMBD,)
            layer |= {"ffn_gate.weight": (N_FF, N_EMBD), "ffn_up.weight": (N_FF, N_EMBD)}
            layer["ffn_down.weight"] = (N_EMBD, N_FF)
        found |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    return found


def attention(*, n_q: int = 1, norms: bool = False) -> Shapes:
    heads, kv = N_HEADS * HEAD_DIM, N_KV * HEAD_DIM
    found: Shapes = {"attn_q.weight": (n_q * heads, N_EMBD), "attn_k.weight": (kv, N_EMBD)}
    found |= {"attn_v.weight": (kv, N_EMBD), "attn_output.weight": (N_EMBD, heads)}
    if norms:
        found |= {"attn_q_norm.weight": (HEAD_DIM,), "attn_k_norm.weight": (HEAD_DIM,)}
    return found


def mamba2(*, norm: bool = True) -> Shapes:
    width = D_INNER + 2 * N_GROUPS * D_STATE
    found: Shapes = {
        "ssm_in.weight": (D_INNER + width + N_SSM_HEADS, N_EMBD),
        "ssm_conv1d.weight": (width, D_CONV),
        "ssm_conv1d.bias": (width,),
        "ssm_dt.bias": (N_SSM_HEADS,),
        "ssm_a": (N_SSM_HEADS, 1),
        "ssm_d": (N_SSM_HEADS, 1),
        "ssm_out.weight": (N_EMBD, D_INNER),
    }
    if norm:
        found["ssm_norm.weight"] = (N_GROUPS, D_INNER // N_GROUPS)
    return found


def delta_net() -> Shapes:
    head = D_INNER // N_SSM_HEADS
    width = 2 * N_GROUPS * head + D_INNER
    return {
        "attn_qkv.weight": (width, N_EMBD),
        "attn_gate.weight": (D_INNER, N_EMBD),
        "ssm_conv1d.weight": (width, D_CONV),
        "ssm_dt.bias": (N_SSM_HEADS,),
        "ssm_a": (N_SSM_HEADS,),
        "ssm_beta.weight": (N_SSM_HEADS, N_EMBD),
        "ssm_alpha.weight": (N_SSM_HEADS, N_EMBD),
        "ssm_norm.weight": (head,),
        "ssm_out.weight": (N_EMBD, D_INNER),
    }


def rwkv7() -> Shapes:
    square, one = (N_EMBD, N_EMBD), (N_EMBD,)
    found: Shapes = {
        "attn_norm.bias": one, "attn_norm_2.weight": one, "attn_norm_2.bias": one,
        "time_mix_lerp_fused.weight": (6, 1, 1, N_EMBD),
        "time_mix_k_k.weight": one, "time_mix_k_a.weight": one, "time_mix_r_k.weight": one,
        "time_mix_key.weight": square, "time_mix_value.weight": square,
        "time_mix_receptance.weight": square, "time_mix_output.weight": square,
        "time_mix_ln.weight": one, "time_mix_ln.bias": one,
        "time_mix_g1.weight": (LORA, N_EMBD), "time_mix_g2.weight": (N_EMBD, LORA),
        "channel_mix_lerp_k.weight": (1, 1, N_EMBD),
        "channel_mix_key.weight": (N_FF, N_EMBD), "channel_mix_value.weight": (N_EMBD, N_FF),
    }  # fmt: skip
    for part in "wav":
        found[f"time_mix_{part}0.weight"] = one
        found[f"time_mix_{part}1.weight"] = (LORA, N_EMBD)
        found[f"time_mix_{part}2.weight"] = (N_EMBD, LORA)
    return found


OUTPUTS: dict[str, Shapes] = {
    "lfm2": {"token_embd_norm.weight": (N_EMBD,)},
    "rwkv7": {
        name: (N_EMBD,)
        for name in ("token_embd_norm.weight", "token_embd_norm.bias", "output_norm.weight",
                     "output_norm.bias")
    },
}  # fmt: skip
ATTENTION = {"lfm2": attention(norms=True), "qwen35": attention(n_q=2, norms=True)}
RECURRENT: dict[str, Shapes] = {
    "lfm2": {
        "shortconv.conv.weight": (N_EMBD, 3),
        "shortconv.in_proj.weight": (3 * N_EMBD, N_EMBD),
        "shortconv.out_proj.weight": (N_EMBD, N_EMBD),
    },
    "qwen35": delta_net(),
    "mamba2": mamba2(),
    "granitehybrid": mamba2(),
    "falcon-h1": mamba2(),
    "rwkv7": rwkv7(),
}


def weight(name: str, shape: tuple[int, ...], rng: Any) -> np.ndarray:
    """Random, but such that states neither vanish at once nor grow."""
    if name.endswith("ssm_a"):
        return -rng.uniform(0.05, 0.5, shape).astype(np.float32)
    if name.endswith("bias"):
        return rng.uniform(-0.5, 0.5, shape).astype(np.float32)
    if "lerp" in name:
        return rng.uniform(0.1, 0.9, shape).astype(np.float32)
    if len(shape) == 1 or name.endswith(("ssm_d", "ssm_norm.weight")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32)


def case(kind: str, *more: object) -> Any:
    """A parameter of tests, slow unless the kind is one of every day."""
    marks = [] if kind in EVERY_DAY else [pytest.mark.slow]
    return pytest.param((kind, *more) if more else kind, marks=marks)
