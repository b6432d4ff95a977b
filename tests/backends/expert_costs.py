"""What verifying several tokens costs a model of experts, beside a dense one that reads as much.

`python tests/backends/expert_costs.py FOLDER [n_experts=16]` writes two random models of 0.13 B
parameters a token, one with `n_experts` of which two are used, and measures forwards of 1 to 16
random tokens of both in turns. Random tokens choose experts at random; those of a text agree more.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import gguf
import model_maker
import numpy as np
from model_maker import DEMO, Sizes, copy_tokenizer

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel

SIZES = Sizes(
    n_embd=1024, n_layers=16, n_heads=16, n_kv_heads=4, head_dim=64, n_ff=1024, n_context=512
)
N_USED = 2
WIDTHS, REPEATS = (1, 2, 3, 4, 6, 8, 12, 16), 9
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # of Q4_0, 32 weights


def make(path: Path, n_experts: int) -> Path:
    """Write a Llama of random Q4_0 matrices and return `path`; n_experts: 0 for none."""
    source = gguf.GGUFReader(DEMO)
    tokens = source.get_field("tokenizer.ggml.tokens")
    assert tokens is not None
    writer = gguf.GGUFWriter(str(path), "llama")
    n_ff = SIZES.n_ff if n_experts else N_USED * SIZES.n_ff
    model_maker.write_sizes(writer, "llama", replace(SIZES, n_ff=n_ff))
    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(N_USED)
    copy_tokenizer(source, writer)
    rng = np.random.default_rng(3)
    for name, shape in shapes(len(tokens.data), n_experts).items():
        if len(shape) == 1 or "gate_inp" in name:
            values = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape)
            writer.add_tensor(name, values.astype(np.float32))
            continue
        blocks = np.empty((*shape[:-1], shape[-1] // 32), BLOCK)
        blocks["scale"] = 0.15 * shape[-1] ** -0.5
        blocks["nibbles"] = rng.integers(0, 256, (*blocks.shape, 16), np.uint8)
        data = blocks.view(np.uint8).reshape(*shape[:-1], -1)
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(n_vocab: int, n_experts: int) -> dict[str, tuple[int, ...]]:
    """Name and shape, rows first, of every tensor; a dense layer reads as much as two experts."""
    width, n_ff, kv = SIZES.n_embd, SIZES.n_ff, SIZES.n_kv_heads * SIZES.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,), "ffn_norm": (width,), "attn_q": (width, width),
        "attn_k": (kv, width), "attn_v": (kv, width), "attn_output": (width, width),
    }  # fmt: skip
    if n_experts:
        layer |= {"ffn_gate_inp": (n_experts, width), "ffn_down_exps": (n_experts, width, n_ff)}
        layer |= {f"ffn_{one}_exps": (n_experts, n_ff, width) for one in ("gate", "up")}
    else:
        layer |= {f"ffn_{one}": (N_USED * n_ff, width) for one in ("gate", "up")}
        layer["ffn_down"] = (width, N_USED * n_ff)
    names = {"token_embd": (n_vocab, width), "output": (n_vocab, width), "output_norm": (width,)}
    for i in range(SIZES.n_layers):
        names |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
    return {f"{name}.weight": shape for name, shape in names.items()}


def main(words: list[str]) -> None:
    """Print a line of JSON for each model: milliseconds of a token, and times that, by width."""
    n_experts = int(dict(word.split("=", 1) for word in words[2:]).get("n_experts", 16))
    options = ModelOptions(n_context=256, device="cpu")
    models = {
        n: LlamaCppModel(make(Path(words[1]) / f"{n}-experts.gguf", n), options, loading="map")
        for n in (0, n_experts)
    }
    rng = np.random.default_rng(5)
    took: dict[tuple[int, int], list[float]] = {}
    for repeat in range(REPEATS + 1):
        for width in WIDTHS:
            for n, model in models.items():
                model.truncate(0)
                model.forward(rng.integers(0, 4096, width).tolist())
                model.truncate(0)
                start = perf_counter()
                model.forward(rng.integers(0, 4096, width).tolist())
                if repeat:
                    took.setdefault((n, width), []).append(perf_counter() - start)
    for n in models:
        one = median(took[n, 1])
        times = {width: round(median(took[n, width]) / one, 2) for width in WIDTHS}
        print(json.dumps({"n_experts": n, "token_ms": round(1e3 * one, 1), "times": times}))


if __name__ == "__main__":
    main(sys.argv)
