"""How llama.cpp keeps the weights of a model: as they lie in the file, or reordered for the CPU.

MAP leaves them in the file, mapped. REPACK lets llama.cpp choose, which takes AMX where a
processor announces it; a virtual one may announce what it may not use, and the process dies.
CPU_REPACK asks for the reordering that needs no AMX, tensor by tensor. gguf/trial.py finds out
which is the fastest here.

Qwen 1.5B in Q4_K_M on two cores with AVX-512 (three interleaved runs, each the best of four),
mapped and reordered without AMX: one token 89 and 95 ms, 4 tokens 248 and 163, 8 tokens 385 and
293, 256 tokens of a prompt 2.9 and 4.2 s, loading 0.8 and 1.8 s. The reordered copy is private
memory (0.8 GB instead of 0.2); what it was made of is given back (pages.py). Read without mapping
it was 1.3 GB and loaded in 2.5 s.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from typing import Any

from edgespec.backends.gguf.file import Header, Tensor
from edgespec.backends.llamacpp.library import Library

MAP, REPACK, CPU_REPACK = "map", "repack", "cpu-repack"
LOAD_READ, LOAD_MMAP = 0, 1  # LLAMA_LOAD_MODE_NONE, _MMAP
# Types whose rows llama.cpp reorders for its CPU kernels. Measured on one core, 16 layers of
# 1024: Q4_0 4 tokens 44.8 -> 32.6 ms, 16 tokens 125 -> 81; Q4_K_M 4 tokens 52 -> 36; Q8_0 and
# F16 gain nothing and stay mapped. With REPACK the copy is made of what is read, not mapped: beside
# a mapped file a 141 MB model took 315 MB, so 209, as much as mapped and not reordered.
REPACKED = ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "IQ4_NL")
# Those that it reorders on x86 by itself (Q2_K with AVX-512). It is not asked whether it can: any
# other type, or a table that rows are looked up in, would end the process.
BY_EIGHT = ("Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4")
MATRICES = (
    "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
    "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps",
)  # fmt: skip


class Override(ctypes.Structure):
    """llama_model_tensor_buft_override."""

    _fields_ = [("pattern", ctypes.c_char_p), ("layout", ctypes.c_void_p)]


def ways_of(header: Header, library: Library) -> tuple[str, ...]:
    """The ways to keep a model's weights that may gain, the plain one last."""
    gaining = sum(t.n_bytes for t in header.tensors.values() if t.kind in REPACKED)
    if gaining * 2 <= sum(t.n_bytes for t in header.tensors.values()):
        return (MAP,)
    layouts = library.layouts()
    both = "AMX" in layouts and "CPU_REPACK" in layouts and patterns_of(header)
    return (REPACK, CPU_REPACK, MAP) if both else (REPACK, MAP)


def set_layout(params: Any, way: str, header: Header, library: Library) -> Any:
    """Have llama_model_params keep the weights so; what must live until the model is open."""
    params.load_mode = LOAD_READ if way == REPACK else LOAD_MMAP
    params.use_extra_bufts = way == REPACK
    if way != CPU_REPACK:
        return None
    layout = library.layouts().get("CPU_REPACK")
    patterns = patterns_of(header) if layout else []
    overrides = (Override * (len(patterns) + 1))(*(Override(p.encode(), layout) for p in patterns))
    params.tensor_buft_overrides = ctypes.addressof(overrides)
    return overrides


def patterns_of(header: Header) -> list[str]:
    """Regular expressions that match the tensors to reorder and no others.

    Few, for llama.cpp reads each again for each tensor.
    """
    layers: dict[str, list[str]] = defaultdict(list)
    for name, tensor in header.tensors.items():
        block, _, matrix = name.removesuffix(".weight").rpartition(".")
        if name == "output.weight" and _by_eight(tensor):
            layers["output"].append("")
        elif matrix in MATRICES and block.startswith("blk.") and _by_eight(tensor):
            layers[matrix].append(block.removeprefix("blk."))
    same: dict[str, list[str]] = defaultdict(list)
    for matrix, found in layers.items():
        same["|".join(found)].append(matrix)
    return [
        rf"^blk\.({numbers})\.({'|'.join(names)})\.weight$" if numbers else r"^output\.weight$"
        for numbers, names in same.items()
    ]


def _by_eight(tensor: Tensor) -> bool:
    return tensor.kind in BY_EIGHT and len(tensor.shape) > 1 and tensor.shape[1] % 8 == 0
