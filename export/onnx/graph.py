"""A Llama, Qwen2 or Qwen3 decoder as one ONNX graph of any length, for CPUs and GPUs.

Attention is ONNX Runtime's GroupQueryAttention: it turns queries and keys, appends to a cache whose
buffers are both input and output, and reads only the part in use. Inputs, for T tokens behind
`total` - T cached ones:

    input_ids [1, T], position_ids [1, T], logit_rows [M] (rows whose logits are wanted): int64
    seqlens_k [1] = total - 1, total_length []: int32
    attention_bias [1, 1, T, total]: added to the scores; masks what a tree's node must not see
    past_key_values.N.key and .value [1, n_kv_heads, S, head_dim]
    blk.N.attn_q.lora_A [n_in, R], .lora_B [R, n_out] and so on, if asked for; may be left out

Outputs: logits [1, M, V or K], hidden_states [1, M, n_embd] after the last norm if asked for, and
present.N.key and .value, to be bound to the inputs' own buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.backends.onnx.folder import CHANNEL
from edgespec.errors import ModelFileError, UsageError

from ..quant.blocks import EXACT, SMALLER, Blocks, blocks_of, joined
from ..read.checkpoint import HEAD_BIAS, TOKENS, Checkpoint, Decoder, Tensor
from .channels import Channels
from .file import OnnxFile

ARCHITECTURES = ("llama", "qwen2", "qwen3")
PRECISIONS = ("fp32", "fp16", CHANNEL, "int8", "int4")
ACCURACY = 4  # MatMulNBits may round its input to 8 bits per block, as llama.cpp does
HEAD_DIM = 16  # of which heads must be multiples, for GroupQueryAttention on a CPU
HEAD_BITS = 8  # of an int4 graph: four bits for the head cost more quality than they save time
Weights = tuple[str, Tensor]


@dataclass(frozen=True)
class GraphOptions:
    """precision: of PRECISIONS, int8-channel for CPUs. block: values with one scale, for int8 and
    int4. context: most tokens, 0 for what the model was trained for. hidden: whether hidden_states
    are given out. Raises: UsageError.
    """

    precision: str = "int4"
    block: int = 32
    context: int = 0
    hidden: bool = False
    lora: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}"
            )

    @property
    def dtype(self) -> type[np.floating]:
        return np.float16 if self.precision == "fp16" else np.float32

    @property
    def bits(self) -> int:
        return {"int8": 8, "int4": 4}.get(self.precision, 0)


def write_graph(
    checkpoint: Checkpoint,
    path: Path,
    options: GraphOptions,
    blocks: Mapping[str, Blocks] | None = None,
    told: Callable[[float], None] = lambda share: None,
) -> None:
    """Write the model as `path` and its weights beside it. Raises: ModelFileError, UsageError.

    blocks: matrices by name that are rounded already, in the options' bits and block.
    told: the share that is written.
    """
    architecture = checkpoint.decoder.architecture
    if architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{checkpoint.path} is of architecture {architecture!r}: expected one of "
            f"{', '.join(ARCHITECTURES)}; choose another model"
        )
    if checkpoint.decoder.head_dim % HEAD_DIM:
        raise ModelFileError(
            f"{checkpoint.path} has heads of {checkpoint.decoder.head_dim} numbers: expected a "
            f"multiple of {HEAD_DIM}, for ONNX Runtime; choose another model, or --npu"
        )
    with OnnxFile(path) as file:
        Builder(checkpoint, file, options, blocks or {}).write(told)


class Builder:
    """Writes the graph from the tokens up."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        file: OnnxFile,
        options: GraphOptions,
        blocks: Mapping[str, Blocks],
    ) -> None:
        self.checkpoint, self.file, self.options = checkpoint, file, options
        self.blocks = blocks
        self.decoder: Decoder = checkpoint.decoder
        self.dtype = options.dtype
        self.channels = Channels(file) if options.precision == CHANNEL else None
        self.summed: dict[str, str] = {}  # inputs of matrices, and the same with their sums behind

    def write(self, told: Callable[[float], None]) -> None:
        """Inputs, layers, head."""
        file, decoder = self.file, self.decoder
        file.input("input_ids", np.int64, [1, "T"])
        file.input("position_ids", np.int64, [1, "T"])
        file.input("logit_rows", np.int64, ["M"])
        file.input("seqlens_k", np.int32, [1])
        file.input("total_length", np.int32, [])
        file.input("attention_bias", self.dtype, [1, 1, "T", "total"])
        # The slot before the first token counts for the kernel, which wants a row for it.
        cos, sin = rotation(decoder, (self.options.context or decoder.n_context) + 1)
        file.weight("cos_cache", cos.astype(self.dtype))
        file.weight("sin_cache", sin.astype(self.dtype))
        residual, written = self.tokens(), ""
        for layer in range(decoder.n_layers):
            residual, written = self.attention(layer, residual, written)
            residual, written = self.feed_forward(layer, residual, written)
            told((layer + 1) / decoder.n_layers)
        self.head(file.node("Add", [residual, written], "last"))
        file.close(self.checkpoint.name)

    def tokens(self) -> str:
        """The vectors [1, T, n_embd] of the input's tokens.

        The table stays in 16 bits: only the rows of tokens that occur are ever read from the file.
        """
        table = self.checkpoint[TOKENS].floats() * np.float32(self.decoder.embedding_scale)
        exact = self.options.precision == "fp32" and self.checkpoint[TOKENS].kind != "F16"
        self.file.weight(TOKENS, table if exact else table.astype(np.float16))
        return self.cast(
            self.file.node("Gather", [TOKENS, "input_ids"], "tokens", axis=0),
            np.dtype(np.float32 if exact else np.float16),
        )

    def cast(self, name: str, dtype: np.dtype[np.floating]) -> str:
        """`name` in the graph's own type."""
        if dtype == self.dtype:
            return name
        kind = 10 if self.dtype == np.float16 else 1  # TensorProto.FLOAT16, FLOAT
        return self.file.node("Cast", [name], f"{name}.cast", to=kind)

    def attention(self, layer: int, residual: str, written: str) -> tuple[str, str]:
        """Residual and what attention writes to it."""
        at, decoder = f"blk.{layer}", self.decoder
        residual, x = self.norm(f"{at}.attn_norm.weight", residual, written)
        parts = ["attn_q", "attn_k", "attn_v"]
        shape = [1, decoder.n_kv_heads, "S", decoder.head_dim]
        cache = [f"past_key_values.{layer}.{which}" for which in ("key", "value")]
        present = [f"present.{layer}.{which}" for which in ("key", "value")]
        for past, now in zip(cache, present, strict=True):
            self.file.input(past, self.dtype, list(shape))
            self.file.output(now, self.dtype, list(shape))
        parts = [f"{at}.{part}" for part in parts]
        if decoder.architecture == "qwen3" or not self.can_fuse(parts):
            qkv = [self.linear(part, x) for part in parts]
        else:
            qkv = [self.fused(at, parts, "attn_qkv", x), "", ""]
        if decoder.architecture == "qwen3":
            qkv[:2] = [self.head_norm(part, out) for part, out in zip(parts, qkv[:2], strict=False)]
        inputs = [*qkv, *cache, "seqlens_k", "total_length", "cos_cache", "sin_cache",
                  "position_ids", "attention_bias"]  # fmt: skip
        mixed = self.file.node(
            "com.microsoft:GroupQueryAttention", inputs, [f"{at}.attn", *present],
            num_heads=decoder.n_heads, kv_num_heads=decoder.n_kv_heads, do_rotary=1,
            rotary_interleaved=int(decoder.rope_interleaved), scale=decoder.head_dim**-0.5,
        )  # fmt: skip
        return residual, self.linear(f"{at}.attn_output", mixed)

    def feed_forward(self, layer: int, residual: str, written: str) -> tuple[str, str]:
        """Residual and what the gated neurons write to it."""
        at = f"blk.{layer}"
        residual, x = self.norm(f"{at}.ffn_norm.weight", residual, written)
        parts = [f"{at}.ffn_gate", f"{at}.ffn_up"]
        if not self.can_fuse(parts):
            gate, up = (self.linear(part, x) for part in parts)
        else:
            both = self.fused(at, parts, "ffn_gate_up", x)
            gate, up = f"{at}.gate", f"{at}.up"
            self.file.node("Split", [both], [gate, up], axis=-1, num_outputs=2)
        open_ = self.file.node("com.microsoft:QuickGelu", [gate], f"{at}.open", alpha=1.0)
        return residual, self.linear(
            f"{at}.ffn_down", self.file.node("Mul", [open_, up], f"{at}.neurons")
        )

    def head(self, last: str) -> None:
        """Logits of the wanted rows, and their hidden states if asked for."""
        file, checkpoint = self.file, self.checkpoint
        rows = file.node("Gather", [last, "logit_rows"], "rows", axis=1)
        x = self.rms("output_norm.weight", rows, "hidden_states")
        if self.options.hidden:
            file.output(x, self.dtype, [1, "M", self.decoder.n_embd])
        matrix = checkpoint.head
        bits = bits_of(matrix, self.options.bits, HEAD_BITS)
        bias = checkpoint.head_bias
        out = self.matmul("logits" if bias is None else "output", {"head": matrix}, x, bits)
        if bias is not None:
            file.node("Add", [out, file.weight(HEAD_BIAS, bias.astype(self.dtype))], "logits")
        file.output("logits", self.dtype, [1, "M", matrix.shape[0]])

    def norm(self, name: str, residual: str, written: str) -> tuple[str, str]:
        """Add what was written to the residual; both the sum and its norm."""
        if not written:
            return residual, self.rms(name, residual, name.removesuffix(".weight"))
        weight = self.file.weight(name, self.checkpoint[name].floats().astype(self.dtype))
        out = name.removesuffix(".weight")
        self.file.node(
            "com.microsoft:SkipSimplifiedLayerNormalization", [residual, written, weight],
            [out, "", "", f"{out}.sum"], epsilon=self.decoder.rms_eps,
        )  # fmt: skip
        return f"{out}.sum", out

    def rms(self, name: str, x: str, out: str) -> str:
        """x over its root mean square, times the weight."""
        weight = self.file.weight(name, self.checkpoint[name].floats().astype(self.dtype))
        return self.file.node(
            "SimplifiedLayerNormalization", [x, weight], out, axis=-1,
            epsilon=self.decoder.rms_eps, stash_type=1,
        )  # fmt: skip

    def head_norm(self, at: str, x: str) -> str:
        """Queries or keys x [1, T, n * head_dim] normed head by head.

        GroupQueryAttention has inputs for that, but refuses them on a CPU.
        """
        heads = self.file.weight(f"{at}.heads", np.array([0, 0, -1, self.decoder.head_dim]))
        flat = self.file.weight(f"{at}.flat", np.array([0, 0, -1]))
        split = self.file.node("Reshape", [x, heads], f"{at}.split")
        normed = self.rms(f"{at}_norm.weight", split, f"{at}.normed")
        return self.file.node("Reshape", [normed, flat], f"{at}.joined")

    def can_fuse(self, parts: list[str]) -> bool:
        """Whether the matrices may be one: none has an adapter, all have such blocks."""
        if self.channels:
            return not self.options.lora
        names = [f"{part}.weight" for part in parts]
        forms = {(self.bits(n), SMALLER.get(self.checkpoint[n].kind)) for n in names}
        return not self.options.lora and len(forms) == 1

    def bits(self, name: str) -> int:
        """Of the matrix in the graph."""
        if name in self.blocks:
            return self.options.bits
        return bits_of(self.checkpoint[name], self.options.bits)

    def fused(self, at: str, parts: list[str], name: str, x: str) -> str:
        """Several matrices with one input as one: their rows one below the other."""
        names = [f"{part}.weight" for part in parts]
        matrices = {name: self.checkpoint[name] for name in names}
        out = self.matmul(f"{at}.{name}", matrices, x, self.bits(names[0]))
        biases = [f"{part}.bias" for part in parts]
        return self.biased(f"{at}.{name}", biases, out)

    def linear(self, name: str, x: str) -> str:
        """x times one matrix, plus its bias and its adapter if there are any."""
        matrix = self.checkpoint[f"{name}.weight"]
        out = self.matmul(name, {f"{name}.weight": matrix}, x, self.bits(f"{name}.weight"))
        if self.options.lora:
            out = self.adapted(name, matrix.shape, x, out)
        return self.biased(name, [f"{name}.bias"], out)

    def biased(self, name: str, biases: list[str], out: str) -> str:
        """`out` plus the biases that the model has."""
        found = [bias for bias in biases if bias in self.checkpoint.tensors]
        if not found:
            return out
        values = np.concatenate([self.checkpoint[bias].floats() for bias in biases])
        bias = self.file.weight(f"{name}.bias", values.astype(self.dtype))
        return self.file.node("Add", [out, bias], f"{name}.biased")

    def adapted(self, name: str, shape: tuple[int, ...], x: str, out: str) -> str:
        """`out` plus a low-rank adapter's part, nothing unless its inputs are given."""
        low, high = f"{name}.lora_A", f"{name}.lora_B"
        rank = f"{name}.rank"  # one per matrix: an adapter may choose it so
        self.file.input(low, self.dtype, [shape[1], rank])
        self.file.input(high, self.dtype, [rank, shape[0]])
        self.file.weight(low, np.zeros((shape[1], 1), self.dtype))
        self.file.weight(high, np.zeros((1, shape[0]), self.dtype))
        down = self.file.node("MatMul", [x, low], f"{name}.down")
        raised = self.file.node("MatMul", [down, high], f"{name}.raised")
        return self.file.node("Add", [out, raised], f"{name}.adapted")

    def matmul(self, name: str, matrices: Mapping[str, Tensor], x: str, bits: int) -> str:
        """x [1, T, n_in] times the rows [n_out, n_in] of all matrices in the wanted precision."""
        if self.channels:
            return self.channels.product(name, matrices, x)
        n_in, block = next(iter(matrices.values())).shape[1], self.options.block
        if not bits:
            weights = np.concatenate([matrix.floats() for matrix in matrices.values()])
            self.file.weight(f"{name}.weight", weights.T.astype(self.dtype))
            return self.file.node("MatMul", [x, f"{name}.weight"], name)
        parts = [
            self.blocks[part] if part in self.blocks else blocks_of(matrix, bits, block)
            for part, matrix in matrices.items()
        ]
        blocks = joined(parts)
        if blocks.rests is not None:
            x, n_in = self.with_sums(x, block), n_in + blocks.rests.shape[1]
            blocks = blocks.with_rests_behind()
        inputs = [
            self.file.weight(f"{name}.codes", blocks.packed()),
            self.file.weight(f"{name}.scales", blocks.scales.astype(self.dtype)),
        ]
        if blocks.zeros is not None:
            inputs.append(self.file.weight(f"{name}.zeros", blocks.packed_zeros()))
        return self.file.node(
            "com.microsoft:MatMulNBits", [x, *inputs], name, K=n_in, N=len(blocks.codes),
            bits=bits, block_size=blocks.block, accuracy_level=ACCURACY,
        )  # fmt: skip

    def with_sums(self, x: str, block: int) -> str:
        """x [1, T, n_in] and behind it the sums of its blocks; made once for all that read it."""
        if x not in self.summed:
            shape = self.file.weight(f"{x}.shape", np.array([0, 0, -1, block]))
            axis = self.file.weight(f"{x}.axis", np.array([3]))
            cut = self.file.node("Reshape", [x, shape], f"{x}.cut")
            sums = self.file.node("ReduceSum", [cut, axis], f"{x}.sums", keepdims=0)
            self.summed[x] = self.file.node("Concat", [x, sums], f"{x}.summed", axis=2)
        return self.summed[x]


def bits_of(matrix: Tensor, bits: int, unknown: int = 4) -> int:
    """Of a matrix in a graph of so many: where that is 4, what its kind needs, or `unknown`."""
    return EXACT.get(matrix.kind, unknown) if bits == 4 else bits


def rotation(decoder: Decoder, n_context: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines [n_context, rope_dim / 2] of the angles that positions turn pairs by."""
    pairs = np.arange(0, decoder.rope_dim, 2, dtype=np.float64)
    frequencies = decoder.rope_scale * decoder.rope_base ** (-pairs / decoder.rope_dim)
    if decoder.rope_factors:
        frequencies /= np.asarray(decoder.rope_factors, np.float64)
    angles = np.arange(n_context)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
