"""`edgespec bench`: plain and speculative decoding side by side on this device.

Repeats are interleaved prompt by prompt (every method once, then again in rotated order), so that a
device that heats up or gets busy treats all alike; what is shown is each method's median repeat.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgespec.check.record import model_row, run_row
from edgespec.cli import grid
from edgespec.cli.baseline import cost_line, costs_in_turns, opened_baseline
from edgespec.cli.output import add_json, card_line, json_line, write_json
from edgespec.cli.prompts import Prompt, built_in, read_prompts, set_names, usual
from edgespec.cli.repeats import Repeat, compare, measured
from edgespec.cli.run import fitting, opened, session_record
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import model_name
from edgespec.option import whole
from edgespec.pace.cost import CostTable
from edgespec.session.session import Session
from edgespec.store import pairs

ABOUT = "Measure plain and speculative decoding side by side on this device."
USAGE = "[--methods LIST] [--set NAME | --prompts FILE] [--repeats N] [options]"
EXAMPLE = "edgespec bench --methods plain,auto,fixed-4,ngram --set stories"
DEFAULTS = Config(max_tokens=64)
RARE = ("--grid", "--read-once")
HEADER = (
    f"{'method':<18}{'tokens/s':>9}{'ratio':>7}{'(min..max)':>14}{'accepted':>10}{'tok/round':>10}"
    f"{'overhead':>10}{'ms/round':>9}{'ttft ms':>9}{'differ':>8}"
)


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument(
        "--methods", metavar="LIST", default="plain,auto,fixed-4",
        help="of plain, auto, fixed-N, ngram, fixed-N@BRIDGE",
    )  # fmt: skip
    add_prompts(parser)
    parser.add_argument("--repeats", metavar="N", type=whole, default=5, help="of each method (5)")
    parser.add_argument(
        "--baseline", metavar="PAIR|FILE", help="compare with this model's plain decoding instead"
    )
    parser.add_argument(
        "--explain", action="store_true", help="show costs, survival, scores and widths chosen"
    )
    parser.add_argument(
        "--read-once", action="store_true",
        help="long prompts are read by the target for the first method alone, untimed",
    )  # fmt: skip
    parser.add_argument(
        "--grid", metavar="PAIRS", help="by set, temperature and length, kept in the file of --json"
    )
    add_json(parser)


def add_prompts(parser: ArgumentParser) -> None:
    """The flags that `prompt_sets` reads."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--set", metavar="NAMES", type=set_names, action="extend",
        help="built-in prompts, as code,json; or demo, assistant, all",
    )  # fmt: skip
    source.add_argument("--prompts", metavar="FILE", help="JSON lines: prompt, messages or turns")
    parser.add_argument("--first", metavar="N", type=whole, help="of each set, only N prompts")


def run(args: Namespace, config: Config) -> int:
    """Measure every set, print a table for each and the record last."""
    if args.repeats < 1:
        raise UsageError("--repeats is 0: expected at least 1")
    if config.max_tokens < 1:
        raise UsageError("--max-tokens is 0: expected at least 1, there is nothing to measure")
    if args.first == 0:
        raise UsageError("--first is 0: expected at least 1 prompt of each set")
    if args.grid:
        return grid.run(args, config)
    sets = prompt_sets(args, config)
    names = list(dict.fromkeys(["plain", *args.methods.split(",")]))
    quiet, runs, ratios = args.json == "-", list[dict[str, Any]](), list[dict[str, Any]]()
    with opened(config) as session, opened_baseline(args.baseline, config) as other:
        for name in names:
            session.pair.methods.named(name)  # an unknown one ends here, not after minutes
        runners = {name: (session, name) for name in names}
        over = "plain" if other is None else f"plain@{model_name(args.baseline)}"
        if other is not None:
            runners = {over: (other, "plain"), **runners}
        for set_name, given in sets.items():
            prompts = given
            for reader in filter(None, (session, other)):
                prompts = fitting(reader, prompts, args.prompts or set_name)
            results = measured(runners, prompts, args.repeats, set_name, read_once=args.read_once)
            skipped = {"n_skipped": len(given) - len(prompts)}
            unknown = {"ttft_s": None, "wall_s": None} if args.read_once else {}
            rows = [row_of(name, results[name], set_name) | skipped | unknown for name in runners]
            compared = [compare(name, over, results, set_name) for name in runners]
            runs, ratios = runs + rows, ratios + compared
            if not quiet:
                print(f"\n{set_name}: {len(prompts)} prompts, median of {args.repeats} repeats")
                print(f"ratio: over {over}")
                print("\n".join((HEADER, *map(table_line, rows, compared))))
                if args.explain:
                    for row, ratio in zip(rows, compared, strict=True):
                        print("\n".join(explanation(row, ratio)))
        data = session_record(session, runs)
        data["bench"] = {"repeats": args.repeats, "read_once": args.read_once, "ratios": ratios}
        if other is not None:
            costs = costs_in_turns({over: other, "target": session})
            data["bench"] |= {"baseline": model_row(other.target.info()), "costs": costs}
            if not quiet:
                print("\ncosts by width, in turns:")
                print("\n".join(cost_line(name, seconds) for name, seconds in costs.items()))
        if not quiet:
            print("\n" + "\n".join(card(config, session, data)))
            print(json_line(data))
    if args.json:
        write_json(data, args.json)
    return 0


def prompt_sets(args: Namespace, config: Config) -> dict[str, list[Prompt]]:
    """The prompts to run, by the name of their set."""
    if args.prompts:
        path = Path(args.prompts)
        return {path.stem: read_prompts(path)[: args.first]}
    sets = {name: built_in(name) for name in args.set} if args.set else usual(config)
    return {name: prompts[: args.first] for name, prompts in sets.items()}


def row_of(name: str, repeats: Sequence[Repeat], set_name: str) -> dict[str, Any]:
    """The record's row of the repeat with the median speed (the lower one of an even number)."""
    ordered = sorted(repeats, key=lambda repeat: repeat.stats.tokens_per_s)
    middle = ordered[(len(ordered) - 1) // 2]
    row = run_row(name, middle.stats, middle.outputs, prompt_set=set_name)
    return row | {"explained": middle.explained}


def table_line(row: Mapping[str, Any], ratio: Mapping[str, Any]) -> str:
    """One method in the table."""
    span = f"({ratio['min']:.2f}..{ratio['max']:.2f})"
    accepted = f"{row['acceptance_rate']:.0%}" if row["n_tested"] else "-"
    first = "-" if row["ttft_s"] is None else f"{row['ttft_s'] * 1e3:.0f}"
    return (
        f"{row['method']:<18}{row['tokens_per_s']:>9.1f}{ratio['median']:>7.2f}{span:>14}"
        f"{accepted:>10}{row['block_efficiency']:>10.2f}"
        f"{row['overhead_s'] / row['decode_s']:>10.1%}"
        f"{row['overhead_s'] / row['n_rounds'] * 1e3:>9.2f}"
        f"{first:>9}{ratio['n_outputs_differing']:>8}"
    )


def explanation(row: Mapping[str, Any], ratio: Mapping[str, Any]) -> list[str]:
    """Why a method drafted as it did: the row's repeat, and what its planner knew at the end."""
    if not row["n_tested"] and not row["explained"]:
        return []
    hits = zip(row["accepted_by_position"], row["tested_by_position"], strict=True)
    widths = enumerate(row["rounds_by_length"])
    lines = [
        f"\n{row['method']}, the median repeat",
        "  rounds by tokens verified  " + "  ".join(f"{k}:{n}" for k, n in widths if n),
        "  accepted by position       " + " ".join(f"{a / n:.2f}" for a, n in hits if n),
    ]
    for name, arm in row["arms"].items():
        lines.append(
            f"  {name:<8} drafted in {arm['n_rounds']} rounds, {arm['n_accepted']} of "
            f"{arm['n_tested']} tested tokens accepted"
        )
    if row["explained"]:
        lines += knowledge(row["explained"])
    if ratio["said"]:
        lines.append(f"  times plain: said {ratio['said']:.2f}, measured {ratio['median']:.2f}")
    return [*lines, f"  {row['note']}"] if row["note"] else lines


def knowledge(explained: Mapping[str, Any]) -> list[str]:
    """What a planner knew (pace/explain.py)."""
    lines = [f"  costs    one token {CostTable(tuple(explained['costs_s']))}"]
    for name, arm in explained["arms"].items():
        survival = " ".join(f"{share:.2f}" for share in arm["survival"][:8])
        spent = f", {arm['step_s'] * 1e3:.2f} ms a token" if arm["step_s"] else ""
        lines.append(
            f"  {name:<8} {arm['acceptance']:.2f} accepted lately{spent}, survival {survival}; "
            f"best {arm['width']}, worth {arm['worth']:+.2f} tokens" + ", paused" * arm["paused"]
        )
    return lines


def card(config: Config, session: Session, data: Mapping[str, Any]) -> list[str]:
    """What was measured on what, for the reader."""
    lines = [f"device:  {card_line(data['device'])}"]
    for part in ("target", "drafter"):
        row = data[part]
        if row:
            size = f", {row['n_params'] / 1e6:.1f} M parameters, {row['quant']}"
            placed = [f"{n} nodes on {ep}" for ep, n in row.get("placement", {}).items()]
            about = ", ".join([size, *placed]) if row["n_params"] else ""
            lines.append(f"{part + ':':<9}{row['path']}{about}")
    if session.pair.translation is not None:
        lines.append(f"bridge:  {session.pair.translation.about()}")
    lines.append(f"costs:   one token {session.pair.costs}")
    sampling = "greedy" if session.params().greedy else f"temperature {config.temperature}"
    lines.append(f"params:  {sampling}, at most {config.max_tokens} tokens an answer")
    skipped = {row["prompt_set"]: row["n_skipped"] for row in data["runs"] if row["n_skipped"]}
    lines += [
        f"skipped: {n} of {name}, too long for the context of {session.target.n_context}"
        for name, n in skipped.items()
    ]
    if not config.model and pairs.find(config.pair).target.pad:
        lines.append(f"note:    {pairs.PADDED_NOTE}")
    return lines
