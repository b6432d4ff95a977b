"""`edgespec tune`: try what an engineer would, and keep the fastest as a pair with a name."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgespec.backends.filling import price
from edgespec.cli.bench import add_prompts, prompt_sets
from edgespec.cli.output import add_json, card_line, show_progress, write_json
from edgespec.config import Config
from edgespec.device import device_card, version
from edgespec.errors import UsageError
from edgespec.files import model_name, place
from edgespec.option import real
from edgespec.store import tuned
from edgespec.tune.flow import Tuning, tune, values_of

ABOUT = "Find how a pair of models runs fastest on this device, and name it for --pair."
USAGE = "[--name NAME] [--try FILE] [--minutes X] [--prompts FILE] [options]"
EXAMPLE = "edgespec tune -m target.gguf -md drafter.gguf --try drafter-trimmed.gguf"
DEFAULTS = Config()
SCHEMA = "edgespec.tune/1"


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("--name", metavar="NAME", default="", help="of the pair to write")
    parser.add_argument(
        "--try", metavar="FILE", dest="others", action="append", default=[],
        help="a further draft model, such as a trimmed one (repeatable)",
    )  # fmt: skip
    parser.add_argument("--minutes", metavar="X", type=real, default=3.0, help="at most (3)")
    add_prompts(parser)
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Try, write the pair, say what was found."""
    if not args.minutes > 0:
        raise UsageError(f"--minutes {args.minutes:g}: expected more than 0")
    name = args.name or name_of(config)
    tuned.check_name(name)
    others = [place(other) for other in args.others]
    for other in others:
        if not other.exists():
            raise UsageError(f"--try {other}: there is no such file: expected a draft model")
    questions = {
        kind: [one.messages for one in prompts]
        for kind, prompts in prompt_sets(args, config).items()
    }
    found = tune(config, questions, others, args.minutes * 60, show_progress)
    pair = tuned.TunedPair(name, values_of(found), measured(found))
    again = ", in place of an earlier one" if name in tuned.names() else ""
    path = tuned.save(pair)
    if args.json != "-":
        print("\n".join(lines_of(found)))
        print(f"\nwritten: {path}{again}\nuse it:  edgespec chat --pair {name}")
    if args.json:
        write_json(record(pair, found), args.json)
    return 0


def name_of(config: Config) -> str:
    """What a tuned pair is called unless told: after its models."""
    model = config.model or config.hf_repo.partition(":")[0] or config.pair
    return f"{model_name(model).lower()}-tuned"


def measured(found: Tuning) -> dict[str, Any]:
    """The measurements behind a choice, as the pair's file keeps them."""
    card = device_card()
    return {
        "edgespec": version(),
        "cpu": card["cpu"],
        "n_cores": card["n_cores"],
        "threads": found.threads,
        "ways": found.ways,
    }


def record(pair: tuned.TunedPair, found: Tuning) -> dict[str, Any]:
    """The object that --json writes."""
    return {
        "schema": SCHEMA,
        "edgespec": version(),
        "device": device_card(),
        "pair": pair.name,
        "values": dict(pair.values),
        "threads": found.threads,
        "ways": found.ways,
        "choice": found.choice,
        "filling": found.filling,
    }


def lines_of(found: Tuning) -> list[str]:
    """What was measured, for the reader; the choice is marked."""
    lines = [f"device:  {card_line(device_card())}"]
    for row in found.threads:
        per = "a token" if "token_s" in row else "a round"
        seconds = row.get("token_s", row.get("round_s", 0.0))
        lines.append(f"{row['model']:<9}{row['threads']} threads: {seconds * 1e3:.1f} ms {per}")
    lines += [
        "",
        "times plain decoding:",
        *(way_line(row, row is found.choice) for row in found.ways),
    ]
    if found.filling is not None:
        lines.append(price(found.filling))
    if found.choice["pair"]:
        lines.append(f"the same files run fastest as {found.choice['pair']}, rounded otherwise")
    for name in found.absent:
        lines.append(f"not tried: {name}, the same files: type `edgespec models pull {name}`")
    if found.choice["drafter"] == "none":
        lines.append("drafting does not pay here: the pair decodes plainly")
    return lines


def way_line(row: Mapping[str, Any], is_choice: bool) -> str:
    """One way in the table."""
    model = Path(row["draft_model"]).name
    kinds = ", ".join(f"{kind} {gain:.2f}" for kind, gain in row["by_kind"].items())
    name = f"{row['way']} {row['pair'] or model}".strip()
    place = "" if row["device"] == "auto" else f" target on {row['device']}"
    mark = "*" if is_choice else " "
    return f"{mark} {row['over_plain']:.2f}  {name}{place}  ({kinds})"
