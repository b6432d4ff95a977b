"""What an open pair costs here, and how much of what its drafter proposes is accepted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edgespec.backends.filling import filling_of
from edgespec.check.doctor.breakeven import Width, widths_of
from edgespec.check.record import total
from edgespec.device import n_cores
from edgespec.pace.cost import CostTable, measure_costs, plain_seconds, quartile
from edgespec.protocols import LanguageModel, Speculator
from edgespec.types import Stats

if TYPE_CHECKING:
    from edgespec.session.session import Session

STEP_WIDTH, STEP_REPEATS = 8, 9
OFF = 1.5  # kept costs that are off by more are measured again
SWEEP_S, REPEATS_S = 8.0, 1.0
TRIED, TRIAL_TOKENS, TRIAL_S = "fixed-4", 48, 4.0


@dataclass(frozen=True)
class Trial:
    """costs: of target forwards, from the kept table or measured now. step_s: of drafting a token,
    None if the drafter proposed nothing. n_tested, n_accepted: drafted tokens in a few answers.
    slowdown: what a token takes now over what it took when costs were kept. load: see `load_now`.
    filling: see `filling_of`.
    """

    costs: CostTable
    step_s: float | None
    n_tested: int
    n_accepted: int
    slowdown: float = 1.0
    load: float = 0.0
    filling: float | None = None

    @property
    def is_busy(self) -> bool:
        """Whether other programs take so much of the device that times say little."""
        return self.slowdown > OFF or self.load > 1

    @property
    def acceptance(self) -> float | None:
        """Per token, None if none was tested."""
        return self.n_accepted / self.n_tested if self.n_tested else None

    @property
    def widths(self) -> list[Width]:
        """What each width needs; drafting costs nothing if there was none to measure."""
        return widths_of(self.costs, self.step_s or 0.0)

    def record(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "verify_s": list(self.costs.seconds),
            "draft_step_s": self.step_s,
            "slowdown": self.slowdown,
            "load": self.load,
            "filling": self.filling,
            "widths": [dict(width.__dict__) for width in self.widths],
            "trial": {
                "n_tested": self.n_tested,
                "n_accepted": self.n_accepted,
                "acceptance": self.acceptance,
            },
        }


def tried(session: Session, questions: Sequence[str]) -> Trial:
    """Measure costs, then answer `questions` for a few seconds, always drafting.

    Raises: BackendError, Cancelled, and what `Session.chat` raises.
    """
    costs, slowdown = costs_now(session.pair.costs, session.target)
    speculator = session.pair.methods.named(f"fixed-{STEP_WIDTH}").speculator
    prompt = session.prompt([{"role": "user", "content": questions[0]}])
    step_s = step_seconds(speculator, prompt)
    stats = answered(session, questions)
    filling = filling_of(session.target)
    return Trial(costs, step_s, stats.n_tested, stats.n_accepted, slowdown, filling=filling)


def load_now() -> float:
    """Programs that ran or waited for a core in the last minute, per core; 0 where not known.

    Ask before anything is opened, which is work itself.
    """
    try:
        return os.getloadavg()[0] / n_cores()
    except (AttributeError, OSError):  # not on Windows
        return 0.0


def costs_now(
    kept: CostTable, target: LanguageModel, *, clock: Callable[[], float] = perf_counter
) -> tuple[CostTable, float]:
    """Costs that a draft step can be compared with which is measured now, and the slowdown.

    The kept table is scaled to what one token takes now, or measured anew for this once where that
    is another story: then or now the device was busy.
    """
    slowdown = plain_seconds(target, clock=clock) / kept.seconds[0]
    if 1 / OFF <= slowdown <= OFF:
        return CostTable(tuple(s * slowdown for s in kept.seconds)), slowdown
    return measure_costs(target, budget_s=SWEEP_S, repeats_s=REPEATS_S, clock=clock), slowdown


def step_seconds(
    speculator: Speculator, prompt: Sequence[int], *, clock: Callable[[], float] = perf_counter
) -> float | None:
    """Seconds per drafted token, the lower quartile of drafts as if all had been accepted.

    None if nothing is drafted. The first draft, which reads the prompt, is among the slow ones.
    """
    context, times = list(prompt), list[float]()
    for _ in range(STEP_REPEATS):
        start = clock()
        draft = speculator.propose(context, STEP_WIDTH, None)
        took = clock() - start
        if not len(draft):
            break
        context += draft.tokens
        times.append(took / len(draft))
    return quartile(times) if times else None


def answered(
    session: Session,
    questions: Sequence[str],
    *,
    most_s: float = TRIAL_S,
    clock: Callable[[], float] = perf_counter,
) -> Stats:
    """Counts of short answers to as many questions as the time allows, at least a round's."""
    session.use(session.pair.methods.named(TRIED))
    params = replace(session.params(), max_tokens=TRIAL_TOKENS)
    end, found = clock() + most_s, list[Stats]()
    for question in questions:
        for _ in session.steps(session.prompt([{"role": "user", "content": question}]), params):
            if clock() > end:
                break
        found.append(session.stats)
        if clock() > end:
            break
    return total(found)
