"""`edgespec adapt train`: a drafter learns in all its layers from answers of its target.

The work is edgespec.export.align's, which needs the extra `train`.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from edgespec.adapt.kept_prompts import Messages
from edgespec.cli.adapt_pair import prompts_of, unmade
from edgespec.cli.output import show_progress
from edgespec.cli.prompts import ASSISTANT, built_in, read_prompts
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import place

RECIPES = (
    "covering", "omnidraft", "distillspec", "forward-kl", "reverse-kl", "tvd", "tvd++", "adaspec",
    "fastdraft",
)  # fmt: skip
MERGED = ("q8_0", "q4_1", "f16")
RARE = ("--lora", "--recipe", "--epochs", "--rate", "--drop-layers", "--merged", "--parallel")
RANKS = (1, 256)

Number = TypeVar("Number", int, float)


def add_arguments(parser: ArgumentParser) -> None:
    """What `train` alone takes; `given` finds what other actions do not take."""
    add = parser.add_argument
    add("--prompts", metavar="FILE", help="with train: what to answer, JSON lines (kept, built-in)")
    add("--lora", type=int, metavar="R", help="... rank of the adapters in all layers (16)")
    add("--recipe", choices=RECIPES, metavar="NAME", help=f"... {', '.join(RECIPES)} (covering)")
    add("--epochs", type=int, metavar="N", help="... times each answer is seen (3)")
    add("--rate", type=float, metavar="X", help="... how far a step goes, at most (0.0005)")
    add("--drop-layers", type=int, metavar="N", help="... layers to leave out first (0)")
    add("--merged", choices=MERGED, metavar="TYPE",
        help=f"... of the merged file's matrices: {', '.join(MERGED)} (q8_0)")  # fmt: skip
    add("--parallel", type=int, metavar="N", help="... answers written at once (16)")
    add("-o", "--out", metavar="NAME", help="... files to write, without ending (drafter-aligned)")


def given(args: Namespace) -> list[str]:
    """Flags of `train` that were given."""
    names = [flag.removeprefix("--") for flag in ("--prompts", *RARE, "--out")]
    return [f"--{name}" for name in names if getattr(args, name.replace("-", "_")) is not None]


def train(
    args: Namespace, config: Config, drafter: Path, target: Path, *, quiet: bool
) -> tuple[list[str], dict[str, Any]]:
    """Lines for the reader and the record for scripts. Raises: EdgeSpecError."""
    rank = chosen(args.lora, 16, "--lora", *RANKS)
    epochs = chosen(args.epochs, 3, "--epochs", 1, 100)
    rate = chosen(args.rate, 5e-4, "--rate", 1e-6, 0.1)
    n_parallel = chosen(args.parallel, 16, "--parallel", 1, 64)
    flow = import_module("edgespec.export.align.flow")
    prompts, whose = asked(args, config, flow.FEWEST)
    gather = import_module("edgespec.export.align.gather")
    plan = flow.AlignPlan(
        gather.Asked(
            target, tuple(prompts), config.max_tokens, n_parallel,
            config.threads,
        ),
        drafter, place(args.out or f"{drafter.stem}-aligned"), rank,
        args.recipe or "covering", epochs, rate,
        n_dropped=args.drop_layers or 0, merged=args.merged or "q8_0",
    )  # fmt: skip
    report = flow.run(plan, (lambda what, share: None) if quiet else show_progress)
    lines = [f"prompts: {whose}", *str(report).split("\n")]
    lines.append(f"answers, state and what was learned stay in {plan.work}: delete it when done")
    lines.append(f"draft with it: edgespec chat -m {target} -md {report.files[-1]}")
    return lines, report.record()


def asked(args: Namespace, config: Config, fewest: int) -> tuple[list[Messages], str]:
    """What the target answers, and whose prompts they are: the user's, if they are not too few."""
    if args.prompts:
        given = once([prompt.messages for prompt in read_prompts(Path(args.prompts))])
        return given, f"{len(given):,} of {args.prompts}"
    kept = [] if unmade(config) else prompts_of(config).messages()
    if len(kept) >= fewest:
        return kept, f"{len(kept):,} that were kept of this pair's"
    own: list[Messages] = [prompt.messages for name in ASSISTANT for prompt in built_in(name)]
    return own, f"the {len(own)} built-in ones; give your own with --prompts"


def once(prompts: Sequence[Messages]) -> list[Messages]:
    """Each of them once: what is taught must not be among what is held out."""
    return list({json.dumps(one): one for one in prompts}.values())


def chosen(value: Number | None, default: Number, flag: str, least: Number, most: Number) -> Number:
    """A number within bounds. Raises: UsageError."""
    if value is None:
        return default
    if not least <= value <= most:
        raise UsageError(f"{flag} is {value}: expected {least:g} to {most:g}")
    return value
