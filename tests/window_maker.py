"""Makes tiny random GGUF models of which most layers see only the last tokens.

make(path, "gpt-oss", vocabulary=DEMO)
"""

from __future__ import annotations

from pathlib import Path

import gguf
import model_maker
import numpy as np
from model_maker import DEMO, Sizes, copy_tokenizer

WINDOW = 64
# Layers: such that some of each sort are there, and of Gemma 3n some without keys of their own.
LAYERS = {"gemma2": 4, "gemma3": 7, "gemma3n": 22, "gpt-oss": 4}
N_EMBD, N_FF, N_HEADS, HEAD_DIM, N_KV = 64, 96, 4, 16, 2
N_EXPERTS, N_USED = 4, 2
ALTUP, PER_LAYER, LAUREL = 4, 256, 64  # llama.cpp's own, which no file states
# Else the noise of another order of sums chooses other experts, or grows from layer to layer.
CALM = {
    "ffn_gate_inp.weight": 0.2,
    "ffn_gate_inp.bias": 4.0,
    "ffn_down.weight": 0.1,
    "attn_q_norm.weight": 0.2,
    "altup_predict_coef.weight": 0.1,
    "altup_correct_coef.weight": 0.1,
}

Shapes = dict[str, tuple[int, ...]]


def make(path: Path, kind: str, *, vocabulary: Path = DEMO, n_context: int = 2048) -> Path:
    """Write the model and return `path`."""
    sizes = Sizes(n_layers=LAYERS[kind], n_context=n_context)
    if kind in model_maker.ARCHITECTURES:
        return model_maker.make(path, kind, vocabulary=vocabulary, kind="F32", sizes=sizes)
    source = gguf.GGUFReader(vocabulary)
    tokens = source.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    writer = gguf.GGUFWriter(str(path), kind)
    model_maker.write_sizes(writer, kind, sizes)
    writer.add_sliding_window(WINDOW)
    if kind == "gpt-oss":
        writer.add_expert_count(N_EXPERTS)
        writer.add_expert_used_count(N_USED)
        writer.add_expert_feed_forward_length(N_FF)
    copy_tokenizer(source, writer)
    rng = np.random.default_rng(7)
    for name, shape in shapes(kind, len(tokens.data)).items():
        spread = 1.0 if len(shape) == 1 or name.endswith("bias") else shape[-1] ** -0.5
        weight = rng.standard_normal(shape) * spread * CALM.get(name.split(".", 2)[-1], 1.0)
        if "norm" in name or "scale" in name:
            weight = rng.uniform(0.5, 1.5, shape) * CALM.get(name.split(".", 2)[-1], 1.0)
        writer.add_tensor(name, weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(kind: str, n_vocab: int) -> Shapes:
    """Name and shape, rows first, of every tensor."""
    n = LAYERS[kind]
    found: Shapes = {"token_embd.weight": (n_vocab, N_EMBD), "output_norm.weight": (N_EMBD,)}
    if kind == "gpt-oss":
        found["output.weight"] = (n_vocab, N_EMBD)
    else:
        found |= {
            "altup_proj.weight": (ALTUP - 1, N_EMBD, N_EMBD),
            "altup_unembd_proj.weight": (ALTUP - 1, N_EMBD, N_EMBD),
            "per_layer_token_embd.weight": (n_vocab, PER_LAYER * n),
            "per_layer_model_proj.weight": (PER_LAYER * n, N_EMBD),
            "per_layer_proj_norm.weight": (PER_LAYER,),
        }
    layer = attention() | (experts() if kind == "gpt-oss" else alternating())
    for i in range(n):
        found |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    return found


def attention() -> Shapes:
    heads, kv = N_HEADS * HEAD_DIM, N_KV * HEAD_DIM
    return {
        "attn_norm.weight": (N_EMBD,),
        "attn_q.weight": (heads, N_EMBD),
        "attn_k.weight": (kv, N_EMBD),
        "attn_v.weight": (kv, N_EMBD),
        "attn_output.weight": (N_EMBD, heads),
        "post_attention_norm.weight": (N_EMBD,),
    }


def experts() -> Shapes:
    """What gpt-oss adds to it."""
    heads, kv = N_HEADS * HEAD_DIM, N_KV * HEAD_DIM
    found: Shapes = {
        "attn_sinks.weight": (N_HEADS,),
        "attn_q.bias": (heads,),
        "attn_k.bias": (kv,),
        "attn_v.bias": (kv,),
        "attn_output.bias": (N_EMBD,),
        "ffn_gate_inp.weight": (N_EXPERTS, N_EMBD),
        "ffn_gate_inp.bias": (N_EXPERTS,),
    }
    for name, rows, columns in (
        ("gate", N_FF, N_EMBD), ("up", N_FF, N_EMBD), ("down", N_EMBD, N_FF),
    ):  # fmt: skip
        found[f"ffn_{name}_exps.weight"] = (N_EXPERTS, rows, columns)
        found[f"ffn_{name}_exps.bias"] = (N_EXPERTS, rows)
    return found


def alternating() -> Shapes:
    """What Gemma 3n adds to it."""
    one = (N_EMBD,)
    return {
        "attn_q_norm.weight": (HEAD_DIM,),
        "attn_k_norm.weight": (HEAD_DIM,),
        "ffn_norm.weight": one,
        "ffn_gate.weight": (N_FF, N_EMBD),
        "ffn_up.weight": (N_FF, N_EMBD),
        "ffn_down.weight": (N_EMBD, N_FF),
        "post_ffw_norm.weight": one,
        "inp_gate.weight": (PER_LAYER, N_EMBD),
        "proj.weight": (N_EMBD, PER_LAYER),
        "post_norm.weight": one,
        "altup_correct_coef.weight": (ALTUP, ALTUP),
        "altup_correct_scale.weight": one,
        "altup_predict_coef.weight": (ALTUP * ALTUP, ALTUP),
        "altup_router.weight": (ALTUP, N_EMBD),
        "altup_router_norm.weight": one,
        "laurel_l.weight": (LAUREL, N_EMBD),
        "laurel_r.weight": (N_EMBD, LAUREL),
        "laurel_post_norm.weight": one,
    }
