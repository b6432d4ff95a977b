"""What a Hugging Face checkpoint itself says, computed in numpy: the original that exports are
compared with. Needs neither torch nor transformers, and shares no code with the graphs it judges.

    from edgespec.export.read.hf_reference import logits
    rows, = logits(Path("SmolLM2-135M"), [[1, 2, 3]])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .checkpoint import TOKENS
from .hf import open_hf
from .hf_config import GEMMAS, HfConfig, rope_parameters, unturned_layers

Rows = NDArray[np.float32]
# What transformers takes where config.json is silent; null there means none.
DEFAULTS = {
    "gemma2": {
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 256.0,
        "sliding_window": 4096.0,
    },
    "gemma3": {"query_pre_attn_scalar": 256.0, "sliding_window": 4096.0},
}


def logits(folder: Path, pieces: Sequence[Sequence[int]]) -> list[Rows]:
    """Logits [n, V] after each token of each piece, every piece read alone.

    Weights are read once, a layer at a time. Raises: ModelFileError.
    """
    model = Reference(folder)
    states = [model.tokens(piece) for piece in pieces]
    for layer in range(model.decoder.n_layers):
        model.load(layer)
        states = [model.after_layer(layer, state) for state in states]
    return [model.head(state) for state in states]


class Reference:
    """The architectures of hf_config, a layer's weights held at a time."""

    def __init__(self, folder: Path) -> None:
        """Raises: ModelFileError."""
        self.checkpoint, self.config = open_hf(folder), HfConfig(folder)
        self.decoder = self.checkpoint.decoder
        self.is_gemma = self.decoder.architecture in GEMMAS
        self.unturned = unturned_layers(self.config)
        self._weights: dict[str, Rows] = {}

    def tokens(self, piece: Sequence[int]) -> Rows:
        """[n, n_embd]."""
        rows = self.checkpoint[TOKENS].rows(np.array(piece, np.int64)).floats()
        return rows * np.float32(self.decoder.embedding_scale)

    def load(self, layer: int) -> None:
        """Read one layer's weights, dropping the last one's."""
        start = f"blk.{layer}."
        names = [name for name in self.checkpoint.tensors if name.startswith(start)]
        self._weights = {n.removeprefix(start): self.checkpoint[n].floats() for n in names}

    def after_layer(self, layer: int, x: Rows) -> Rows:
        """The residual [n, n_embd] behind attention and neurons."""
        x = x + self.written(
            "post_attention_norm", self.attention(layer, self.norm("attn_norm", x))
        )
        return x + self.written("post_ffw_norm", self.neurons(self.norm("ffn_norm", x)))

    def head(self, x: Rows) -> Rows:
        """Logits [n, V]."""
        out = self.rms(x, self.checkpoint["output_norm.weight"].floats())
        out = out @ self.checkpoint.head.floats().T
        bias = self.checkpoint.head_bias
        if bias is not None:
            out = out + bias
        return capped(out, self.number("final_logit_softcapping"))

    def attention(self, layer: int, x: Rows) -> Rows:
        """What the heads write for normed x [n, n_embd]."""
        decoder = self.decoder
        q, k, v = self.queries_keys_values(x)
        if layer not in self.unturned:
            angles = self.angles(layer, len(x))
            q, k = self.turned(q, angles), self.turned(k, angles)
        group = decoder.n_heads // decoder.n_kv_heads
        k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
        scale = self.number("query_pre_attn_scalar") if self.is_gemma else 0.0
        scores = np.einsum("thd,shd->hts", q, k) / math.sqrt(scale or decoder.head_dim)
        scores = capped(scores, self.number("attn_logit_softcapping"))
        ago = np.arange(len(x))[:, None] - np.arange(len(x))
        scores = np.where((ago >= 0) & (ago < self.window(layer)), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hts,shd->thd", scores / scores.sum(-1, keepdims=True), v)
        return self.linear("attn_output", mixed.reshape(len(x), -1).astype(np.float32))

    def queries_keys_values(self, x: Rows) -> list[Rows]:
        """Each [n, heads, head_dim], normed where the architecture norms them."""
        decoder = self.decoder
        n_q, n_kv = (n * decoder.head_dim for n in (decoder.n_heads, decoder.n_kv_heads))
        if "attn_qkv.weight" in self._weights:
            parts = np.split(self.linear("attn_qkv", x), [n_q, n_q + n_kv], axis=1)
        else:
            parts = [self.linear(f"attn_{one}", x) for one in "qkv"]
        parts = [part.reshape(len(x), -1, decoder.head_dim) for part in parts]
        return [self.written(f"attn_{one}_norm", p) for one, p in zip("qkv", parts, strict=True)]

    def neurons(self, x: Rows) -> Rows:
        """What the gated neurons write for normed x."""
        if "ffn_gate.weight" in self._weights:
            gate, up = self.linear("ffn_gate", x), self.linear("ffn_up", x)
        else:
            gate, up = np.split(self.linear("ffn_up", x), 2, axis=1)
        if self.is_gemma:
            inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
            opened = 0.5 * gate * (1 + np.tanh(inner))
        else:
            opened = gate / (1 + np.exp(-np.clip(gate, -80, None)))
        return self.linear("ffn_down", (opened * up).astype(np.float32))

    def angles(self, layer: int, n: int) -> NDArray[np.complex128]:
        """[n, 1, rope_dim / 2] rotations by position."""
        decoder = self.decoder
        pairs = np.arange(0, decoder.rope_dim, 2) / decoder.rope_dim
        if decoder.architecture == "gemma3" and self.slides(layer):
            rates = self.local_base() ** -pairs
        else:
            rates = decoder.rope_scale * decoder.rope_base**-pairs
            rates = rates / np.array(decoder.rope_factors or 1.0)
        return np.exp(1j * np.outer(np.arange(n), rates))[:, None] * self.stretch()

    def turned(self, x: Rows, angles: NDArray[np.complex128]) -> Rows:
        """Pairs (i, i + rope_dim / 2) of each head rotated, the rest as it is."""
        half = angles.shape[-1]
        pairs = (x[..., :half] + 1j * x[..., half : 2 * half]) * angles
        return np.concatenate([pairs.real, pairs.imag, x[..., 2 * half :]], -1).astype(np.float32)

    def local_base(self) -> float:
        """Gemma-3's rotary base in layers with a window."""
        stated = self.config.values.get("rope_parameters") or {}
        local = stated.get("sliding_attention") or {}
        default = self.config.real("rope_local_base_freq", 10000.0)
        return self.config.real("rope_theta", default, local)

    def stretch(self) -> float:
        """What longrope multiplies sine and cosine by."""
        rope = rope_parameters(self.config)
        if rope.get("rope_type", rope.get("type")) != "longrope":
            return 1.0
        whole, default = self.decoder.n_context, self.decoder.n_context
        original = rope.get("original_max_position_embeddings")
        short = original or self.config.whole("original_max_position_embeddings", default)
        return 1.0 if whole <= short else math.sqrt(1 + math.log(whole / short) / math.log(short))

    def slides(self, layer: int) -> bool:
        """Whether a layer sees a window only."""
        stated = self.config.values.get("layer_types")
        if isinstance(stated, list):
            return bool(stated[layer] == "sliding_attention")
        every = {"gemma2": 2, "gemma3": self.config.whole("sliding_window_pattern", 6)}
        period = every.get(self.decoder.architecture, 0)
        return (layer + 1) % period != 0 if period else self.decoder.architecture == "phi3"

    def window(self, layer: int) -> float:
        """How many tokens, its own included, a token sees in this layer."""
        size = self.number("sliding_window")
        return size if size and self.slides(layer) else math.inf

    def number(self, key: str) -> float:
        """A number of config.json, 0 for none."""
        if key not in self.config.values:
            return DEFAULTS.get(self.decoder.architecture, {}).get(key, 0.0)
        return 0.0 if self.config.values[key] is None else self.config.real(key)

    def linear(self, name: str, x: Rows) -> Rows:
        """x [n, n_in] times a matrix [n_out, n_in], plus its bias if it has one."""
        out = x @ self._weights[f"{name}.weight"].T
        bias = self._weights.get(f"{name}.bias")
        return out if bias is None else out + bias

    def norm(self, name: str, x: Rows) -> Rows:
        return self.rms(x, self._weights[f"{name}.weight"])

    def written(self, name: str, x: Rows) -> Rows:
        """x normed if the layer has such a norm."""
        return self.norm(name, x) if f"{name}.weight" in self._weights else x

    def rms(self, x: Rows, weight: Rows) -> Rows:
        """x over its root mean square along the last axis, times the weight."""
        mean = np.square(x, dtype=np.float32).mean(-1, keepdims=True)
        return (x / np.sqrt(mean + self.decoder.rms_eps) * weight).astype(np.float32)


def capped(x: Rows, limit: float) -> Rows:
    """x kept softly between -limit and limit; as it is for 0."""
    return np.tanh(x / limit) * limit if limit else x
