"""Run by test_webgpu.py in an environment of its own: a static model on WebGPU and on the CPU.

    python on_webgpu.py FLOATS QUANTIZED FILE      writes what it found to FILE, as JSON

That environment has numpy and onnxruntime-webgpu alone, so the tokenizer is left out.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgespec.backends import ModelOptions
from edgespec.backends.onnx import model as onnx_backend
from edgespec.backends.onnx import providers as onnx_providers
from edgespec.errors import EdgeSpecError


def providers_of_nodes(graph: Path, folder: Path) -> dict[str, int]:
    """Nodes that ran on each provider, by ONNX Runtime's own profile of one step."""
    ort, (provider, _) = onnx_providers.runtime(), onnx_providers.find("webgpu")
    options = onnx_providers.session_options(provider)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(str(graph), options, providers=[provider.ep], enable_fallback=0)
    session.run(None, {v.name: np.zeros(v.shape, np.float32) for v in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    names = [e["args"].get("provider") for e in events if e.get("cat") == "Node"]
    return dict(Counter(name for name in names if name))


def refusal(folder: Path) -> str:
    """What is said of a model with nodes that WebGPU does not take."""
    try:
        onnx_backend.OnnxModel(folder, ModelOptions(device="webgpu")).close()
    except EdgeSpecError as error:
        return str(error)
    return ""


def compared(folder: Path) -> dict[str, Any]:
    """Logits of both devices: all at once, after a rollback, and of a tree."""
    cpu, gpu = (
        onnx_backend.OnnxModel(folder, ModelOptions(device=device, n_threads=1))
        for device in ("cpu", "webgpu")
    )
    tokens = np.random.default_rng(0).integers(5, cpu.n_vocab, 64).tolist()
    rows = []
    for model in (cpu, gpu):
        all_at_once = model.forward(tokens).copy()
        model.truncate(40)
        again = np.concatenate([model.forward([token]).copy() for token in tokens[40:44]])
        tree = model.forward([7, 8, 9], [-1, 0, 0]).copy()
        model.keep([0, 2])
        rows.append(np.concatenate([all_at_once, again, tree, model.forward([11])]))
        model.close()
    expected, found = rows
    return {
        "n_rows": len(expected),
        "difference": float(np.abs(found - expected).max()),
        "spread": float(np.ptp(expected)),
        "agreement": float((found.argmax(1) == expected.argmax(1)).mean()),
        "rollback": float(np.abs(found[64:68] - found[40:44]).max()),
    }


def main(folder: Path, quantized: Path, out: Path) -> None:
    onnx_backend.open_tokenizer = lambda *_, **__: SimpleNamespace(close=lambda: None)
    graph = folder / "wide.onnx"
    found = {
        "devices": [device.name for device in onnx_providers.devices()],
        "nodes": providers_of_nodes(graph, out.parent),
        "refusal": refusal(quantized),
        **compared(folder),
    }
    out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
