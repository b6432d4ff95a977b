"""A PEFT adapter as a GGUF adapter for llama.cpp and as one for ONNX Runtime.

The GGUF holds `<tensor>.lora_a` [r, n_in] and `.lora_b` [n_out, r], in F16; ONNX Runtime's holds
the inputs of a graph exported with adapters, `blk.N.attn_q.lora_A` [n_in, r] and `.lora_B`
[r, n_out], with the scale in B. Rows of queries and keys are ordered as in the file each is for.

    from edgespec.export.lora import export
    export(Path("adapter"), open_gguf_checkpoint(Path("model.gguf")), Path("adapter-lora"))
"""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import MODEL_ARCH_NAMES
from numpy.typing import NDArray

from edgespec.backends.hf_tokenizer import read_object
from edgespec.errors import ModelFileError, UsageError

from .gguf.file import replacing
from .read.checkpoint import Checkpoint, Decoder
from .read.safetensors import SafeTensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight")
TURNED = ("attn_q", "attn_k")
INTERLEAVED = ("llama", "smollm3")  # architectures whose GGUFs have pairs (2i, 2i + 1)
ENDINGS = {"gguf": ".gguf", "onnx": ".onnx_adapter"}
# What changes what an adapter means, and that neither file can say.
REFUSED = {
    "use_dora": "a DoRA adapter",
    "modules_to_save": "whole modules beside the low-rank ones",
    "fan_in_fan_out": "matrices that are stored transposed",
    "lora_bias": "biases of its own",
    "layer_replication": "layers that are used twice",
    "trainable_token_indices": "tokens of its own",
    "alora_invocation_tokens": "tokens that switch it on",
}
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Adapted:
    """What is added to one matrix: scale * b @ a, rows in the half-split order of Hugging Face."""

    a: Floats  # [r, n_in]
    b: Floats  # [n_out, r]
    scale: float


@dataclass(frozen=True)
class Lora:
    """An adapter by GGUF names of matrices, without ".weight"."""

    path: Path
    decoder: Decoder
    matrices: dict[str, Adapted]

    @property
    def n_bytes(self) -> int:
        return sum(one.a.nbytes + one.b.nbytes for one in self.matrices.values())


def export(
    folder: Path,
    base: Checkpoint,
    out: Path,
    *,
    kinds: tuple[str, ...] = ("gguf", "onnx"),
    precision: str = "fp32",
) -> list[Path]:
    """Write `out` with an ending of ENDINGS for each of `kinds`, all or none; their paths.

    precision: fp16 for a graph exported so, else fp32.
    Raises: ModelFileError, UsageError.
    """
    lora = open_lora(folder, base)
    if precision not in ("fp32", "fp16"):
        raise UsageError(f"precision {precision!r}: expected fp32 or fp16, as the graph's")
    if "onnx" in kinds and "output" in lora.matrices:
        raise UsageError(
            f"{folder} adapts the head, which has no such inputs in an ONNX graph: expected "
            "matrices of layers only; write the other with --to gguf"
        )
    paths = {kind: out.with_name(out.name + ENDINGS[kind]) for kind in kinds}
    with ExitStack() as stack:
        room = lora.n_bytes + (1 << 20)
        partial = {kind: stack.enter_context(replacing(paths[kind], room)) for kind in kinds}
        if "gguf" in kinds:
            write_gguf(lora, partial["gguf"])
        if "onnx" in kinds:
            write_onnx(lora, partial["onnx"], np.float16 if precision == "fp16" else np.float32)
    return list(paths.values())


def open_lora(folder: Path, base: Checkpoint) -> Lora:
    """The adapter in `folder`, each part fitting its matrix of `base`.

    Raises: ModelFileError for what is missing, does not fit or cannot be carried over.
    """
    config = read_config(folder)
    decoder = base.decoder
    kind = next((a for a, name in MODEL_ARCH_NAMES.items() if name == decoder.architecture), None)
    if kind is None:
        raise ModelFileError(f"{base.path} is a {decoder.architecture!r}: expected a known kind")
    names = gguf.get_tensor_name_map(kind, decoder.n_layers)
    parts: dict[str, dict[str, Floats]] = {}
    modules: dict[str, str] = {}
    for stored, tensor in SafeTensors(folder / WEIGHTS).items():
        found = NAME.fullmatch(stored)
        name = names.get_name(found[1]) if found else None
        if found is None or name is None or f"{name}.weight" not in base.tensors:
            raise ModelFileError(
                f"{folder / WEIGHTS} has {stored}: expected lora_A and lora_B of matrices that "
                f"{base.path} has; name the model it was trained on with --base"
            )
        modules[name] = found[1]
        parts.setdefault(name, {})[found[2]] = tensor.floats()
    if not parts:
        raise ModelFileError(f"{folder / WEIGHTS} is empty: expected lora_A and lora_B tensors")
    matrices = {}
    for name, both in parts.items():
        check_shapes(folder / WEIGHTS, name, both, base)
        rank = len(both["A"])
        matrices[name] = Adapted(
            both["A"], both["B"], scale_of(config, folder, modules[name], rank)
        )
    return Lora(folder, decoder, matrices)


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises: ModelFileError for what cannot be carried over."""
    if not (folder / CONFIG).is_file():
        raise ModelFileError(f"{folder} has no {CONFIG}: expected a folder that PEFT wrote")
    if not (folder / WEIGHTS).is_file():
        raise ModelFileError(
            f"{folder} has no {WEIGHTS}: expected it beside {CONFIG}; fetch it, or save the "
            "adapter again with safe_serialization=True"
        )
    config = read_object(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise ModelFileError(f"{folder} says peft_type {config.get('peft_type')!r}: expected LORA")
    for key, words in REFUSED.items():
        if config.get(key):
            raise ModelFileError(
                f"{folder} has {words} ({key}): expected a plain LoRA; merge it into the model"
            )
    if config.get("bias", "none") != "none":
        raise ModelFileError(
            f"{folder} says bias = {config['bias']!r}: expected 'none'; merge it into the model"
        )
    return config


def check_shapes(path: Path, name: str, both: dict[str, Floats], base: Checkpoint) -> None:
    """Raises: ModelFileError unless A [r, n_in] and B [n_out, r] fit the matrix."""
    if missing := {"A", "B"} - set(both):
        raise ModelFileError(
            f"{path} has no lora_{missing.pop()} of {name}: expected both; fetch it again"
        )
    n_out, n_in = base.tensors[f"{name}.weight"].shape
    a, b = both["A"], both["B"]
    if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1], b.shape[1]) != (n_out, n_in, len(a)):
        raise ModelFileError(
            f"{path} has {list(b.shape)} x {list(a.shape)} for {name}: expected "
            f"[{n_out}, r] x [r, {n_in}]; name the model it was trained on"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ModelFileError(f"{path} has infinite values in {name}: train it again")


def scale_of(config: dict[str, Any], folder: Path, module: str, rank: int) -> float:
    """What b @ a of a module is multiplied by: alpha / r, or alpha / sqrt(r) of rsLoRA."""
    stated = matching(config.get("rank_pattern"), module, config.get("r"))
    alpha = matching(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if stated != rank:
        raise ModelFileError(
            f"{folder / CONFIG} says r = {stated!r} for {module}, whose weights have {rank}: "
            "expected the same; fetch both files again"
        )
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise ModelFileError(f"{folder / CONFIG} says lora_alpha = {alpha!r}: expected a number")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def matching(patterns: Any, module: str, default: Any) -> Any:
    """The value of the first pattern that is the module's name or a regular expression of its end.

    Source: PEFT, LoraConfig.rank_pattern and alpha_pattern.
    """
    for pattern, value in (patterns or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error:
            continue
    return default


def write_gguf(lora: Lora, path: Path, *, in_8_bits: bool = False) -> None:
    """The adapter for llama.cpp, which multiplies b @ a by adapter.lora.alpha / r.

    in_8_bits: half the size. Raises: UsageError then, for a rank that is no multiple of 32.
    """
    ranks = {len(one.a) for one in lora.matrices.values()}
    if in_8_bits and any(rank % 32 for rank in ranks):
        raise UsageError(
            f"{lora.path.name} has rank {min(ranks)}: expected a multiple of 32 to store in 8 "
            "bits; train it with --lora 32"
        )
    stored = in_blocks if in_8_bits else halved
    kind = gguf.GGMLQuantizationType.Q8_0 if in_8_bits else None
    alpha = max(one.scale * len(one.a) for one in lora.matrices.values())
    alpha = float(np.float32(alpha)) or 1.0
    writer = gguf.GGUFWriter(str(path), lora.decoder.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(lora.path.resolve().name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_block_count(lora.decoder.n_layers)  # a model of other layers has such tensors, too
    for name, one in lora.matrices.items():
        b = one.b * np.float32(one.scale * len(one.a) / alpha)
        if lora.decoder.architecture in INTERLEAVED:
            b = turned(name, b, lora.decoder)
        writer.add_tensor(f"{name}.weight.lora_a", stored(one.a), raw_dtype=kind)
        writer.add_tensor(f"{name}.weight.lora_b", stored(b), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def halved(values: Floats) -> NDArray[Any]:
    """In F16, which llama.cpp computes with as well; as they are where one is too large for it."""
    fits = np.abs(values).max(initial=0) <= np.finfo(np.float16).max
    return np.ascontiguousarray(values, np.float16 if fits else np.float32)


def in_blocks(values: Floats) -> NDArray[Any]:
    """As Q8_0."""
    return np.asarray(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0))


def write_onnx(lora: Lora, path: Path, dtype: type[np.floating[Any]]) -> None:
    """The adapter for ONNX Runtime, as inputs of the graph that was made from this base."""
    import onnxruntime

    values = {}
    for name, one in lora.matrices.items():
        b = one.b * np.float32(one.scale)
        if lora.decoder.rope_interleaved:
            b = turned(name, b, lora.decoder)
        for ending, matrix in (("lora_A", one.a), ("lora_B", b)):
            array = np.ascontiguousarray(matrix.T, dtype)
            values[f"{name}.{ending}"] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    adapter.set_parameters(values)
    adapter.export_adapter(str(path))


def turned(name: str, b: Floats, decoder: Decoder) -> Floats:
    """Rows [n_out, r] of queries and keys as pairs (2i, 2i + 1); other matrices' as they are."""
    if not name.endswith(TURNED):
        return b
    heads = b.reshape(-1, 2, decoder.head_dim // 2, b.shape[1])
    return heads.swapaxes(1, 2).reshape(b.shape)
