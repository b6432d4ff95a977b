"""A padded model in 4 bits, fitted to the text of the small one it is made of.

Block 32 comes as a graph for ONNX Runtime and, with the same weights, as a Q4_0 file for llama.cpp;
block 128 as a graph.

    from edgespec.export.pad.int4 import padded_int4, q4_0_of
    folder = padded_int4(Path("small.gguf"), Path("cache"), 32)   # made once, then found
    file = q4_0_of(folder)
"""

from __future__ import annotations

from pathlib import Path

from edgespec.backends.onnx.folder import DESCRIPTION
from edgespec.errors import UsageError
from edgespec.types import Progress

from ..onnx.export import Demands, export
from ..onnx.graph import GraphOptions
from ..quant.blocks import GGML_BLOCK
from ..quant.quantized import quantized, write_q4_0
from ..read.gguf import open_gguf_checkpoint
from .model import padded
from .own_text import own_text

BLOCKS = (32, 128)
N_HELD_OUT = 4  # conversations of the model's own to check with
F16, INT4, Q4_0 = "-f16.gguf", "-int4-b", "-q4_0g.gguf"  # what follows the padded model's name


def padded_int4(
    source: Path, cache: Path, block: int = GGML_BLOCK, progress: Progress | None = None
) -> Path:
    """The folder, in `cache`, of the padded `source` in blocks of 32 or 128; made on first use.

    Raises: as `pad.padded`, `onnx.export` and `quantized`.
    """
    if block not in BLOCKS:
        raise UsageError(f"block is {block}: expected 32 or 128 weights with one scale")
    wide = padded("f16", source, cache, progress)
    folder = wide.with_name(f"{wide.name.removesuffix(F16)}{INT4}{block}")
    file = q4_0_of(folder)
    if (folder / DESCRIPTION).exists() and (block != GGML_BLOCK or file.exists()):
        return folder
    checkpoint = open_gguf_checkpoint(wide)
    texts = own_text(source, progress=progress)
    blocks = quantized(checkpoint, texts[:-N_HELD_OUT], block, progress)
    if block == GGML_BLOCK:
        write_q4_0(checkpoint, blocks, file)
    # Built-in lines may be nothing that a small model knows; what it said last was not fitted to.
    demands = Demands(texts=texts[-N_HELD_OUT:], blocks=blocks)
    export(checkpoint, folder, GraphOptions("int4", block), demands, progress)
    return folder


def q4_0_of(folder: Path) -> Path:
    """The GGUF file that `padded_int4` makes beside a folder of blocks of 32."""
    return folder.with_name(folder.name.rpartition(INT4)[0] + Q4_0)
