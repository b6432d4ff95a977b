"""From models to a tuned pair: threads first, then placement, drafter and method on real prompts.

What changes the target's answers (its KV type, its file) is never chosen here, only what changes
how long they take; but a known pair that is the same files made into graphs, or the files those
were made of, takes part if it is here. Every step keeps what it measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from edgespec.backends.filling import filling_of
from edgespec.config import PER_CALL, Config, cache_folder, with_values
from edgespec.device import n_cores
from edgespec.errors import UsageError
from edgespec.files import place
from edgespec.option import MODELS
from edgespec.protocols import OpenModel
from edgespec.session import opening
from edgespec.session.methods import Method
from edgespec.session.session import Session
from edgespec.store import pairs
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
PASSES = 3  # prompts of every kind that the budget should suffice for
SLOWER = 1.1  # times as slow as with more threads: still fewer are not tried
Told = Callable[[str, float], None]


@dataclass
class Tuning:
    """What was tried and found. threads: rows of stages 1 and 2; ways: of the race.

    absent: pairs of the same files that would have taken part, were they here. filling: what
    --exact costs, where it was asked for.
    """

    config: Config
    threads: list[dict[str, Any]] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    choice: dict[str, Any] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    filling: float | None = None

    def see(self, session: Session) -> None:
        """Measure what --exact costs, once."""
        if self.filling is None:
            self.filling = filling_of(session.target)


@dataclass(frozen=True)
class Setup:
    """What the ways of one race have in common. pair: instead of the configured one, if any.

    lora: the draft model's adapter.
    """

    place: Mapping[str, str]
    model: Path | None
    pair: str = ""
    lora: str = ""

    def of(self, config: Config) -> Config:
        values = {**self.place, "draft_model": str(self.model or ""), "lora_draft": self.lora}
        return with_values(config, values | ({"pair": self.pair} if self.pair else {}), "tune")


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
    usual, *apart = placements(found.config)
    lora = {one: config.lora_draft for one in models if own in (None, one)}  # others: none
    runs = [
        Setup(place, one, lora=lora.get(one, ""))
        for place in (usual, *apart)
        for one in (models or [None])  # type: ignore[list-item]
    ]
    race(found, [*runs, *made_otherwise(found, usual)], questions, rest_s, token_s, told)
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


def made_otherwise(found: Tuning, place: Mapping[str, str]) -> list[Setup]:
    """Known pairs of the same files as the configured one; notes in `found` what is not here."""
    config = found.config
    own = (*MODELS, "n_gpu_layers", "kv_type")
    if any(getattr(config, name) != getattr(Config, name) for name in own):
        return []  # models of the user's, or what graphs cannot do
    setups = []
    for pair in pairs.namesakes(pairs.find(config.pair)):
        if all(pairs.is_here(entry, cache_folder()) for entry in pair.entries):
            drafter = opening.paths_of(replace(config, pair=pair.name))[1]
            setups.append(Setup(place, drafter, pair.name))
        else:
            found.absent.append(pair.name)
    return setups


def race(
    found: Tuning,
    runs: Sequence[Setup],
    questions: Mapping[str, Sequence[Messages]],
    budget_s: float,
    token_s: float,
    told: Callable[[str], None],
) -> None:
    """Answer the questions with every setup, in every way that it has; the fastest is chosen."""
    share_s = budget_s / len(runs)
    top, fastest_s = 0.0, 0.0
    for number, setup in enumerate(runs):
        config, model = setup.of(found.config), setup.model
        names = [name for name in DRAFTS if model is not None or "model" not in name]
        before = replace(runs[number - 1], model=model, lora=setup.lora)
        if number and model is not None and setup == before:
            names.remove("ngram")  # was tried with the draft model before
        n = round(share_s / (len(names) * len(questions) * PASSES * token_s))
        config = replace(config, max_tokens=min(max(n, SHORTEST), LONGEST))
        ways = answered(config, names, questions, share_s, told, see=found.see)
        kinds = ways[0].stats  # those of which a prompt fits
        plain_s = sum(ways[0].token_s(kind) for kind in kinds) / len(kinds)
        fastest_s = fastest_s or plain_s
        rows = [row_of(way, ways[0], fastest_s / plain_s, setup) for way in ways]
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
    *,
    see: Callable[[Session], None],
) -> list[Way]:
    """The ways of these names with one draft model, raced; opening it counts.

    see: shown the session before the race.
    """
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
            session.use(by, keep_read=True)
            for _ in session.steps(session.prompt(messages), session.params()):
                pass
            return session.stats

        first = next(iter(fitting.values()))[0]
        for name in names:  # costs and graphs are made once; what this learns would recite it
            answer(method(name), first)
        see(session)
        methods = {name: method(name) for name in names}

        def answered_by(name: str, messages: Messages) -> Stats:
            return answer(methods[name], messages)

        def forget() -> None:
            methods.update({name: method(name) for name in names})

        left_s = budget_s - (perf_counter() - start)
        race = Race(fitting, answered_by, lambda _: told("ways to draft"), forget=forget)
        return race.run(names, left_s)


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
    from edgespec.backends.llamacpp.library import devices

    return [device.name for device in devices() if device.kind != "cpu"]


def row_of(way: Way, plain: Way, over: float, setup: Setup) -> dict[str, Any]:
    """What a way took. over_plain: times the first setup's plain decoding."""
    kinds = {kind: way.gain(plain, kind) for kind in way.stats if way.stats[kind]}
    stats = [one for runs in way.stats.values() for one in runs]
    n_tested = sum(one.n_tested for one in stats)
    return {
        "way": way.name,
        "drafter": DRAFTS[way.name],
        "draft_model": str(setup.model) if setup.model and "model" in way.name else "",
        "lora_draft": setup.lora if "model" in way.name else "",
        "pair": setup.pair,
        **setup.place,
        "over_plain": way.gains(plain) * over,
        "by_kind": kinds,
        "acceptance_rate": sum(one.n_accepted for one in stats) / max(n_tested, 1),
        "n_tokens": sum(one.n_tokens for one in stats),
    }


# Every option is one of these: it names a model, is chosen here, is kept as it was tuned with, or
# says how models are used and not what they are.
NAMED = ("pair", *MODELS)
CHOSEN = ("device", "device_draft", "drafter")
KEPT = (
    "ctx_size", "n_gpu_layers", "loading", "kv_type", "kv_type_draft", "draft_window", "bridge",
    "exact", "chat_template",
)  # fmt: skip
THREADS = ("threads", "threads_draft")
NOT_THE_PAIRS = (
    "offline", "adapt", "adapt_rows", "adapt_keep_text", "adapt_topics", "adapt_share",
    "adapt_within", "allow_approximate", "system", "color", "history", *PER_CALL,
)  # fmt: skip


def values_of(found: Tuning) -> dict[str, Any]:
    """The option values of the tuned pair: those that name models, and those that were settled."""
    config, choice = found.config, found.choice
    values: dict[str, Any] = {}
    for name in ("model", "hf_repo", "pair"):
        value = (choice["pair"] if name == "pair" else "") or getattr(config, name)
        if not values and value:
            values[name] = whole(value) if name == "model" else value
    if not choice["pair"]:
        draft = {name: choice[name] for name in ("draft_model", "lora_draft")}
        values |= {name: whole(file) for name, file in draft.items() if file}
    settled = {name: getattr(config, name) for name in (*THREADS, *KEPT)}
    settled |= {name: choice[name] for name in CHOSEN}
    if Path(config.chat_template).is_file():
        settled["chat_template"] = whole(config.chat_template)
    return values | {k: v for k, v in settled.items() if v != getattr(Config, k, None)}


def whole(file: str) -> str:
    """Its path from the root, as a pair is used in other folders; a link keeps its name."""
    return os.path.abspath(place(file))
