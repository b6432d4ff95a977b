"""`edgespec devices`: where a model can run, by the names that --device takes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from edgespec.cli.output import add_json, card_line, write_json
from edgespec.measure import device_card

ABOUT = "List where models can run: the names that --device and --device-draft take."
USAGE = "[--json FILE]"
EXAMPLE = "edgespec devices"
DEFAULTS = None


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    add_json(parser)


def run(args: Namespace) -> int:
    """Print this machine's card and its devices."""
    from edgespec.backends.llamacpp import devices

    card, found = device_card(), devices()
    if args.json != "-":
        print(card_line(card))
        for device in found:
            print(f"  {device}")
    if args.json:
        write_json({"device": card, "devices": [asdict(device) for device in found]}, args.json)
    return 0
