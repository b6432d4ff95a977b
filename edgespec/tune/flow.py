"""From models to a tuned pair: threads first, then placement, drafter and method on real prompts.

What changes the target's answers (its KV type, its file) is never chosen here, only what changes
how long they take. Every step keeps what it measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from edgespec.config import Config, with_values
from edgespec.device import n_cores
from edgespec.errors import UsageError
from edgespec.protocols import OpenModel
from edgespec.session import opening
from edgespec.session.methods import Method
from edgespec.session.session import Session
from edgespec.text.template import Message
from edgespec.tune.search import Race, Way, best
from edgespec.tune.threads import candidates, chosen, round_s
from edgespec.types import Progress, Stats

Messages = Sequence[Message]
DRAFTS = {  # ways to decode with one draft model, simplest first: the drafters of --drafter
    "plain": "none",
    "ngram": "ngram",
    "model": "model",
    "ngram and model": "ngram,model",
}
LEAST_RACE = 0.2  # of the budget, for the race, however long threads took
SHORTEST, LONGEST = 12, 96  # tokens of an answer
PASSES = 2  # prompts of every kind that the budget should suffice for
SLOWER = 1.1  # times as slow as with more threads: still fewer are not tried
Told = Callable[[str, float], None]


@dataclass
class Tuning:
    """What was tried and found. threads: rows of stages 1 and 2; ways: of the race."""

    config: Config
    threads: list[dict[str, Any]] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    choice: dict[str, Any] = field(default_factory=dict)


def tune(
    config: Config,
    questions: Mapping[str, Sequence[Messages]],
    drafters: Sequence[Path],
    budget_s: float,
    progress: Progress,
) -> Tuning:
    """The fastest way to run the pair of `config`, found in about `budget_s` seconds.

    questions: by kind of text, each a conversation to answer. drafters: draft models to try beside
    the configured one, or in its place. Raises: UsageError, ModelFileError, ContextError.
    """
    start = perf_counter()
    found = Tuning(config)

    def told(what: str) -> None:
        progress(f"tuning: {what}", min((perf_counter() - start) / budget_s, 0.99))

    told("opening the models")
    path, own = opening.paths_of(config, progress)
    models = [*([own] if own else []), *drafters]
    token_s = tune_threads(found, path, models[0] if models else None, told)
    rest_s = max(budget_s * LEAST_RACE, budget_s - (perf_counter() - start))
    race(found, models, questions, rest_s, token_s, told)
    progress("tuning", 1.0)
    return found


def tune_threads(
    found: Tuning, path: Path, drafter: Path | None, told: Callable[[str], None]
) -> float:
    """Settle the threads that were not asked for; seconds of a plain token with them."""
    config, token_s = found.config, 0.0
    numbers = [config.threads] if config.threads else candidates(n_cores())
    seconds: list[float] = []
    for n in numbers:
        told(f"target with {n} threads")
        with opened(path, replace(config, threads=n)) as target:
            seconds.append(round_s(target, None))
        found.threads.append({"model": "target", "threads": n, "token_s": seconds[-1]})
        if seconds[-1] > SLOWER * min(seconds):
            break
    n_target = chosen(numbers[: len(seconds)], seconds)
    token_s = seconds[numbers.index(n_target)]
    found.config = config = replace(config, threads=n_target)
    if drafter is not None and config.threads_draft == Config.threads_draft:
        tune_draft_threads(found, path, drafter, told)
    return token_s


def tune_draft_threads(
    found: Tuning, path: Path, drafter: Path, told: Callable[[str], None]
) -> None:
    """Settle the drafter's threads, by rounds with the target."""
    config, seconds = found.config, list[float]()
    numbers = sorted({config.threads, 1}, reverse=True)
    with opened(path, config) as target:
        for n in numbers:
            told(f"drafter with {n} threads")
            one = replace(config, threads_draft=n)
            model = opening.open_drafter(drafter, one, target, None)
            try:
                seconds.append(round_s(target, model))
            finally:
                model.close()
            found.threads.append({"model": "drafter", "threads": n, "round_s": seconds[-1]})
    found.config = replace(config, threads_draft=chosen(numbers, seconds))


@contextmanager
def opened(path: Path, config: Config) -> Iterator[OpenModel]:
    """The target, closed afterwards."""
    model = opening.open_target(path, config)
    try:
        yield model
    finally:
        model.close()


def race(
    found: Tuning,
    models: Sequence[Path],
    questions: Mapping[str, Sequence[Messages]],
    budget_s: float,
    token_s: float,
    told: Callable[[str], None],
) -> None:
    """Answer the questions with every draft model on every placement; the fastest is chosen."""
    runs = [(place, model) for place in placements(found.config) for model in (models or [None])]  # type: ignore[list-item]
    share_s = budget_s / len(runs)
    top, fastest_s = 0.0, 0.0
    for number, (place, model) in enumerate(runs):
        config = with_values(found.config, {**place, "draft_model": str(model or "")}, "tune")
        names = [name for name in DRAFTS if model is not None or "model" not in name]
        if number and model is not None and place == runs[number - 1][0]:
            names.remove("ngram")  # was tried with the draft model before
        n = round(share_s / (len(names) * len(questions) * PASSES * token_s))
        config = replace(config, max_tokens=min(max(n, SHORTEST), LONGEST))
        ways = answered(config, names, questions, share_s, told)
        plain_s = sum(ways[0].token_s(kind) for kind in questions) / len(questions)
        fastest_s = fastest_s or plain_s
        rows = [row_of(way, ways[0], fastest_s / plain_s, place, model) for way in ways]
        found.ways += rows
        winner = rows[ways.index(best(ways))]
        if winner["over_plain"] > top:
            top, found.choice = winner["over_plain"], winner


def answered(
    config: Config,
    names: Sequence[str],
    questions: Mapping[str, Sequence[Messages]],
    budget_s: float,
    told: Callable[[str], None],
) -> list[Way]:
    """The ways of these names with one draft model, raced; opening it counts."""
    start = perf_counter()
    with Session(config) as session:
        fitting = {
            kind: [q for q in asked if fits(session, q)] for kind, asked in questions.items()
        }
        fitting = {kind: asked for kind, asked in fitting.items() if asked}
        if not fitting:
            raise UsageError(
                f"no prompt fits the context of {session.target.n_context} tokens: expected one "
                "that leaves room for an answer; use -c or --prompts"
            )

        def method(name: str) -> Method:
            return session.pair.method("plain" if name == "plain" else "auto", DRAFTS[name])

        def answer(by: Method, messages: Messages) -> Stats:
            session.use(by)
            for _ in session.steps(session.prompt(messages), session.params()):
                pass
            return session.stats

        first = next(iter(fitting.values()))[0]
        for name in names:  # costs and graphs are made once; what this learns would recite it
            answer(method(name), first)
        methods = {name: method(name) for name in names}

        def answered_by(name: str, messages: Messages) -> Stats:
            return answer(methods[name], messages)

        left_s = budget_s - (perf_counter() - start)
        return Race(fitting, answered_by, lambda _: told("ways to draft")).run(names, left_s)


def fits(session: Session, messages: Messages) -> bool:
    """Whether a conversation leaves room for its answer."""
    return len(session.prompt(messages)) + session.config.max_tokens < session.target.n_context


def placements(config: Config) -> list[dict[str, str]]:
    """Where target and drafter may run: as configured, and apart where there is more than a CPU."""
    usual = {"device": config.device, "device_draft": config.device_draft}
    if config.device != "auto" or config.device_draft != "auto" or not accelerators():
        return [usual]
    apart = [("auto", "cpu"), ("cpu", accelerators()[0]), ("cpu", "cpu")]
    return [usual, *({"device": one, "device_draft": other} for one, other in apart)]


def accelerators() -> list[str]:
    """Names of this machine's devices for GGUF models that are no CPU."""
    from edgespec.backends.llamacpp.model import devices

    return [device.name for device in devices() if device.kind != "cpu"]


def row_of(
    way: Way, plain: Way, over: float, place: Mapping[str, str], model: Path | None
) -> dict[str, Any]:
    """What a way took. over_plain: times the first placement's plain decoding."""
    kinds = {kind: way.gain(plain, kind) for kind in way.stats if way.stats[kind]}
    stats = [one for runs in way.stats.values() for one in runs]
    n_tested = sum(one.n_tested for one in stats)
    return {
        "way": way.name,
        "drafter": DRAFTS[way.name],
        "draft_model": str(model) if model is not None and "model" in way.name else "",
        **place,
        "over_plain": way.gains(plain) * over,
        "by_kind": kinds,
        "acceptance_rate": sum(one.n_accepted for one in stats) / max(n_tested, 1),
        "n_tokens": sum(one.n_tokens for one in stats),
    }


KEPT = ("ctx_size", "kv_type", "kv_type_draft", "exact")  # of the options that it was tuned with


def values_of(found: Tuning) -> dict[str, Any]:
    """The option values of the tuned pair: those that name models, and those that were settled."""
    config, choice = found.config, found.choice
    values: dict[str, Any] = {}
    for name in ("model", "hf_repo", "pair"):
        if not values and getattr(config, name):
            value = getattr(config, name)
            values[name] = str(Path(value).resolve()) if name == "model" else value
    if choice["draft_model"]:
        values["draft_model"] = str(Path(choice["draft_model"]).resolve())
    settled = {"threads": config.threads, "threads_draft": config.threads_draft}
    settled |= {name: choice[name] for name in ("device", "device_draft", "drafter")}
    settled |= {name: getattr(config, name) for name in KEPT}
    return values | {k: v for k, v in settled.items() if v != getattr(Config, k, None)}
