"""`edgespec export pad`: a small model that costs what a large one costs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module

from edgespec.cli.output import show_progress
from edgespec.config import cache_folder
from edgespec.files import place
from edgespec.store import pairs

ABOUT = "Widen a small Llama with inert weights, to measure what size costs."
USAGE = "[--kind KIND] [--source FILE] [--folder DIR]"
EXAMPLE = "edgespec export pad --kind q8_0"
DEFAULTS = None


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--kind", default="f16", help="f16, q8_0, q4_0, q4_k_m, int4, .. (f16)")
    parser.add_argument(
        "--source", type=place, metavar="FILE", help="model to pad, the demo target by default"
    )
    parser.add_argument(
        "--folder", type=place, metavar="DIR", help="where to put it, the cache by default"
    )


def run(args: Namespace) -> int:
    """Make the file unless it is there, and print its path."""
    source = args.source or pairs.bundled(pairs.find("demo").target)
    folder = args.folder or cache_folder()
    pad = import_module("edgespec.export.pad.padded")
    print(pad.padded(args.kind, source, folder, show_progress))
    return 0
