"""`edgespec export lora`: a PEFT adapter for llama.cpp and for ONNX Runtime."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path

from edgespec.errors import UsageError
from edgespec.files import place

ABOUT = (
    "Write a PEFT adapter as a GGUF adapter for llama.cpp and as one for ONNX Runtime, whose graph "
    "must have been exported from the same --base with --lora."
)
USAGE = "PEFT_FOLDER --base FILE_OR_FOLDER [-o OUT]"
EXAMPLE = "edgespec export lora my-adapter --base model.gguf"
DEFAULTS = None


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "adapter", type=place, metavar="PEFT_FOLDER", help="adapter_config.json and its weights"
    )
    parser.add_argument(
        "--base",
        required=True,
        type=place,
        metavar="PATH",
        help="model it adapts: a GGUF or a Hugging Face folder",
    )
    parser.add_argument(
        "-o", "--out", type=place, metavar="OUT", help="without ending; PEFT_FOLDER-lora here"
    )
    parser.add_argument("--to", choices=("both", "gguf", "onnx"), default="both", help="(both)")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="of the ONNX graph (fp32)"
    )


def run(args: Namespace) -> int:
    """Write the files, and print their paths."""
    folder, base = args.adapter, args.base
    if not base.exists():
        raise UsageError(f"{base} is not there: expected a GGUF or a folder; check --base")
    out = args.out or Path(f"{folder.resolve().name}-lora")
    lora = import_module("edgespec.export.lora")
    model = import_module("edgespec.export.read.source").open_checkpoint(base)
    kinds = ("gguf", "onnx") if args.to == "both" else (args.to,)
    for path in lora.export(folder, model, out, kinds=kinds, precision=args.precision):
        print(path)
    return 0
