"""A model as graphs of fixed shapes for an NPU: written, quantized, compiled ahead, checked.

The folder has a graph for one token and one for a draft's worth, which share their weights, the
tokens' vectors and the positions' factors as arrays, and the tokenizer. The NPU holds no table of
the vocabulary's size but the head. edgespec.backends.onnx.static runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgespec.backends.onnx import providers as onnx_providers
from edgespec.backends.onnx.folder import DESCRIPTION, FORMAT, GRAPH
from edgespec.backends.vocabulary import open_tokenizer
from edgespec.errors import UsageError
from edgespec.types import Progress

from ..onnx.export import n_params, write_json
from ..onnx.folder import new_folder, write_vocabulary
from ..read.checkpoint import TOKENS, Checkpoint
from .check import StaticReport, check_static
from .file import write_graphs
from .graph import FLOAT_MASK, Graph, rotation, static_graph
from .qdq import encodings, mask_of, quantized
from .ranges import WIDTH, seen_ranges

QUANTS = {"fp32": "F32", "fp16": "F16", "int8": "W8A16"}
FILES = (GRAPH, "wide.onnx")
LEAST_CONTEXT, LONGEST_DRAFT = 32, 64
# Pieces of the text: most, characters that hold a piece's tokens, and which of them are held out.
MOST_PIECES, PIECE_CHARACTERS, HELD_OUT = 56, 8 * WIDTH, 7
LEAST_TOKENS = 16  # of a piece


@dataclass(frozen=True)
class StaticOptions:
    """context: most tokens. draft_tokens: one less than the wide graph's width. precision: of
    QUANTS. device: what to compile for ahead of time, `qnn` or `qnn:57`; "" compiles nothing.
    """

    context: int = 1024
    draft_tokens: int = 4
    precision: str = "int8"
    device: str = ""

    @property
    def widths(self) -> tuple[int, int]:
        return 1, self.draft_tokens + 1


def export_static(
    checkpoint: Checkpoint, out: Path, options: StaticOptions, text: str, progress: Progress
) -> StaticReport:
    """Write the folder `out` and say how it compares with the original.

    text: of the kind the model is for. A part is held out and checked with, the rest gives the
    ranges that whole numbers need.
    Raises: UsageError, ModelFileError; nothing is left of a folder that does not pass.
    """
    check_options(options, checkpoint)
    with new_folder(out, estimated_bytes(checkpoint, options)) as folder:
        name = write_vocabulary(checkpoint.vocabulary, folder)
        tokenizer = open_tokenizer(folder, name, n_vocab=checkpoint.decoder.n_vocab)
        pieces = pieces_of(text, tokenizer, min(WIDTH, options.context))
        tokenizer.close()
        held_out = pieces[HELD_OUT - 1 :: HELD_OUT] or pieces[-1:]
        seen = [piece for piece in pieces if piece not in held_out]
        graphs, mask = graphs_of(checkpoint, options, seen, progress)
        write_graphs(folder, dict(zip(FILES, graphs, strict=True)))
        write_arrays(folder, checkpoint, options)
        about = described(checkpoint, options, mask, name)
        write_json(folder / DESCRIPTION, about)
        report = check_static(checkpoint, folder, options.precision, held_out, progress)
        if options.device:
            about["compiled"] = compile_ahead(folder, about["graphs"], options.device, progress)
            write_json(folder / DESCRIPTION, about)
    return report


def check_options(options: StaticOptions, checkpoint: Checkpoint) -> None:
    """Raises: UsageError for sizes that cannot be, or a device that nothing is compiled for."""
    if options.precision not in QUANTS:
        known = ", ".join(QUANTS)
        raise UsageError(f"precision {options.precision!r} is unknown: expected one of {known}")
    if not 1 <= options.draft_tokens <= LONGEST_DRAFT:
        raise UsageError(
            f"{options.draft_tokens} draft tokens: expected 1 to {LONGEST_DRAFT}, the width of "
            "the second graph less one"
        )
    least, most = max(LEAST_CONTEXT, 2 * options.widths[1]), checkpoint.decoder.n_context
    if not least <= options.context <= most:
        raise UsageError(
            f"a context of {options.context} tokens: expected {least} to {most}, what "
            f"{checkpoint.name} was trained for; it is fixed in the graph"
        )
    if options.device and onnx_providers.find(options.device)[0].name == "cpu":
        raise UsageError("cpu compiles nothing ahead of time: expected an NPU, such as qnn")


def estimated_bytes(checkpoint: Checkpoint, options: StaticOptions) -> int:
    """Room the folder will take, rather too much."""
    decoder = checkpoint.decoder
    weights = n_params(checkpoint) + checkpoint.head.shape[0] * decoder.n_embd
    each = {"fp32": 4, "fp16": 2, "int8": 1}[options.precision]
    table = 4 * decoder.n_vocab * decoder.n_embd
    return weights * each * (3 if options.device else 1) + table + (16 << 20)


def pieces_of(text: str, tokenizer: Any, length: int) -> list[list[int]]:
    """Token ids of parts spread over `text`, at most `length` each.

    Raises: UsageError if it is too short for two.
    """
    n_pieces = min(MOST_PIECES, max(2, len(text) // PIECE_CHARACTERS))
    pieces = []
    for i in range(n_pieces):
        start = len(text) * i // n_pieces
        end = min(len(text) * (i + 1) // n_pieces, start + PIECE_CHARACTERS)
        pieces.append(tokenizer.encode(text[start:end].strip(), bos=True)[:length])
    if min(len(piece) for piece in pieces) < LEAST_TOKENS:
        raise UsageError(
            f"the text has {len(text)} characters: expected a page or more of real text to "
            "calibrate and to check with; give --text FILE"
        )
    return pieces


def graphs_of(
    checkpoint: Checkpoint, options: StaticOptions, seen: list[list[int]], progress: Progress
) -> tuple[list[Graph], float]:
    """The graphs of both widths in the wanted precision, and their mask."""
    graphs = [static_graph(checkpoint, width, options.context) for width in options.widths]
    if options.precision == "fp32":
        return graphs, FLOAT_MASK
    if options.precision == "fp16":
        return [graph.half() for graph in graphs], FLOAT_MASK
    ranges = seen_ranges(checkpoint, seen, options.context, progress)
    found = encodings(graphs[0], ranges)
    return [quantized(graph, found) for graph in graphs], mask_of(ranges)


def write_arrays(folder: Path, checkpoint: Checkpoint, options: StaticOptions) -> None:
    """The tokens' vectors, the positions' factors, and the ids that a trimmed head has."""
    table, decoder = checkpoint[TOKENS], checkpoint.decoder
    exact = options.precision == "fp32" and table.kind != "F16"
    vectors = table.floats() * np.float32(decoder.embedding_scale)
    np.save(folder / "table.npy", vectors.astype(np.float32 if exact else np.float16))
    np.save(folder / "rotation.npy", np.stack(rotation(decoder, options.context)))
    if checkpoint.token_ids is not None:
        np.save(folder / "token_ids.npy", checkpoint.token_ids.astype(np.int32))


def described(
    checkpoint: Checkpoint, options: StaticOptions, mask: float, tokenizer: str
) -> dict[str, Any]:
    """What edgespec.json says."""
    decoder = checkpoint.decoder
    return {
        "format": FORMAT,
        "kind": "static",
        "architecture": decoder.architecture,
        "name": checkpoint.name,
        "n_vocab": decoder.n_vocab,
        "n_embd": decoder.n_embd,
        "n_context": options.context,
        "n_params": n_params(checkpoint),
        "quant": QUANTS[options.precision],
        "tokenizer": tokenizer,
        "token_ids": None if checkpoint.token_ids is None else "token_ids.npy",
        "head_dim": decoder.head_dim,
        "mask": mask,
        "table": "table.npy",
        "rotation": "rotation.npy",
        "graphs": {str(w): file for w, file in zip(options.widths, FILES, strict=True)},
    }


def compile_ahead(
    folder: Path, graphs: dict[str, str], device: str, progress: Progress
) -> dict[str, dict[str, str]]:
    """Compile the graphs for `device`, file by width, under the provider's name.

    Raises: UsageError for a graph that the provider does not take whole.
    """
    provider, _ = onnx_providers.find(device)
    compiled: dict[str, str] = {}
    for width, file in graphs.items():
        target = f"{Path(file).stem}.{provider.name}.onnx"
        onnx_providers.compile_graph(folder / file, folder / target, device)
        compiled[width] = target
        progress(f"compiling for {device}", len(compiled) / len(graphs))
    return {provider.name: compiled}
