"""Methods of decoding side by side: repeats, interleaved, and their speed over one another."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgespec.check.record import total
from edgespec.cli.prompts import Prompt
from edgespec.cli.run import say
from edgespec.pace.explain import explained
from edgespec.session.session import Session
from edgespec.text.template import Message
from edgespec.types import SamplingParams, Stats

WARM = 16  # tokens of every method before any is timed


@dataclass(frozen=True)
class Repeat:
    """One method over all prompts of a set, once; explained: what its planner knew at the end."""

    stats: Stats
    outputs: tuple[tuple[int, ...], ...]
    explained: Mapping[str, Any] | None = None


def measured(
    runners: Mapping[str, tuple[Session, str]],
    prompts: Sequence[Prompt],
    n_repeats: int,
    set_name: str,
    params: SamplingParams | None = None,
) -> dict[str, list[Repeat]]:
    """Repeats of every runner, a session and a method's name, interleaved.

    A few tokens of each before them are not counted. params: None for the sessions' own.
    """
    names = list(runners)
    for session, method in runners.values():
        usual = params or session.params()
        short = replace(usual, max_tokens=min(WARM, usual.max_tokens))
        one_repeat(session, method, prompts[:1], short)
    results: dict[str, list[Repeat]] = {name: [] for name in names}
    for number in range(n_repeats):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            repeat = one_repeat(*runners[name], prompts, params)
            results[name].append(repeat)
            say(
                f"{set_name}, repeat {number + 1} of {n_repeats}, {name}: "
                f"{repeat.stats.tokens_per_s:.1f} tokens/s"
            )
    return results


def one_repeat(
    session: Session, name: str, prompts: Sequence[Prompt], params: SamplingParams | None = None
) -> Repeat:
    """All prompts by one method, each with an empty cache.

    The method starts with nothing learned: a lookup that remembers an earlier repeat of the same
    prompts would recite their answers and measure nothing.
    """
    method = session.pair.methods.named(name)
    stats, outputs = list[Stats](), list[tuple[int, ...]]()
    for prompt in prompts:
        session.use(method)
        messages: list[Message] = list(prompt.messages)
        for later in (*prompt.later, None):
            for _ in session.steps(session.prompt(messages), params or session.params()):
                pass
            stats.append(session.stats)
            outputs.append(tuple(session.turns.output))
            messages.append({"role": "assistant", "content": session.decode(session.turns.output)})
            messages.append({"role": "user", "content": later or ""})
    planner = method.planner
    return Repeat(total(stats), tuple(outputs), None if planner is None else explained(planner))


def compare(
    name: str, over: str, results: Mapping[str, list[Repeat]], set_name: str
) -> dict[str, Any]:
    """Speed over that of `over` repeat by repeat, and outputs that are not its own plain ones'."""
    speeds = {who: [repeat.stats.tokens_per_s for repeat in results[who]] for who in (name, over)}
    ratios = [one / other for one, other in zip(speeds[name], speeds[over], strict=True)]
    plain = over if name == over else "plain"
    n_differing = max(
        sum(a != b for a, b in zip(one.outputs, own.outputs, strict=True))
        for one, own in zip(results[name], results[plain], strict=True)
    )
    return {
        "prompt_set": set_name,
        "method": name,
        "over": over,
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "said": said_of(results[name]),
        "n_outputs_differing": n_differing,
    }


def said_of(repeats: Sequence[Repeat]) -> float | None:
    """What the answers themselves said of their speed over plain decoding, the median repeat."""
    said = [repeat.stats.speedup for repeat in repeats]
    return statistics.median(said) if all(said) else None
