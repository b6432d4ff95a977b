"""`edgespec export onnx`: a model as a graph for ONNX Runtime, checked against the original."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from edgespec.backends.onnx.folder import CHANNEL
from edgespec.cli.output import show_progress
from edgespec.errors import UsageError
from edgespec.files import place, text_of
from edgespec.option import real, whole

ABOUT = (
    "Write a model as a folder for ONNX Runtime (-m FOLDER, -md FOLDER), compared with the "
    "original before it counts. In int4 a quantized file's matrices keep their numbers, those of "
    "more than 4 bits in 8. In int8-channel, one scale for a row, a CPU that is quick at whole "
    "numbers verifies eight tokens in little more than the time of one. With --npu the shapes are "
    "fixed, as NPUs want them."
)
USAGE = "MODEL [-o FOLDER] [--precision P] [--npu] [options]"
EXAMPLE = "edgespec export onnx model-q4_0.gguf -o model-int4"
DEFAULTS = None
PRECISIONS = ("fp32", "fp16", CHANNEL, "int8", "int4")


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    add = parser.add_argument
    add("model", type=place, metavar="MODEL", help="a GGUF file, or a Hugging Face folder")
    add("-o", "--out", type=place, metavar="FOLDER", help="what to write (MODEL-PRECISION here)")
    add("--precision", choices=PRECISIONS, help="of the weights (int4, for NPUs int8)")
    add("--block", type=int, choices=(32, 128), help="weights with one scale (32)")
    add("-c", "--context", type=whole, default=0, metavar="N", help="positions (the model's own)")
    add("--text", nargs="+", metavar="FILE", help="held-out text to compare on")
    add("--calibrate", nargs="+", metavar="FILE", help="text that int4 is fitted to, NPUs' ranges")
    add(
        "--max-loss",
        type=real,
        metavar="P",
        help="rise of perplexity to accept, 0.01: 1 %%",
    )
    add("--hidden", action="store_true", help="give out hidden states too")
    add("--lora", action="store_true", help="inputs for adapters (`edgespec export lora`)")
    add("--builder-python", type=place, metavar="PYTHON",
        help="one with onnxruntime-genai, for what is not llama, qwen2 or qwen3")  # fmt: skip
    add("--npu", nargs="?", const="", metavar="DEVICE",
        help="fixed shapes; with qnn also compiled for it")  # fmt: skip
    add("--draft-tokens", type=whole, metavar="K", help="width of the second NPU graph less 1 (4)")


def run(args: Namespace) -> int:
    """Export, and print what was written and how it compares."""
    checkpoint = import_module("edgespec.export.read.source").open_checkpoint(args.model)
    if args.npu is not None:
        print(static(args, checkpoint))
        return 0
    if args.draft_tokens is not None:
        raise UsageError("--draft-tokens is for graphs of fixed width: expected --npu with it")
    onnx = import_module("edgespec.export.onnx.export")
    precision = args.precision or "int4"
    if precision == CHANNEL and args.calibrate:
        raise UsageError(f"--calibrate is not for {CHANNEL}: leave one of them out")
    options = import_module("edgespec.export.onnx.graph").GraphOptions(
        precision, block_of(args), args.context, args.hidden, args.lora
    )
    demands = onnx.Demands(
        texts=read(args.text),
        calibration=read(args.calibrate),
        max_loss=args.max_loss,
        builder_python=args.builder_python,
    )
    print(onnx.export(checkpoint, out_of(args, precision), options, demands, show_progress))
    return 0


def static(args: Namespace, checkpoint: object) -> object:
    """The report of an export in fixed shapes. Raises: UsageError for what has no sense there."""
    for flag in ("text", "max_loss", "hidden", "lora", "builder_python"):
        if getattr(args, flag):
            raise UsageError(f"--{flag.replace('_', '-')} is not for --npu: leave one of them out")
    npu = import_module("edgespec.export.npu.export")
    precision, k = args.precision or "int8", args.draft_tokens
    options = npu.StaticOptions(args.context or 1024, 4 if k is None else k, precision, args.npu)
    text = "\n\n".join(read(args.calibrate) or import_module("edgespec.export.onnx.sample").TEXTS)
    return npu.export_static(checkpoint, out_of(args, precision), options, text, show_progress)


def block_of(args: Namespace) -> int:
    """Weights with one scale. Raises: UsageError where a row has one."""
    if args.block and args.precision == CHANNEL:
        raise UsageError(f"--block is not for {CHANNEL}, one scale for a row: leave it out")
    return args.block or 32


def out_of(args: Namespace, precision: str) -> Path:
    """The folder to write."""
    source = args.model.resolve()
    name = source.name if source.is_dir() else source.stem
    return args.out or Path(f"{name}-{precision}")


def read(files: Sequence[str] | None) -> list[str]:
    """The texts in `files`. Raises: UsageError for one that cannot be read or is empty."""
    texts = []
    for name in files or ():
        texts.append(text_of(name, expected="a text file in UTF-8"))
        if not texts[-1].strip():
            raise UsageError(f"{name} is empty: expected some text")
    return texts
