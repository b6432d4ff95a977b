"""`edgespec models`: the known pairs, and what one of them is made of."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edgespec import pairs
from edgespec.cli.output import add_json, write_json
from edgespec.content import sha256_of
from edgespec.errors import ModelFileError, UsageError

ABOUT = "List the pairs of models that --pair knows, or show one and check its files."
USAGE = "(list | show NAME) [--json FILE]"
EXAMPLE = "edgespec models show demo"
DEFAULTS = None


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("action", metavar="list|show", choices=("list", "show"))
    parser.add_argument("name", metavar="NAME", nargs="?", help="a pair, with show")
    add_json(parser)


def run(args: Namespace) -> int:
    """List or show."""
    if (args.name is None) != (args.action == "list"):
        raise UsageError("expected `edgespec models list`, or `edgespec models show NAME`")
    if args.action == "list":
        shown = [pairs.find(name) for name in pairs.names()]
        rows = [{"name": pair.name, "about": pair.about} for pair in shown]
        width = max(map(len, pairs.names()), default=0) + 2
        lines = [f"{row['name']:<{width}}{row['about']}" for row in rows]
        data: dict[str, object] = {"pairs": rows}
    else:
        pair = pairs.find(args.name)
        data = described(pair)
        lines = [f"{key:<12}{value}" for key, value in data.items()]
    if args.json != "-":
        print("\n".join(lines))
    if args.json:
        write_json(data, args.json)
    return 0


def described(pair: pairs.Pair) -> dict[str, object]:
    """A pair's manifest and the state of its files."""
    out: dict[str, object] = {"name": pair.name, "about": pair.about}
    if pair.target.pad:
        out["note"] = pairs.PADDED_NOTE
    out |= {"licence": pair.licence, "vocabulary": pair.vocabulary}
    for part, entry in (("target", pair.target), ("drafter", pair.drafter)):
        out[part] = f"{entry.file}: {state(entry)}"
    return out


def state(entry: pairs.ModelEntry) -> str:
    """Whether a file is there and is the one the manifest names."""
    try:
        path = pairs.bundled(entry)
    except ModelFileError:
        return "missing: reinstall EdgeSpec"
    if sha256_of(path) != entry.sha256:
        return "not the file the manifest names (its sha256 differs): reinstall EdgeSpec"
    return f"{path.stat().st_size / 1e6:.1f} MB, sha256 as in the manifest"
