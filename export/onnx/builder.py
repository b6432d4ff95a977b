"""Graphs of architectures that graph.py does not write, by onnxruntime-genai's model builder.

The builder needs torch and transformers 5, so it runs in a child process, with a Python that may be
of another environment. Its graphs know neither trees nor chosen rows.

    from edgespec.export.onnx.builder import write_built
    write_built(checkpoint, folder / "model.onnx", GraphOptions("int4"), Path("builder/bin/python"))
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from edgespec.errors import BackendError, UsageError

from ..read.checkpoint import Checkpoint
from ..read.hf_config import HfConfig, unturned_layers
from .builder_child import MISSING
from .graph import GraphOptions

CHILD = Path(__file__).with_name("builder_child.py")
PACKAGES = "onnxruntime-genai 'transformers>=5' torch onnx onnx-ir"
PRECISIONS = ("fp32", "int8", "int4")  # the builder has no fp16 for CPUs
PAST, PRESENT = "past_key_values.", "present."
ANGLES = slice(7, 9)  # GroupQueryAttention's inputs of cosines and sines
SLOTS = "S"  # of a cache, chosen by who runs the graph; the same before and after a run


def write_built(
    checkpoint: Checkpoint, path: Path, options: GraphOptions, python: Path | None = None
) -> None:
    """Write the model as `path` and its weights beside it, in path.parent.

    python: one that has the builder, this one by default.
    Raises: UsageError for what the builder cannot do or a missing package; BackendError.
    """
    check_options(checkpoint, options)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="builder-") as scratch:
        out = Path(scratch, "out")
        run(checkpoint.path, out, Path(scratch, "cache"), options, python or Path(sys.executable))
        built = out / "model.onnx"
        if not built.is_file():
            raise BackendError(f"the model builder wrote no {built.name}: update {PACKAGES}")
        model = onnx.load(built, load_external_data=False)
        fix_caches(model, checkpoint.decoder.head_dim)
        for layer in unturned_layers(HfConfig(checkpoint.path)):
            fix_rotation(model, layer)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = path.name + ".data"
        weights = built.with_name(built.name + ".data")
        if weights.is_file():
            os.replace(weights, path.with_name(path.name + ".data"))
        onnx.save(model, path)


def check_options(checkpoint: Checkpoint, options: GraphOptions) -> None:
    """Raises: UsageError for what the builder cannot do."""
    architecture = checkpoint.decoder.architecture
    if not checkpoint.path.is_dir():
        raise UsageError(
            f"{checkpoint.path} is a GGUF of architecture {architecture!r}, whose graph only the "
            "model builder writes: expected a Hugging Face folder; name that"
        )
    if checkpoint.token_ids is not None:
        raise UsageError(
            f"the head of a {architecture} cannot be trimmed in ONNX: expected llama, qwen2 or "
            "qwen3; trim it to a GGUF"
        )
    if options.precision not in PRECISIONS:
        raise UsageError(
            f"precision {options.precision!r} for a {architecture}: expected one of "
            f"{', '.join(PRECISIONS)}"
        )


def run(source: Path, out: Path, cache: Path, options: GraphOptions, python: Path) -> None:
    """The child process. Raises: UsageError, BackendError with its last line."""
    # One size of cache for all layers, those with a window too: a rollback then needs no thought.
    extra = ["windowed_kv_cache=false"]
    if options.bits:
        extra += [f"block_size={options.block}", "accuracy_level=4"]
    if options.bits == 4:
        # Unshared: with its default algorithm, which lost least when measured, the builder 0.18
        # forgets to write a head of 8 bits that is the embedding too.
        extra += ["matmul_mixed_precision=last_matmul:int8", "shared_embeddings=false"]
    if options.hidden:
        extra += ["include_hidden_states=true"]
    command = [str(python), str(CHILD), str(source), str(out), options.precision, str(cache)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            [*command, *extra], env=environment, capture_output=True, encoding="utf-8",
            errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(
            f"{python} cannot be run ({error.strerror or error}): expected a Python for "
            "--builder-python"
        ) from error
    last = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    if done.returncode == MISSING:
        raise UsageError(
            f"{python} has no {last}: expected one with {PACKAGES}; make an environment of their "
            "own (`python -m venv builder`), install them there, and name its Python with "
            "--builder-python"
        )
    if done.returncode:
        raise BackendError(
            f"the model builder stopped ({last[:300] or f'exit code {done.returncode}'}): "
            f"expected a graph; update {PACKAGES}"
        )


def fix_caches(model: onnx.ModelProto, head_dim: int) -> None:
    """State the caches' last size, which the builder leaves open, and one name for their slots.

    Raises: BackendError if the graph is none that its user could run.
    """
    names = {value.name for value in model.graph.input}
    if not {"input_ids", "attention_mask", f"{PAST}0.key", f"{PAST}0.value"} <= names:
        raise BackendError(
            f"the model builder's graph takes {', '.join(sorted(names)[:4])}: expected input_ids, "
            "attention_mask and past_key_values; use onnxruntime-genai 0.18"
        )
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith((PAST, PRESENT)):
            sizes = value.type.tensor_type.shape.dim
            sizes[2].dim_param, sizes[3].dim_value = SLOTS, head_dim


def fix_rotation(model: onnx.ModelProto, layer: int) -> None:
    """Leave a layer's queries and keys as they are. Raises: BackendError if it is not found."""
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention" and f"{PRESENT}{layer}.key" in node.output:
            for attribute in node.attribute:
                if attribute.name == "do_rotary":
                    attribute.i = 0
            node.input[ANGLES] = ["", ""]
            return
    raise BackendError(
        f"the model builder's graph has no attention for layer {layer}: expected one; use "
        "onnxruntime-genai 0.18"
    )
