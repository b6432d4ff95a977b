"""A drafter at work: what a drafted token costs, what of it a target accepts, what models answer.

Everything runs as in a session; nothing here knows how a drafter was trimmed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from types import TracebackType
from typing import Any

from edgespec.backends import ModelOptions, open_model
from edgespec.check.record import outputs_sha256, total
from edgespec.config import Config
from edgespec.drafters.model import ModelDrafter
from edgespec.errors import ContextError
from edgespec.pace.cost import CostTable
from edgespec.session.session import Session
from edgespec.types import Progress

log = logging.getLogger("edgespec")
Messages = Sequence[Mapping[str, Any]]

WARM = 0.8  # temperature of drawn answers
STEP_TOKENS, STEP_CONTEXT = 4, 64  # drafted per timing, after so many tokens
STEPS_S, LEAST_STEPS = 1.5, 9  # time for all timings of one size, and how many there are at least


@dataclass(frozen=True)
class PairRun:
    """A pair run with drafts of fixed length. outputs: of each prompt, a hash of its ids."""

    n_prompts: int
    n_tokens: int
    n_rounds: int
    n_tested: int
    n_accepted: int
    outputs: tuple[str, ...]

    @property
    def acceptance(self) -> float:
        """Of a drafted token whose predecessors were accepted."""
        return self.n_accepted / self.n_tested if self.n_tested else 0.0

    @property
    def block_efficiency(self) -> float:
        """Tokens a round, tau."""
        return self.n_tokens / self.n_rounds if self.n_rounds else 0.0


def mbsu(run: PairRun, drafter_share: float, n_drafted: int) -> float:
    """Memory-bound speed-up: tau / (c * gamma + 1).

    drafter_share: c, parameters of the drafter over those of the target. n_drafted: gamma.
    Source: Goel et al. 2025, arXiv 2506.22694, after Gagrani et al. 2024.
    """
    return run.block_efficiency / (drafter_share * n_drafted + 1)


def run_pair(
    target: Path,
    drafter: Path | None,
    prompts: Sequence[Messages],
    *,
    n_drafted: int,
    n_max: int,
    n_threads: int,
    progress: Progress,
) -> PairRun:
    """Greedy answers to `prompts`, always n_drafted tokens drafted; none without a drafter.

    Raises: UsageError if the two do not go together.
    """
    config = Config(
        model=str(target), draft_model=str(drafter or ""), drafter="model" if drafter else "auto",
        speculative="on" if drafter else "off", draft_tokens=n_drafted, max_tokens=n_max,
        threads=n_threads,
    )  # fmt: skip
    stats, outputs = [], []
    name = drafter.name if drafter else "no drafter"
    with Session(config) as session:
        for number, messages in enumerate(prompts, 1):
            for _ in session.chat(messages):
                pass
            stats.append(session.stats)
            outputs.append(outputs_sha256([session.turns.output])[:16])
            progress(f"running {target.name} with {name}", number / len(prompts))
    sums = total(stats)
    return PairRun(
        len(prompts), sums.n_tokens, sums.n_rounds, sums.n_tested, sums.n_accepted,
        tuple(outputs),
    )  # fmt: skip


def target_costs(target: Path, n_threads: int) -> CostTable:
    """What widths cost the target here."""
    with Session(Config(model=str(target), speculative="off", threads=n_threads)) as session:
        return session.pair.costs


def n_params_of(path: Path) -> int:
    """Parameters of a model."""
    model = open_model(path, ModelOptions(n_context=64, n_threads=1))
    try:
        return int(model.info().n_params)
    finally:
        model.close()


def draft_steps(drafters: Sequence[Path], progress: Progress, *, n_threads: int = 0) -> list[float]:
    """Seconds a drafted token takes with each of the models, argmax and confidence included.

    Medians of runs that take turns, so that what else the device does meets all of them alike.
    """
    what = "measuring a draft step"
    with ExitStack() as opened:
        tried = []
        for path in drafters:
            model = open_model(path, ModelOptions(n_context=256, n_threads=n_threads))
            opened.callback(model.close)
            tried.append((ModelDrafter(model), [i % model.n_vocab for i in range(STEP_CONTEXT)]))
        seconds: list[list[float]] = [[] for _ in drafters]
        end = perf_counter() + STEPS_S * len(drafters)
        for drafter, context in tried:  # buffers are made and pages read at the first call
            drafter.draft(context, STEP_TOKENS)
        while perf_counter() < end or len(seconds[0]) < LEAST_STEPS:
            for found, (drafter, context) in zip(seconds, tried, strict=True):
                start = perf_counter()
                n = len(drafter.draft(context, STEP_TOKENS))
                found.append((perf_counter() - start) / n)
            left = max(end - perf_counter(), 0.0) / (STEPS_S * len(drafters))
            progress(what, min(1 - left, 0.99))
    progress(what, 1.0)
    return [median(found) for found in seconds]


class Answerer:
    """One model that answers conversations, open as a context manager's body lasts."""

    def __init__(self, path: Path, n_max: int, n_threads: int) -> None:
        self._session = Session(
            Config(model=str(path), speculative="off", max_tokens=n_max, threads=n_threads)
        )

    def ask(self, messages: Messages, sample: int) -> str:
        """The answer; sample 0 is greedy, others are drawn with their number as seed.

        A conversation that does not fit the context has none.
        """
        heat = WARM if sample else 0.0
        try:
            pieces = self._session.chat(messages, temperature=heat, seed=sample)
            return "".join(piece.text for piece in pieces)
        except ContextError as error:
            log.warning("a prompt was left out: %s", error)
            return ""

    def __enter__(self) -> Answerer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.close()
