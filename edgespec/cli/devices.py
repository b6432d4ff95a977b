"""`edgespec devices`: where a model can run, by the names that --device takes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from edgespec.cli.output import add_json, card_line, write_json
from edgespec.device import device_card

ABOUT = "List where models can run: the names that --device and --device-draft take."
USAGE = "[--json FILE]"
EXAMPLE = "edgespec devices"
DEFAULTS = None


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    add_json(parser)


def run(args: Namespace) -> int:
    """Print this machine's card and its devices."""
    from edgespec.backends.gguf.trial import in_words
    from edgespec.backends.gguf.tried import timed_ways
    from edgespec.backends.llamacpp.library import library
    from edgespec.backends.onnx import providers as onnx_providers

    llamacpp = library()
    card, for_gguf, for_onnx = device_card(), llamacpp.devices(), onnx_providers.devices()
    if args.json != "-":
        print(card_line(card))
        print(f"GGUF models (llama.cpp, threads wait {llamacpp.waiting}):")
        for device in for_gguf:
            print(f"  {device.name:<10}{device.kind:<5}{device.description}")
        for path, ways in timed_ways().items():
            print(f"  {Path(path).name} by its width: {in_words(ways)}")
        print(f"ONNX models (ONNX Runtime, threads wait {onnx_providers.WAITING}):")
        for place in for_onnx:
            print(f"  {place.name:<10}{place.kind:<5}{place.description}")
    if args.json:
        found = [{"backend": "llamacpp", **asdict(device)} for device in for_gguf]
        found += [{"backend": "onnx", **asdict(place)} for place in for_onnx]
        waiting = {"waiting": llamacpp.waiting, "waiting_onnx": onnx_providers.WAITING}
        more = {**waiting, "loading": timed_ways()}
        write_json({"device": card, "devices": found, **more}, args.json)
    return 0
