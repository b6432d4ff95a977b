"""`edgespec verify`: is the output really the target's own, on this device and with this pair?"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from edgespec.check.kept import Kept
from edgespec.check.lossless import Stream, check_greedy
from edgespec.check.record import outputs_sha256
from edgespec.check.sampled import check_sampling, least_certain
from edgespec.cli.output import add_json, show_progress, write_json
from edgespec.cli.prompts import Prompt, read_prompts, usual
from edgespec.cli.run import fitting, opened, session_record
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import place
from edgespec.option import whole
from edgespec.session.methods import ALWAYS, Method
from edgespec.session.session import Session
from edgespec.types import SamplingParams, Step

ABOUT = "Check that speculation changes nothing: greedy texts, and the law of sampled ones."
USAGE = "[--prompts FILE] [--draws N] [options]"
EXAMPLE = "edgespec verify --draws 20000 --json verify.json"
DEFAULTS = Config(max_tokens=64)
OTHER_LENGTHS = (1, 6, 9)  # with --exact: of drafts, within a class of widths and beyond it
DRAWS, MOST_DRAWS = 2000, 100_000  # MOST_DRAWS: what one can be told to wait for
RESULTS = {
    "ok": "result: ok",
    "bug": "result: BUG, the output is not the target's",
    "untested": "result: UNTESTED, nothing wrong was seen but not all was tested",
}


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument("--prompts", metavar="FILE", help="JSON lines, instead of the built-in")
    parser.add_argument(
        "--draws",
        metavar="N",
        type=whole,
        default=DRAWS,
        help=f"texts sampled, 0: none ({DRAWS})",
    )
    parser.add_argument("--resume", metavar="FILE", help="keep what is found, and go on from it")
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Check, report; 1 if there is a bug, or something was asked for and could not be tested."""
    if args.prompts:
        asked_for = read_prompts(Path(args.prompts))
    else:
        asked_for = [prompt for prompts in usual(config).values() for prompt in prompts]
    with opened(config) as session:
        method = speculative_method(session)
        first_turns = [Prompt(prompt.messages) for prompt in asked_for]
        kept = fitting(session, first_turns, args.prompts or "the built-in ones")
        prompts = [session.prompt(prompt.messages) for prompt in kept]
        known = Kept()
        if args.resume:
            known = Kept(place(args.resume), checked(session, method, prompts))
        report: dict[str, Any] = {"greedy": compared(session, method, prompts, known)}
        report["greedy"]["n_skipped"] = len(asked_for) - len(kept)
        if args.draws:
            report["sampling"] = sampled(session, method, prompts, args.draws, known)
    if args.json != "-":
        print("\n".join(summary(report)))
    if args.json:
        write_json(report, args.json)
    return 0 if result_of(report) == "ok" else 1


def speculative_method(session: Session) -> Method:
    """The configured drafter, always drafting: one that pauses would leave nothing to check.

    Raises: UsageError without a drafter.
    """
    config = session.config
    k = ALWAYS if isinstance(config.draft_tokens, str) else config.draft_tokens
    if k == 0 or config.speculative == "off" or config.drafter == "none":
        raise UsageError("speculation is off: expected a drafter to verify, as --drafter ngram")
    return session.pair.methods.named(f"fixed-{k}")


def fresh(session: Session, method: Method) -> Stream:
    """Streams by `method`, each from an empty cache."""

    def stream(ids: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        session.use(method)
        return session.steps(ids, params)

    return stream


def changing(session: Session, method: Method) -> Stream:
    """Streams each from an empty cache, by `method`, by "auto" and by other widths in turn."""
    named = session.pair.methods.named
    others = ["auto", *(f"fixed-{k}" for k in OTHER_LENGTHS)]
    turns = cycle([fresh(session, one) for one in (method, *map(named, others))])

    def stream(ids: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        return next(turns)(ids, params)

    return stream


def checked(session: Session, method: Method, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What decides what a check finds, in JSON's types."""
    data = session_record(session, [])
    return {
        "target": data["target"]["sha256"],
        "drafter": data["drafter"],
        "method": method.name,
        "sampling or length": data["params"],
        "set of prompts": outputs_sha256(prompts),
    }


def compared(
    session: Session, method: Method, prompts: Sequence[Sequence[int]], kept: Kept
) -> dict[str, Any]:
    """The greedy check."""
    exact = session.config.exact
    plain = fresh(session, session.pair.methods.named("plain"))
    drafting = changing(session, method) if exact else fresh(session, method)

    def tick(n: int) -> None:
        show_progress(f"compared {len(prompts)} texts", n / len(prompts))

    return check_greedy(
        session.target,
        plain,
        drafting,
        prompts,
        session.params(),
        exact=exact,
        kept=kept,
        tick=tick,
    )


def sampled(
    session: Session, method: Method, prompts: Sequence[Sequence[int]], n_draws: int, kept: Kept
) -> dict[str, Any]:
    """The sampling check; its draws reuse the prompt in the cache."""
    params = session.params()
    if params.greedy:
        params = replace(params, temperature=1.0)
    if not kept.place:
        plain = fresh(session, session.pair.methods.named("plain"))
        kept.placed(least_certain(session.target, plain, prompts[:16], params))
    started = False

    def stream(ids: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        nonlocal started
        if not started:
            session.use(method)
            started = True
        return session.steps(ids, params)

    def tick(n: int) -> None:
        if n == n_draws or (sys.stderr.isatty() and n % 100 == 0):
            show_progress(f"drew {n_draws} texts", n / n_draws)

    return check_sampling(session.target, stream, kept.place, params, n_draws, tick, kept)


def result_of(report: dict[str, Any]) -> str:
    """Either ok, bug (something is neither identical nor a tie) or untested."""
    kinds = {one["kind"] for one in report["greedy"]["divergences"]}
    kinds.add(report.get("sampling", {}).get("kind"))
    if "bug" in kinds:
        return "bug"
    return "untested" if untested(report) else "ok"


def untested(report: dict[str, Any]) -> list[str]:
    """What shows nothing, and what to type, a line each."""
    lines = [
        f"  {part}: no drafted token was tested: expected some; try other --prompts or a larger -n"
        for part, found in report.items()
        if not found["n_tested"]
    ]
    sampling = report.get("sampling", {"kind": ""})
    if sampling["kind"] == "untested" and sampling["n_tested"]:
        needed = sampling["n_draws_needed"]
        lines.append(
            "  sampling: the next token is all but sure, so there is no law to test: raise --temp"
            if needed is None or needed > MOST_DRAWS
            else f"  sampling: {sampling['n_draws']} draws give a test one cell, which tests "
            f"nothing: expected {needed} or more, type --draws {max(needed, DRAWS)}"
        )
    return lines


def summary(report: dict[str, Any]) -> list[str]:
    """The report for a reader."""
    greedy = report["greedy"]
    lines = [
        f"greedy: {greedy['n_identical']} of {greedy['n_prompts']} texts identical to plain "
        f"decoding ({greedy['n_tokens']} tokens); batches move a logit by up to "
        f"{greedy['noise']:.2g} here"
    ]
    if greedy["n_skipped"]:
        lines.append(f"  skipped: {greedy['n_skipped']}, too long for the context")
    lines += [
        f"  prompt {one['prompt']}, token {one['position']}: {one['kind']}, "
        f"the two tokens are {one['margin']:.2g} apart"
        for one in greedy["divergences"]
    ]
    if "sampling" in report:
        sampling = report["sampling"]
        tests = ", ".join(
            f"{name} token p = {test['p_value']:.3g} ({test['n_cells']} cells)"
            for name, test in sampling["tests"].items()
        )
        lines.append(
            f"sampling: {sampling['n_draws']} texts at temperature {sampling['temperature']:g}, "
            f"{sampling['n_accepted']} of {sampling['n_tested']} drafted tokens accepted by "
            f"{sampling['verification']}: {tests}"
        )
        if sampling["n_impossible"]:
            lines.append(f"  {sampling['n_impossible']} texts have a token of probability 0")
    lines += untested(report)
    return [*lines, RESULTS[result_of(report)]]
