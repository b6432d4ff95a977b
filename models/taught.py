"""Puts what `edgespec adapt train` taught a public pair's drafter beside the manifests.

    python -m edgespec.models.taught NAME --adapter mine.gguf --drafter FILE --graph mine-16k

Writes taught/NAME.gguf, the adapter in 8 bits, and taught/NAME.npy, the rows of the trimmed graph's
head; prints the lines for the manifest. The drafter is the pair's that was taught.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from edgespec.export.align.gguf_lora import open_gguf_lora
from edgespec.export.align.layers import with_layers
from edgespec.export.gguf.file import replacing
from edgespec.export.lora import write_gguf
from edgespec.export.read.gguf import open_gguf_checkpoint
from numpy.typing import NDArray

from edgespec.backends import ModelOptions, open_model
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.files import sha256_of
from edgespec.store.pairs import folder

ROOM = 1 << 26  # bytes


def bundle(name: str, adapter: Path, drafter: Path, graph: Path, layers: Sequence[int]) -> str:
    """Write both files, whole or not; the manifest's lines. layers: those left, none: all.

    Raises: EdgeSpecError.
    """
    base = open_gguf_checkpoint(drafter)
    lora = open_gguf_lora(adapter, with_layers(base, layers) if layers else base)
    rows = rows_of(graph, base.decoder.n_vocab)
    place = folder() / "taught"
    place.mkdir(exist_ok=True)
    files = {"taught": place / f"{name}.gguf", "rows": place / f"{name}.npy"}
    with ExitStack() as stack:
        partial = {what: stack.enter_context(replacing(file, ROOM)) for what, file in files.items()}
        write_gguf(replace(lora, path=Path(name)), partial["taught"], in_8_bits=True)
        with partial["rows"].open("wb") as file:
            np.save(file, rows)
    lines = [f"layers = {list(layers)}"] if layers else []
    for what, path in files.items():
        lines += [f'{what} = "taught/{path.name}"', f'{what}_sha256 = "{sha256_of(path)}"']
    return "\n".join(lines)


def rows_of(graph: Path, n_vocab: int) -> NDArray[np.int32]:
    """The ids that a trimmed graph's head has. Raises: UsageError for another graph."""
    with closing(open_model(graph, ModelOptions())) as model:
        if model.token_ids is None or model.n_vocab != n_vocab:
            raise UsageError(
                f"{graph} has {model.n_vocab:,} tokens, and "
                f"{'all' if model.token_ids is None else 'some'} of them as rows: expected a graph "
                f"that `edgespec export trim` made of a drafter with {n_vocab:,}"
            )
        return model.token_ids.astype(np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--adapter", type=Path, required=True, help="of adapt train")
    parser.add_argument("--drafter", type=Path, required=True, help="the GGUF that was taught")
    parser.add_argument("--graph", type=Path, required=True, help="of export trim --to onnx")
    parser.add_argument("--layers", type=Path, help="layers-N.json of adapt train --drop-layers")
    args = parser.parse_args()
    kept = json.loads(args.layers.read_bytes())["layers"] if args.layers else []
    try:
        print(bundle(args.name, args.adapter, args.drafter, args.graph, kept))
    except EdgeSpecError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
