"""Export a checkpoint to a folder for ONNX Runtime, checked against the original before it counts.

    from edgespec.export.onnx.export import export
    from edgespec.export.read.gguf import open_gguf_checkpoint
    print(export(open_gguf_checkpoint(Path("model-q4_0.gguf")), Path("model-int4")))

The graph is graph.py's, the comparison check.py's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgespec.backends.onnx.folder import CHANNEL, DESCRIPTION, FORMAT, GRAPH
from edgespec.types import Progress

from ..quant.blocks import Blocks
from ..quant.quantized import quantized
from ..read.checkpoint import HEAD, TOKENS, Checkpoint
from .check import Check, check_graph
from .folder import new_folder, write_vocabulary
from .graph import ARCHITECTURES, GraphOptions, bits_of, write_graph

WRITING = 0.35  # of the time of an export: 0.25 to 0.4 for 135 M to 1.5 B; the rest is comparing
# Per weight, the scales of blocks of 32 in it.
BYTES = {"fp32": 4.0, "fp16": 2.0, CHANNEL: 1.0, "int8": 1.17, "int4": 0.67}


@dataclass(frozen=True)
class OnnxReport:
    """What was written, and how it compares with the original."""

    path: Path
    quant: str
    n_params: int
    n_bytes: int
    check: Check

    def __str__(self) -> str:
        size = f"{self.n_params / 1e6:.1f} M parameters, {self.n_bytes / 1e6:.1f} MB"
        return f"{self.path}: {self.quant}, {size}; {self.check}"


@dataclass(frozen=True)
class Demands:
    """How an export is made and judged.

    texts: held-out text to compare on, a few built-in lines by default. max_loss: how much the
    perplexity may rise, as a share; by default what the precision allows (check.LOSS).
    calibration: text that int4 weights are fitted to; plain rounding without. blocks: matrices by
    name that are rounded already. builder_python: one with onnxruntime-genai, for architectures
    that onnx_graph does not write.
    """

    texts: Sequence[str] = ()
    calibration: Sequence[str] = ()
    blocks: Mapping[str, Blocks] = field(default_factory=dict)
    max_loss: float | None = None
    builder_python: Path | None = None


def export(
    checkpoint: Checkpoint,
    out: Path,
    options: GraphOptions | None = None,
    demands: Demands | None = None,
    progress: Progress | None = None,
) -> OnnxReport:
    """Write the folder `out`; complete and checked, or not at all.

    Raises: ModelFileError, UsageError, BackendError if the graph does not compute the same.
    """
    options, demands = options or GraphOptions(), demands or Demands()
    tell = progress or (lambda what, share: None)
    count = n_params(checkpoint)
    with new_folder(out, room(checkpoint, options, count)) as folder:
        write(checkpoint, folder / GRAPH, options, demands, within(tell, 0.0, WRITING))
        tokenizer = write_vocabulary(checkpoint.vocabulary, folder)
        about = description(checkpoint, options, count, tokenizer)
        if checkpoint.token_ids is not None:
            np.save(folder / "token_ids.npy", checkpoint.token_ids)
            about["table"] = table_of(checkpoint, folder / GRAPH)
        write_json(folder / DESCRIPTION, about)
        compared = within(tell, WRITING, 1.0)
        found = check_graph(
            checkpoint, folder, options.precision, demands.texts, demands.max_loss,
            told=lambda share: compared(f"comparing it with {checkpoint.path.name}", share),
        )  # fmt: skip
        write_json(folder / DESCRIPTION, {**about, "check": asdict(found)})
        n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    tell(f"wrote {out.name}", 1.0)
    return OnnxReport(out, str(about["quant"]), count, n_bytes, found)


def write(
    checkpoint: Checkpoint,
    path: Path,
    options: GraphOptions,
    demands: Demands,
    progress: Progress,
) -> None:
    """The graph, by whoever knows the architecture."""
    what = f"writing {checkpoint.path.name} as a graph"
    progress(what, 0.0)
    if checkpoint.decoder.architecture in ARCHITECTURES:
        blocks = dict(demands.blocks)
        if demands.calibration and options.bits == 4:
            blocks |= quantized(checkpoint, demands.calibration, options.block, progress)
        write_graph(checkpoint, path, options, blocks, lambda share: progress(what, share))
        return
    from .builder import write_built

    write_built(checkpoint, path, options, demands.builder_python)


def description(
    checkpoint: Checkpoint, options: GraphOptions, count: int, tokenizer: str
) -> dict[str, Any]:
    """What edgespec.json says."""
    decoder = checkpoint.decoder
    block = f"-b{options.block}" if options.bits else ""
    return {
        "format": FORMAT,
        "kind": "dynamic",
        "graph": "edgespec" if decoder.architecture in ARCHITECTURES else "genai",
        "architecture": decoder.architecture,
        "name": checkpoint.name,
        "n_vocab": decoder.n_vocab,
        "n_embd": decoder.n_embd,
        "n_context": options.context or decoder.n_context,
        "n_params": count,
        "quant": f"{options.precision}{block}",
        "tokenizer": tokenizer,
        "token_ids": None if checkpoint.token_ids is None else "token_ids.npy",
    }


def table_of(checkpoint: Checkpoint, graph: Path) -> dict[str, Any] | None:
    """Where the folder has all rows of a trimmed head: the input's table, if that is the head's.

    What the head's rows were multiplied by for the input is `scale`.
    """
    weights = onnx.load(graph, load_external_data=False).graph.initializer
    table = next((one for one in weights if one.name == TOKENS), None)
    if HEAD in checkpoint.tensors or table is None or not table.external_data:
        return None
    place = {entry.key: entry.value for entry in table.external_data}
    kind = "float16" if table.data_type == onnx.TensorProto.FLOAT16 else "float32"
    scale = checkpoint.decoder.embedding_scale
    return {"offset": int(place["offset"]), "type": kind, "scale": scale}


def room(checkpoint: Checkpoint, options: GraphOptions, count: int) -> int:
    """Bytes that the folder will take, rather too much.

    The table of the tokens comes on top, as does what a matrix of 8 bits has beyond 4.
    """
    table = math.prod(checkpoint[TOKENS].shape) * (4 if options.precision == "fp32" else 3)
    stored = (checkpoint[name] for name in checkpoint.tensors if name != TOKENS)
    wide = [one for one in stored if options.bits == 4 and bits_of(one, 4) == 8]
    more = sum(math.prod(one.shape) for one in wide) // 2
    return int(count * BYTES[options.precision] * 1.1) + table + more + (64 << 20)


def n_params(checkpoint: Checkpoint) -> int:
    """Weights of the exported model: those of a trimmed head only as far as they are kept."""
    tensors = checkpoint.tensors
    total = sum(math.prod(tensors[name].shape) for name in tensors)
    if checkpoint.token_ids is not None:
        whole = tensors[HEAD if HEAD in tensors else TOKENS].shape
        kept = len(checkpoint.token_ids) * whole[1]
        total += kept - (math.prod(whole) if HEAD in tensors else 0)
    return total


def within(progress: Progress, begin: float, end: float) -> Progress:
    """What tells `progress` of a part of the whole."""
    return lambda what, share: progress(what, begin + share * (end - begin))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Readable, with a line's end at the end."""
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
