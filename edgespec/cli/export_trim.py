"""`edgespec export trim`: a drafter with the output rows its target's text needs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

from edgespec.cli.export_onnx import PRECISIONS, block_of
from edgespec.cli.output import add_json, show_progress, write_json
from edgespec.cli.prompts import ASSISTANT, GROUPS, built_in, read_prompts, set_names
from edgespec.errors import UsageError
from edgespec.files import model_name, place
from edgespec.option import real, whole
from edgespec.store import pairs

ABOUT = (
    "Cut a drafter's output rows to those that its target's text needs. It drafts faster, and what "
    "the target says stays the same. Without DRAFTER the demo pair is taken."
)
USAGE = "[DRAFTER] [-m FILE] [--keep K | --coverage P | --budget auto] [options]"
EXAMPLE = "edgespec export trim drafter.gguf --text corpus.txt --coverage 0.95"
DEFAULTS = None
DEMO_SAMPLES = 8  # answers to each of the demo's 16 prompts; for assistants there are 80


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    add = parser.add_argument
    add(
        "drafter",
        type=place,
        nargs="?",
        metavar="DRAFTER",
        help="a GGUF file, or a Hugging Face folder",
    )
    add("-m", "--target", type=place, metavar="FILE", help="the model it drafts for")
    add("-o", "--out", type=place, metavar="FILE", help="what to write (DRAFTER-trimmed here)")
    add("--to", choices=("gguf", "onnx"), default="gguf", help="format to write (gguf)")
    add("--precision", choices=PRECISIONS, default="int4",
        help="of an ONNX model's weights (int4)")  # fmt: skip
    add("--block", type=int, choices=(32, 128), help="weights with one scale (32)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--keep", type=whole, metavar="K", help="rows to keep")
    size.add_argument("--coverage", type=real, metavar="P", help="rows for this share of the text")
    size.add_argument(
        "--budget", choices=("auto",), help="the most tokens/s by measuring (with a target: this)"
    )
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--text", type=place, nargs="+", metavar="FILE", help="count in these texts")
    text.add_argument(
        "--answers", type=place, metavar="FILE", help="count in conversations answered before"
    )
    text.add_argument("--endpoint", metavar="URL", help="count in answers of this server's model")
    text.add_argument(
        "--from", dest="origin", choices=("target", "drafter"), default="target",
        help="count in answers that this model gives here (target)",
    )  # fmt: skip
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--set", metavar="NAMES", type=set_names,
        help="built-in prompts to ask (assistant; demo for the demo models)")  # fmt: skip
    asked.add_argument(
        "--prompts", metavar="FILE", help="what to ask, JSON lines: prompt, messages or turns"
    )
    add("--samples", type=whole, metavar="N", help="answers to each prompt, the first greedy")
    add("-n", "--max-tokens", type=whole, default=256, metavar="N", help="of an answer (256)")
    add("--endpoint-model", default="", metavar="NAME", help="model to ask for (the first it has)")
    add("--parallel", type=whole, default=4, metavar="N", help="requests at a time (4)")
    add("-t", "--threads", type=whole, default=0, metavar="N", help="of the target (all cores)")
    add("--draft-tokens", type=whole, default=4, metavar="N", help="drafted to measure with (4)")
    add_json(parser)


def run(args: Namespace) -> int:
    """Trim, and print what that changed."""
    flow = import_module("edgespec.export.trim.flow")
    quiet = args.json == "-"
    report = flow.run(plan_of(args, flow), (lambda what, share: None) if quiet else show_progress)
    if not quiet:
        print(report)
    if args.json:
        write_json(report.record(), args.json)
    return 0


def plan_of(args: Namespace, flow: Any) -> Any:
    """The arguments as a TrimPlan. Raises: UsageError."""
    counts = {"-n": args.max_tokens, "--samples": args.samples, "--parallel": args.parallel}
    for flag, number in {**counts, "--draft-tokens": args.draft_tokens}.items():
        if number == 0:
            raise UsageError(f"{flag} is 0: expected at least 1")
    demo = pairs.find("demo")
    source, target = args.drafter or pairs.bundled(demo.drafter), args.target
    if target is None and not args.drafter:
        target = pairs.bundled(demo.target)
    ending = ".gguf" if args.to == "gguf" else ""
    return flow.TrimPlan(
        source=source,
        out=args.out or Path(f"{model_name(source)}-trimmed{ending}"),
        target=target,
        keep=args.keep,
        coverage=args.coverage,
        budget=args.budget == "auto",
        texts=tuple(args.text or ()),
        answers=args.answers,
        endpoint=args.endpoint or "",
        endpoint_model=args.endpoint_model,
        origin=args.origin,
        questions=questions(args, is_bundled(target or source)),
        n_max=args.max_tokens,
        n_drafted=args.draft_tokens,
        n_parallel=args.parallel,
        n_threads=args.threads,
        to=args.to,
        precision=args.precision,
        block=block_of(args),
    )


def is_bundled(model: Path) -> bool:
    """Whether a model is of the demo's."""
    return model.resolve().is_relative_to(pairs.folder().resolve())


def questions(args: Namespace, of_demo: bool) -> tuple[Any, ...]:
    """What to ask, each prompt as often as there are samples."""
    question = import_module("edgespec.export.trim.answers").Question
    if args.prompts:
        prompts = read_prompts(Path(args.prompts))
    else:
        names = args.set or (GROUPS["demo"] if of_demo else ASSISTANT)
        prompts = [prompt for name in names for prompt in built_in(name)]
    n = args.samples or (DEMO_SAMPLES if of_demo and not args.prompts and not args.set else 1)
    return tuple(question(one.messages, one.later, i) for i in range(n) for one in prompts)
