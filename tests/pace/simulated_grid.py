"""The grid of `edgespec bench --grid` on the demo pair, its times simulated.

    python tests/pace/simulated_grid.py q4_k_m [REPEATS]

The demo models say what they say; a clock of its own goes by what a target's widths and a drafter's
steps cost elsewhere (TABLES). So what a controller decides is all that tells two runs apart, and
twenty cells take half a minute. Each repeat begins with what ten answers have taught, as in the
grid, and answers two prompts; over plain decoding, the mean and the range.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgespec.cli.grid import LENGTHS, N_TAUGHT, SETS, TEMPERATURES, config_of
from edgespec.cli.prompts import Prompt, built_in
from edgespec.cli.run import opened
from edgespec.config import Config
from edgespec.decode import engine, tally
from edgespec.decode import round as rounds
from edgespec.drafters import mixed, window
from edgespec.pace.cost import CostTable, LiveCosts
from edgespec.session.methods import Method
from edgespec.session.session import Session
from edgespec.types import SamplingParams

READ = 0.1  # of a step is what a drafter's reading a token takes
A_TIME = 2  # prompts of a repeat

# Seconds of a token, what 1, 2, .. tokens take over that, and seconds of a drafter's step: of the
# padded pairs, and of Qwen2.5-Coder-1.5B with SmolLM2-135M as int4 graphs.
TABLES: dict[str, tuple[float, tuple[float, ...], float]] = {
    "q4_k_m": (
        0.0305,
        (1, 1.63, 2.18, 1.82, 2.45, 3.0, 3.13, 2.83, 2.45, 2.7, 2.98, 4.0, 3.2, 3.55, 3.76, 3.65,
         3.25), 0.0007,
    ),
    "int4": (
        0.022,
        (1, 1.25, 1.5, 1.7, 2.0, 2.2, 2.4, 2.6, 2.85, 3.1, 3.3, 3.5, 3.7, 3.9, 4.1, 4.3, 4.5),
        0.0007,
    ),
    "f16": (
        0.077,
        (1, 1.1, 1.2, 1.42, 1.5, 1.59, 2.0, 2.15, 2.3, 2.5, 2.6, 2.8, 2.9, 3.1, 3.2, 3.42, 3.5),
        0.0007,
    ),
    "qwen": (
        0.075,
        (1, 1.18, 1.37, 1.56, 1.75, 1.95, 2.1, 2.3, 2.5, 2.7, 2.9, 3.1, 3.3, 3.5, 3.7, 3.9, 4.1),
        0.0105,
    ),
}  # fmt: skip


class Clock:
    """Goes on by what models take, and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def rule(self) -> None:
        """All that times rounds reads this clock."""
        for one in (engine, rounds, mixed, window):
            one.perf_counter = self  # type: ignore[attr-defined]
        tally.time = SimpleNamespace(perf_counter=self)  # type: ignore[attr-defined]

    def charge(self, model: Any, seconds: Any) -> None:
        """Reading n tokens takes the model seconds(n)."""
        forward, extend = model.forward, model.extend

        def timed_forward(tokens: Sequence[int], *args: Any, **options: Any) -> Any:
            self.now += seconds(len(tokens))
            return forward(tokens, *args, **options)

        def timed_extend(tokens: Sequence[int]) -> None:
            self.now += seconds(len(tokens))
            extend(tokens)

        model.forward, model.extend = timed_forward, timed_extend


def simulated(session: Session, name: str) -> None:
    """Have the session's models take what the table of that name says."""
    plain_s, ratios, step_s = TABLES[name]
    seconds, clock = [plain_s * one for one in ratios], Clock()
    clock.rule()
    clock.charge(session.pair.target, lambda n: seconds[min(n, len(seconds)) - 1])
    clock.charge(session.pair.draft_model, lambda n: step_s * (1 + READ * (n - 1)))
    methods = session.pair.methods
    methods._costs = lambda: LiveCosts(CostTable(tuple(seconds)))
    methods._kept = Path(tempfile.mkdtemp(prefix="edgespec-simulated-")) / "kept.json"


def answer(session: Session, method: Method, prompt: Prompt, params: SamplingParams) -> Any:
    """The statistics of an answer."""
    session.use(method)
    for _ in session.steps(session.prompt(prompt.messages), params):
        pass
    return session.stats


def teach(session: Session) -> None:
    """The answers that every repeat has behind it."""
    method = session.pair.methods.named("auto", keep=True)
    for prompt in (one for name in SETS for one in built_in(name)[-N_TAUGHT:]):
        answer(session, method, prompt, session.params())
    method.learned.save()


def ratios_of(session: Session, name: str, params: SamplingParams, n: int, of: str) -> list[float]:
    """Plain decoding's time over that of n repeats on a set's prompts."""
    prompts, out = built_in(of)[:-N_TAUGHT], list[float]()
    for repeat in range(n):
        first = repeat * A_TIME % (len(prompts) - A_TIME + 1)
        method = session.pair.methods.named("auto")
        some = prompts[first : first + A_TIME]
        all_ = [answer(session, method, prompt, params) for prompt in some]
        plain_s = TABLES[name][0] * sum(one.n_tokens for one in all_)
        out.append(plain_s / sum(one.decode_s for one in all_))
    return out


def main(name: str, n: int) -> None:
    """Measure and print."""
    means = list[float]()
    with opened(config_of("demo", Config())) as session:
        simulated(session, name)
        teach(session)
        for temperature in TEMPERATURES:
            for length in LENGTHS:
                params = replace(session.params(), temperature=temperature, max_tokens=length)
                cells = [(of, ratios_of(session, name, params, n, of)) for of in SETS]
                means += [statistics.mean(found) for _, found in cells]
                shown = "  ".join(
                    f"{of} {statistics.mean(found):.2f} ({min(found):.2f}-{max(found):.2f})"
                    for of, found in cells
                )
                print(f"{name} at {temperature:g}, {length} tokens: {shown}", flush=True)
    gain = math.exp(statistics.mean(map(math.log, means)))
    print(f"mean {gain:.3f}, least {min(means):.2f}, {sum(one < 0.98 for one in means)} under 0.98")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TABLES:
        sys.exit(f"expected one of {', '.join(TABLES)}, and perhaps how many repeats (5)")
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
