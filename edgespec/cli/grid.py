"""`edgespec bench --grid`: is drafting ever slower? Many pairs, kinds of text, both laws, lengths.

A cell is a pair, a set, a temperature and a length of answers. Each is measured like any bench,
interleaved with plain decoding, and written down at once, so that a grid of hours can be ended and
goes on where it was. A sweep is a grid with --methods fixed-1,fixed-2,.. and a file of its own.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

from edgespec.check.kept import whole_lines
from edgespec.cli.prompts import built_in
from edgespec.cli.repeats import compare, measured
from edgespec.cli.run import fitting, opened
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import text_of, write_whole
from edgespec.session.session import Session
from edgespec.store import pairs
from edgespec.store.offers import unnamed

TEMPERATURES, LENGTHS = (0.0, 1.0), (128, 12)
SETS = ("stories", "dialogues", "questions", "code", "rewriting")
N_TAUGHT = 2  # of each set the last prompts, which are answered before, and never measured
NAMING = {
    "--pair": "pair", "-m": "model", "-md": "draft_model", "-hf": "hf_repo",
    "-hfd": "hf_repo_draft", "--lora-draft": "lora_draft",
}  # fmt: skip
KEPT = ("median", "min", "max", "said", "n_outputs_differing")

Found = Mapping[str, Mapping[str, Any]]  # by method, what `compare` says of it


@dataclass(frozen=True)
class Cell:
    """What is measured at once; pair: a name, or a model's file, which n-grams draft for."""

    pair: str
    prompt_set: str
    temperature: float
    max_tokens: int


def run(args: Namespace, config: Config) -> int:
    """Measure what the file does not hold yet, then print all of it as a table."""
    if args.json in (None, "-"):
        raise UsageError("--grid needs a file that keeps what is measured: type --json FILE too")
    if args.prompts or args.baseline or args.explain:
        raise UsageError("--grid with --prompts, --baseline or --explain: expected none of these")
    if given := [flag for flag, name in NAMING.items() if getattr(args, name, None)]:
        raise UsageError(f"--grid with {given[0]}: expected pairs in --grid itself, or files")
    path, cells = Path(args.json), cells_of(args.grid.split(","), args.set or SETS)
    known = read(path)
    missing = [cell for cell in cells if cell not in known]
    for name, of_pair in groupby(missing, lambda cell: cell.pair):
        with opened(config_of(name, config)) as session:
            teach(session, args.set or SETS)
            for cell in of_pair:
                known[cell] = measured_cell(session, cell, args)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(cell) | {"found": known[cell]}) + "\n")
    print("\n".join(table(cells, known)))
    return 0


def cells_of(names: Sequence[str], sets: Sequence[str]) -> list[Cell]:
    """All cells, pair by pair. Raises: UsageError for an unknown pair."""
    for name in names:
        if not Path(name).is_file():
            pairs.find(name)
    return [Cell(*one) for one in product(names, sets, TEMPERATURES, LENGTHS)]


def config_of(name: str, config: Config) -> Config:
    """The settings of a pair's session."""
    if Path(name).is_file():
        return replace(unnamed(config), model=name, drafter="ngram")
    return replace(unnamed(config), pair=name)


def teach(session: Session, sets: Sequence[str]) -> None:
    """Let the pair answer other prompts first, as whoever uses it has: it knows its acceptance."""
    method = session.pair.way("auto")
    session.use(method)
    for prompt in (one for name in sets for one in built_in(name)[-N_TAUGHT:]):
        for _ in session.steps(session.prompt(prompt.messages), session.params()):
            pass
    method.learned.save()


def measured_cell(session: Session, cell: Cell, args: Namespace) -> Found:
    """Drafting as much as pays, and the other methods, over plain decoding."""
    params = replace(session.params(), temperature=cell.temperature, max_tokens=cell.max_tokens)
    measurable = built_in(cell.prompt_set)[:-N_TAUGHT][: args.first]
    prompts = fitting(session, measurable, cell.prompt_set)
    names = list(dict.fromkeys(["plain", "auto", *args.methods.split(",")]))
    label = f"{cell.pair}, {cell.prompt_set} at {cell.temperature:g}, {cell.max_tokens} tokens"
    runners = {name: (session, name) for name in names}
    results = measured(runners, prompts, args.repeats, label, params, read_once=True)
    compared = {name: compare(name, "plain", results, cell.prompt_set) for name in names}
    return {name: {key: one[key] for key in KEPT} for name, one in compared.items()}


def read(path: Path) -> dict[Cell, Found]:
    """What a file of earlier measurements holds; nothing if there is none.

    A line that was being written when the process ended is cut off. Raises: UsageError.
    """
    if not path.exists():
        return {}
    known, place, text = dict[Cell, Found](), f"{path}:1", text_of(path, expected="a grid's file")
    try:
        line = text
        whole = whole_lines(text, '{"pair": "')
        for number, line in enumerate(whole.splitlines(), 1):
            place = f"{path}:{number}"
            one = json.loads(line)
            known[Cell(**{key: one[key] for key in Cell.__annotations__})] = one["found"]
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"{place}: {line!r:.60}: expected a cell of a grid, or another --json"
        ) from None
    if whole != text:
        write_whole(path, whole.encode())
    return known


def table(cells: Sequence[Cell], known: Mapping[Cell, Found]) -> list[str]:
    """Markdown: `auto` over plain decoding, and the best fixed width where widths were swept."""
    sets = list(dict.fromkeys(cell.prompt_set for cell in cells))
    head = ("pair", "temperature", "tokens", *sets)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for pair, temperature, n in dict.fromkeys((c.pair, c.temperature, c.max_tokens) for c in cells):
        row = [shown(known[Cell(pair, name, temperature, n)]) for name in sets]
        name = Path(pair).stem if Path(pair).is_file() else pair
        lines.append(f"| {name} | {temperature:g} | {n} | " + " | ".join(row) + " |")
    return lines


def shown(found: Found) -> str:
    """One cell of the table."""
    widths = {int(name[6:]): one["median"] for name, one in found.items() if name[:6] == "fixed-"}
    auto = f"{found['auto']['median']:.2f}"
    if not widths:
        return auto
    best = max(widths, key=widths.__getitem__)
    return f"{auto} (fixed-{best} {widths[best]:.2f})"
