"""Small Llama models made by the tests, and two ways to their logits: numpy, and llama.cpp itself.

The numpy forward is written from the architecture's definition and shares no code with what it
judges; float64, so that a difference is a difference of function and not of rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

from edgespec.backends.llamacpp.library import library

VOCAB = [f"<{i}>" for i in range(96)]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def write_llama(
    path: Path,
    *,
    n_embd: int = 64,
    n_layers: int = 2,
    n_heads: int = 4,
    n_kv_heads: int = 4,
    head_dim: int = 16,
    n_ff: int = 96,
    tied: bool = True,
    dtype: type[np.floating] = np.float16,
    extra: dict[str, np.ndarray] | None = None,
    without: str = "",
    architecture: str = "llama",
    metadata: dict[str, int] | None = None,
) -> Path:
    """A random model whose logits depend on every weight; returns `path`."""
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-2)  # large, so that a wrong epsilon shows
    for key, value in (metadata or {}).items():
        writer.add_uint32(key, value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *VOCAB[3:]])
    writer.add_token_scores([-float(i) for i in range(len(VOCAB))])
    writer.add_token_types([2, 3, 3] + [1] * (len(VOCAB) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    heads, kv = n_heads * head_dim, n_kv_heads * head_dim
    shapes = {"token_embd": (len(VOCAB), n_embd), "output_norm": (n_embd,)}
    if not tied:
        shapes["output"] = (len(VOCAB), n_embd)
    for i in range(n_layers):
        inner = {
            "attn_norm": (n_embd,),
            "attn_q": (heads, n_embd),
            "attn_k": (kv, n_embd),
            "attn_v": (kv, n_embd),
            "attn_output": (n_embd, heads),
            "ffn_norm": (n_embd,),
            "ffn_gate": (n_ff, n_embd),
            "ffn_up": (n_ff, n_embd),
            "ffn_down": (n_embd, n_ff),
        }
        shapes |= {f"blk.{i}.{name}": shape for name, shape in inner.items()}
    for name, shape in shapes.items():
        if name == without:
            continue
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", rng.uniform(0.5, 2, shape).astype(np.float32))
        else:
            weight = rng.normal(0, shape[1] ** -0.5, shape)
            writer.add_tensor(f"{name}.weight", weight.astype(dtype))
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def value(path: Path, key: str) -> Any:
    """What a GGUF file's metadata say under `key`."""
    field = gguf.GGUFReader(path).get_field(key)
    return None if field is None else field.contents()


def stored(path: Path) -> dict[str, np.ndarray]:
    """A GGUF file's tensors by name, quantized ones as floats."""
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors
    }


def numpy_logits(path: Path, tokens: list[int]) -> np.ndarray:
    """Logits [T, V] of a Llama in a GGUF file, in float64."""
    weights = {name: tensor.astype(np.float64) for name, tensor in stored(path).items()}
    head_dim = value(path, "llama.attention.key_length")
    group = value(path, "llama.attention.head_count") // value(
        path, "llama.attention.head_count_kv"
    )
    eps = value(path, "llama.attention.layer_norm_rms_epsilon")
    length = len(tokens)
    rates = value(path, "llama.rope.freq_base") ** (-np.arange(0, head_dim, 2) / head_dim)
    turn = np.exp(1j * np.outer(np.arange(length), rates))[:, None]  # [T, 1, head_dim / 2]
    future = np.triu(np.full((length, length), -np.inf), 1)

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weights[f"{name}.weight"]

    def heads(x, name):
        return (x @ weights[f"{name}.weight"].T).reshape(length, -1, head_dim)

    def rotated(x):
        pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * turn
        return np.stack((pairs.real, pairs.imag), -1).reshape(x.shape)

    x = weights["token_embd.weight"][tokens]
    for i in range(value(path, "llama.block_count")):
        h = norm(x, f"blk.{i}.attn_norm")
        q = rotated(heads(h, f"blk.{i}.attn_q"))
        k = np.repeat(rotated(heads(h, f"blk.{i}.attn_k")), group, axis=1)
        v = np.repeat(heads(h, f"blk.{i}.attn_v"), group, axis=1)
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(head_dim) + future
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hts,shd->thd", scores / scores.sum(-1, keepdims=True), v)
        x = x + mixed.reshape(length, -1) @ weights[f"blk.{i}.attn_output.weight"].T
        h = norm(x, f"blk.{i}.ffn_norm")
        gate = h @ weights[f"blk.{i}.ffn_gate.weight"].T
        up = h @ weights[f"blk.{i}.ffn_up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"blk.{i}.ffn_down.weight"].T
    head = weights.get("output.weight", weights["token_embd.weight"])
    return norm(x, "output_norm") @ head.T


def llama_cpp_logits(path: Path, rows: list[list[int]]) -> np.ndarray:
    """Logits [all tokens, V] by llama.cpp, each row of tokens (at most 512) on its own."""
    library()  # routes llama.cpp's log to Python's
    model_params = llama_cpp.llama_model_default_params()
    # Repacked weights double the memory, and their AMX kernels crash when built with GCC 12.
    model_params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    assert model, f"llama.cpp does not load {path}"
    context_params = llama_cpp.llama_context_default_params()
    context_params.n_ctx = context_params.n_batch = 512
    # One thread: on a busy machine several wait for each other at every small operation.
    context_params.n_threads = context_params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, context_params)
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(512, 0, 1)
    out = []
    for row in rows:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = len(row)
        for i, token in enumerate(row):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert llama_cpp.llama_decode(context, batch) == 0
        flat = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(row) * n_vocab,))
        out.append(flat.reshape(len(row), n_vocab).copy())
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.concatenate(out)
