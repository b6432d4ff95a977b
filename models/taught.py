"""Puts what `edgespec adapt train` taught a public pair's drafter beside the manifests.

    python -m edgespec.models.taught NAME --adapter mine.gguf --drafter FILE --graph mine-16k

Writes taught/NAME.gguf, the adapter in 8 bits, and taught/NAME.npy, the rows of the trimmed graph's
head; prints the lines for the manifest. The drafter is the pair's that was taught.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from edgespec.export.align.gguf_lora import open_gguf_lora
from edgespec.export.align.layers import with_layers
from edgespec.export.lora import write_gguf
from edgespec.export.read.gguf import open_gguf_checkpoint

from edgespec.backends import ModelOptions, open_model
from edgespec.files import sha256_of
from edgespec.store.pairs import folder


def bundle(name: str, adapter: Path, drafter: Path, graph: Path, layers: Sequence[int]) -> str:
    """Write both files; the manifest's lines. layers: those that are left, none: all."""
    base = open_gguf_checkpoint(drafter)
    lora = open_gguf_lora(adapter, with_layers(base, layers) if layers else base)
    place = folder() / "taught"
    place.mkdir(exist_ok=True)
    files = {"taught": place / f"{name}.gguf", "rows": place / f"{name}.npy"}
    write_gguf(replace(lora, path=Path(name)), files["taught"], in_8_bits=True)
    with closing(open_model(graph, ModelOptions())) as model:
        if model.token_ids is None:
            raise SystemExit(f"{graph} has a whole head: expected one of `edgespec export trim`")
        np.save(files["rows"], model.token_ids.astype(np.int32))
    lines = [f"layers = {list(layers)}"] if layers else []
    for key, file in files.items():
        lines += [f'{key} = "taught/{file.name}"', f'{key}_sha256 = "{sha256_of(file)}"']
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--adapter", type=Path, required=True, help="of adapt train")
    parser.add_argument("--drafter", type=Path, required=True, help="the GGUF that was taught")
    parser.add_argument("--graph", type=Path, required=True, help="of export trim --to onnx")
    parser.add_argument("--layers", type=Path, help="layers-N.json of adapt train --drop-layers")
    args = parser.parse_args()
    kept = json.loads(args.layers.read_bytes())["layers"] if args.layers else []
    print(bundle(args.name, args.adapter, args.drafter, args.graph, kept))


if __name__ == "__main__":
    main()
