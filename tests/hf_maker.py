"""Makes Hugging Face folders without torch: tokenizers of GGUF files, tiny random checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

ROOT = Path(__file__).resolve().parents[1]
NORMAL, UNKNOWN, CONTROL = 1, 2, 3
# How each kind of byte-level vocabulary cuts a text into words.
WORDS = {
    "llama-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def write_tokenizer(folder: Path, source: Path, **config: object) -> Path:
    """tokenizer.json with the vocabulary of the GGUF file `source`; returns the folder."""
    found = gguf.GGUFReader(source).fields
    metadata = {name[10:]: f.contents() for name, f in found.items() if name[:10] == "tokenizer."}
    made = sentencepiece(metadata) if metadata["ggml.model"] == "llama" else byte_level(metadata)
    names, kinds = metadata["ggml.tokens"], metadata["ggml.token_type"]
    made.add_special_tokens(
        [
            AddedToken(name, special=True, normalized=False)
            for name, kind in zip(names, kinds, strict=True)
            if kind in (UNKNOWN, CONTROL)
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    stated = {
        "bos_token": names[metadata["ggml.bos_token_id"]],
        "eos_token": {"content": names[metadata["ggml.eos_token_id"]]},
        "add_bos_token": bool(metadata.get("ggml.add_bos_token", True)),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(stated | config), encoding="utf-8")
    return folder


def byte_level(metadata: dict[str, Any]) -> Tokenizer:
    """A vocabulary of letters that stand for bytes."""
    vocabulary = {name: token for token, name in enumerate(metadata["ggml.tokens"])}
    merges = [tuple(pair.split(" ")) for pair in metadata["ggml.merges"]]
    ignore = metadata["ggml.pre"] == "llama-bpe"
    made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore))
    words = WORDS.get(metadata["ggml.pre"])
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)]
    if words:
        steps.insert(0, pre_tokenizers.Split(Regex(words), "isolated"))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    return made


def sentencepiece(metadata: dict[str, Any]) -> Tokenizer:
    """A vocabulary of pieces with scores and byte tokens, merged as SentencePiece does."""
    names, scores = metadata["ggml.tokens"], metadata["ggml.scores"]
    vocabulary = {name: token for token, name in enumerate(names)}
    pairs = []
    for token, name in enumerate(names):
        cuts = ((name[:at], name[at:]) for at in range(1, len(name)))
        parts = [(a, b) for a, b in cuts if a in vocabulary and b in vocabulary]
        pairs += [(-scores[token], vocabulary[a], vocabulary[b], (a, b)) for a, b in parts]
    merges = [pair for *_, pair in sorted(pairs)]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return made


@dataclass(frozen=True)
class Sizes:
    n_embd: int = 64
    n_layers: int = 2
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 16
    n_ff: int = 96
    n_vocab: int = 96


CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
GEMMAS = ("gemma2", "gemma3")


def write_checkpoint(
    folder: Path,
    kind: str = "llama",
    *,
    sizes: Sizes | None = None,
    dtype: str = "F32",
    shards: int = 1,
    tied: bool = False,
    changed: dict[str, object] | None = None,
    tensors: dict[str, NDArray[np.float32]] | None = None,
) -> Path:
    """A random checkpoint of a kind of CLASSES; returns the folder.

    dtype: F32, F16 or BF16, whose values the random ones are rounded to. changed: entries of
    config.json, None removes one. tensors: instead of random ones, by Hugging Face's names.
    """
    sizes = sizes or Sizes()
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(kind, sizes, tied) | (changed or {})
    stated = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    weights = random_tensors(kind, sizes, tied) if tensors is None else tensors
    if shards == 1:
        save(folder / "model.safetensors", weights, dtype)
        return folder
    places = {name: at * shards // len(weights) for at, name in enumerate(weights)}
    names = [f"model-{at + 1:05d}-of-{shards:05d}.safetensors" for at in range(shards)]
    for at, name in enumerate(names):
        save(folder / name, {n: w for n, w in weights.items() if places[n] == at}, dtype)
    index = {"metadata": {}, "weight_map": {name: names[at] for name, at in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def config_of(kind: str, sizes: Sizes, tied: bool) -> dict[str, object]:
    """config.json of the sizes, in the spelling of transformers 4."""
    return {
        "architectures": [CLASSES[kind]],
        "model_type": {"gemma3": "gemma3_text"}.get(kind, kind),
        "vocab_size": sizes.n_vocab,
        "hidden_size": sizes.n_embd,
        "num_hidden_layers": sizes.n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_key_value_heads": sizes.n_kv_heads,
        "head_dim": sizes.head_dim,
        "intermediate_size": sizes.n_ff,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-2,  # large, so that a wrong epsilon shows
        "rope_theta": 10000.0,
        "hidden_act": "gelu_pytorch_tanh" if kind in GEMMAS else "silu",
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def random_tensors(kind: str, sizes: Sizes, tied: bool) -> dict[str, NDArray[np.float32]]:
    """Weights by Hugging Face's names that logits depend on, each of them."""
    q, kv = sizes.n_heads * sizes.head_dim, sizes.n_kv_heads * sizes.head_dim
    n_embd, n_ff = sizes.n_embd, sizes.n_ff
    layer: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (n_embd,)}
    if kind == "phi3":
        layer["self_attn.qkv_proj.weight"] = (q + 2 * kv, n_embd)
        layer["mlp.gate_up_proj.weight"] = (2 * n_ff, n_embd)
    else:
        layer["self_attn.q_proj.weight"] = (q, n_embd)
        layer |= {f"self_attn.{one}_proj.weight": (kv, n_embd) for one in "kv"}
        layer |= {f"mlp.{one}_proj.weight": (n_ff, n_embd) for one in ("gate", "up")}
    if kind == "qwen2":
        layer |= {
            f"self_attn.{one}_proj.bias": (n,) for one, n in zip("qkv", (q, kv, kv), strict=True)
        }
    if kind in ("qwen3", "gemma3"):
        layer |= {f"self_attn.{one}_norm.weight": (sizes.head_dim,) for one in "qk"}
    layer |= {"self_attn.o_proj.weight": (n_embd, q), "mlp.down_proj.weight": (n_embd, n_ff)}
    layer["post_attention_layernorm.weight"] = (n_embd,)
    if kind in GEMMAS:
        layer |= {f"{one}_feedforward_layernorm.weight": (n_embd,) for one in ("pre", "post")}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.n_vocab, n_embd)}
    for at in range(sizes.n_layers):
        shapes |= {f"model.layers.{at}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (n_embd,)
    if not tied:
        shapes["lm_head.weight"] = (sizes.n_vocab, n_embd)
    rng = np.random.default_rng(7)
    return {name: random(rng, name, shape, kind) for name, shape in shapes.items()}


def random(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], kind: str
) -> NDArray[np.float32]:
    if len(shape) > 1:
        return rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
    low, high = (-0.5, 0.5) if name.endswith("bias") or kind in GEMMAS else (0.5, 1.5)
    return rng.uniform(low, high, shape).astype(np.float32)


def save(path: Path, weights: dict[str, NDArray[np.float32]], dtype: str) -> None:
    """One safetensors file."""
    if dtype != "BF16":
        kind = {"F32": np.float32, "F16": np.float16}[dtype]
        save_file({name: w.astype(kind) for name, w in weights.items()}, path, {"format": "pt"})
        return
    header, data = {}, b""
    for name, weight in weights.items():  # numpy has no such type: the upper halves, cut off
        halves = np.ascontiguousarray(weight).view("<u2")[..., 1::2].tobytes()
        place = [len(data), len(data) + len(halves)]
        header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": place}
        data += halves
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


HF_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


def hf_name(name: str) -> str:
    """Hugging Face's name of a Llama's tensor in a GGUF file."""
    *place, part, ending = name.split(".")
    layer = f"model.layers.{place[1]}." if place else ""
    return f"{layer}{HF_NAMES[part]}.{ending}"


def half_split(weight: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Rows for pairs (2i, 2i + 1) in the order for pairs (i, i + head_dim / 2)."""
    heads = weight.reshape(-1, head_dim // 2, 2, *weight.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(weight.shape)


def llama_of(source: Path, folder: Path, **given: Any) -> Path:
    """The Llama in the GGUF file `source` as a checkpoint; returns the folder."""
    reader = gguf.GGUFReader(source)
    told = {
        name[6:]: f.contents() for name, f in reader.fields.items() if name.startswith("llama.")
    }
    weights = {
        hf_name(t.name): gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        for t in reader.tensors
    }
    n_heads = told["attention.head_count"]
    head_dim = told.get("attention.key_length", told["embedding_length"] // n_heads)
    for name in weights:
        if "q_proj" in name or "k_proj" in name:
            weights[name] = half_split(weights[name], head_dim)
    table = weights["model.embed_tokens.weight"]
    sizes = Sizes(
        n_embd=told["embedding_length"],
        n_layers=told["block_count"],
        n_heads=n_heads,
        n_kv_heads=told.get("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        n_ff=told["feed_forward_length"],
        n_vocab=len(table),
    )
    stated = {
        "rms_norm_eps": told["attention.layer_norm_rms_epsilon"],
        "rope_theta": told.get("rope.freq_base", 10000.0),
        "max_position_embeddings": told["context_length"],
    }
    tied = "lm_head.weight" not in weights
    changed = stated | given.pop("changed", {})
    return write_checkpoint(
        folder, "llama", sizes=sizes, tied=tied, tensors=weights, changed=changed, **given
    )


def interleaved(weight: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """The reverse of `half_split`."""
    heads = weight.reshape(-1, 2, head_dim // 2, *weight.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(weight.shape)


def write_adapter(
    folder: Path,
    shapes: dict[str, tuple[int, int]],
    *,
    rank: int = 4,
    alpha: float = 6.0,
    ranks: dict[str, int] | None = None,
    **config: object,
) -> dict[str, NDArray[np.float32]]:
    """A PEFT adapter of the modules in `shapes`; what it adds to each, without its scale.

    ranks: of modules that have another one than `rank`.
    """
    rng = np.random.default_rng(11)
    folder.mkdir(parents=True, exist_ok=True)
    weights, added = {}, {}
    for module, (n_out, n_in) in shapes.items():
        r = (ranks or {}).get(module, rank)
        a = rng.normal(0, n_in**-0.5, (r, n_in)).astype(np.float32)
        b = rng.normal(0, 0.4, (n_out, r)).astype(np.float32)
        weights[f"base_model.model.{module}.lora_A.weight"] = a
        weights[f"base_model.model.{module}.lora_B.weight"] = b
        added[module] = b @ a
    save_file(weights, folder / "adapter_model.safetensors")
    stated = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps(stated | config), encoding="utf-8")
    return added
