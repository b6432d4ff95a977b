"""`edgespec export ARTEFACT`: the kinds of files that the offline tools make, a module for each.

edgespec.cli.export_NAME has what a command module has; it hands over to edgespec.export.
"""

from __future__ import annotations

ARTEFACTS = {
    "pad": "widen a small Llama with inert weights, to measure what size costs",
    "trim": "keep only the output rows of a drafter that its target's text needs",
    "onnx": "a model as a graph for ONNX Runtime, dynamic for CPUs and GPUs or static for NPUs",
    "lora": "a PEFT adapter as a file for llama.cpp and one for ONNX Runtime",
}
EXAMPLE = "edgespec export trim drafter.gguf --text corpus.txt --coverage 0.95"
