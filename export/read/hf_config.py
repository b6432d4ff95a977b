"""config.json of a Hugging Face checkpoint as a Decoder: sizes, rotary angles, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgespec.backends.hf_tokenizer import read_object
from edgespec.errors import ModelFileError

from .checkpoint import Decoder

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Phi3ForCausalLM": "phi3",
    "SmolLM3ForCausalLM": "smollm3",
}
GEMMAS = ("gemma2", "gemma3")
WINDOWED = (*GEMMAS, "phi3")  # have sliding windows by design; their graphs are built elsewhere
ACTIVATIONS = {name: ("gelu_pytorch_tanh", "gelu_tanh") for name in GEMMAS}
SILU = ("silu", "swish")
HEAD_DIMS = {"qwen3": 128, "gemma2": 256, "gemma3": 256}  # what their code takes if none is stated


class HfConfig:
    """The object in config.json. Its numbers are checked when asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises: ModelFileError if it is missing or of a model that is not supported."""
        self.path = folder / "config.json"
        if not self.path.is_file():
            why = "is a LoRA adapter: name it as `edgespec export lora FOLDER --base MODEL`"
            if not (folder / "adapter_config.json").is_file():
                why = "has no config.json: expected a Hugging Face checkpoint; fetch all its files"
            raise ModelFileError(f"{folder} {why}")
        self.values = read_object(self.path)
        self.architecture = self._architecture()
        self._check_plain()

    def whole(self, key: str, default: int | None = None) -> int:
        """A positive number. Raises: ModelFileError."""
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refusal(key, value, "a positive number")
        return value

    def real(self, key: str, default: float | None = None, source: Any = None) -> float:
        """A positive number. Raises: ModelFileError."""
        value = (self.values if source is None else source).get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
            raise self.refusal(key, value, "a positive number")
        return float(value)

    def refusal(self, key: str, seen: Any, expected: str) -> ModelFileError:
        """The error of a value that the exports cannot follow."""
        return ModelFileError(
            f"{self.path} says {key} = {seen!r}: expected {expected}; choose another model"
        )

    def _architecture(self) -> str:
        stated = self.values.get("architectures")
        name = stated[0] if isinstance(stated, list) and stated else stated
        if name not in ARCHITECTURES:
            raise ModelFileError(
                f"{self.path} says architecture {name!r}: expected one of "
                f"{', '.join(ARCHITECTURES)}; choose another model"
            )
        return ARCHITECTURES[name]

    def _check_plain(self) -> None:
        """Raises: ModelFileError for quantized weights and functions that no graph here has."""
        quantized = self.values.get("quantization_config")
        if quantized:
            method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
            raise ModelFileError(
                f"{self.path} says the weights are quantized by {method!r}: expected F32, F16 or "
                "BF16; take the checkpoint that it was made from"
            )
        for key in ("hidden_activation", "hidden_act"):
            expected = ACTIVATIONS.get(self.architecture, SILU)
            if (stated := self.values.get(key)) is not None:
                if stated not in expected:
                    raise self.refusal(key, stated, expected[0])
                break
        if self.architecture not in WINDOWED and self.values.get("use_sliding_window", True):
            window = self.values.get("sliding_window") or self.whole("max_position_embeddings")
            if not isinstance(window, int) or window < self.whole("max_position_embeddings"):
                raise self.refusal("sliding_window", window, "null")


def decoder_of(config: HfConfig) -> Decoder:
    """The sizes. Raises: ModelFileError if one is missing or not supported."""
    architecture = config.architecture
    n_embd, n_heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    default = HEAD_DIMS.get(architecture, max(1, n_embd // n_heads))
    head_dim = config.whole("head_dim", default)
    n_kv_heads = config.whole("num_key_value_heads", n_heads)
    if n_heads % n_kv_heads:
        raise config.refusal("num_key_value_heads", n_kv_heads, f"a divisor of {n_heads}")
    rope = rope_parameters(config)
    rope_dim = int(head_dim * config.real("partial_rotary_factor", 1.0, rope))
    return Decoder(
        architecture=architecture,
        n_vocab=config.whole("vocab_size"),
        n_embd=n_embd,
        n_layers=config.whole("num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        n_ff=config.whole("intermediate_size"),
        n_context=config.whole("max_position_embeddings"),
        rms_eps=config.real("rms_norm_eps"),
        rope_base=config.real("rope_theta", 10000.0, rope),
        rope_dim=rope_dim,
        rope_interleaved=False,
        rope_scale=rope_scale(config, rope),
        rope_factors=rope_factors(config, rope, rope_dim),
        embedding_scale=math.sqrt(n_embd) if architecture in GEMMAS else 1.0,
    )


def rope_parameters(config: HfConfig) -> dict[str, Any]:
    """What is said of rotary angles, wherever it stands: transformers 5 has moved it.

    Of models with two kinds of layers it is what the ones without a window have.
    """
    found: dict[str, Any] = {}
    for key in ("rope_theta", "partial_rotary_factor"):
        if config.values.get(key) is not None:
            found[key] = config.values[key]
    for key in ("rope_scaling", "rope_parameters"):
        stated = config.values.get(key)
        if isinstance(stated, dict):
            inner = stated.get("full_attention")
            found |= inner if isinstance(inner, dict) else stated
    return found


def rope_kind(config: HfConfig, rope: dict[str, Any]) -> str:
    """default, linear, llama3 or longrope. Raises: ModelFileError for yarn and others."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = [
        "default",
        "linear",
        "llama3",
        *(["longrope"] if config.architecture == "phi3" else []),
    ]
    if kind not in known:
        raise config.refusal("rope_scaling type", kind, " or ".join(known))
    return str(kind)


def rope_scale(config: HfConfig, rope: dict[str, Any]) -> float:
    """What all frequencies are multiplied by."""
    if rope_kind(config, rope) != "linear":
        return 1.0
    return 1.0 / config.real("factor", None, rope)


def rope_factors(config: HfConfig, rope: dict[str, Any], rope_dim: int) -> tuple[float, ...]:
    """What divides each pair's frequency, empty for nothing.

    llama3 leaves waves shorter than original / high_freq_factor alone, divides those longer than
    original / low_freq_factor by `factor`, and goes from one to the other between.
    """
    kind = rope_kind(config, rope)
    if kind == "longrope":
        short = rope.get("short_factor")
        if not isinstance(short, list) or len(short) != rope_dim // 2:
            raise config.refusal("short_factor", short, f"{rope_dim // 2} numbers")
        return tuple(float(one) for one in short)
    if kind != "llama3":
        return ()
    factor = config.real("factor", None, rope)
    low, high = (config.real(f"{end}_freq_factor", None, rope) for end in ("low", "high"))
    original = config.real("original_max_position_embeddings", None, rope)
    base = config.real("rope_theta", 10000.0, rope)
    if high <= low:
        raise config.refusal("high_freq_factor", high, f"more than low_freq_factor, {low}")
    factors = []
    for pair in range(0, rope_dim, 2):
        turns = original * base ** (-pair / rope_dim) / (2 * math.pi)
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1.0 / (kept + (1.0 - kept) / factor))
    return tuple(factors)


def unturned_layers(config: HfConfig) -> list[int]:
    """Layers whose queries and keys are not rotated: some of SmolLM3's."""
    if config.architecture != "smollm3":
        return []
    n_layers = config.whole("num_hidden_layers")
    stated = config.values.get("no_rope_layers")
    if isinstance(stated, list) and len(stated) == n_layers:
        return [layer for layer, turns in enumerate(stated) if not turns]
    every = config.whole("no_rope_layer_interval", 4)
    return list(range(every - 1, n_layers, every))
