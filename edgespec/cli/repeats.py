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
    """One method over all prompts of a set, once.

    explained: what its planner knew at the end, with costs as they are after all repeats.
    """

    stats: Stats
    outputs: tuple[tuple[int, ...], ...]
    explained: Mapping[str, Any] | None = None


def measured(
    runners: Mapping[str, tuple[Session, str]],
    prompts: Sequence[Prompt],
    n_repeats: int,
    set_name: str,
    params: SamplingParams | None = None,
    *,
    read_once: bool = False,
) -> dict[str, list[Repeat]]:
    """Repeats of every runner, a session and a method's name, interleaved prompt by prompt.

    What the device does besides falls on all of them alike that way. A few tokens of each before
    are not counted. params: None for the sessions' own. read_once: the target reads a prompt for
    the first that asks it; times to the first token then say nothing.
    """
    names = list(runners)
    for runner in runners.values():
        usual = params or runner[0].params()
        few = replace(usual, max_tokens=min(WARM, usual.max_tokens))
        Asking(*runner).ask(prompts[0], few, keep_read=read_once)
    asking = {name: [Asking(*runners[name]) for _ in range(n_repeats)] for name in names}
    for i, prompt in enumerate(prompts):
        for number in range(n_repeats):
            turn = (i + number) % len(names)
            for name in (*names[turn:], *names[:turn]):
                asking[name][number].ask(prompt, params, keep_read=read_once)
        rates = ", ".join(f"{name} {lately(asking[name]):.1f}" for name in names)
        say(f"{set_name}, prompt {i + 1} of {len(prompts)}: {rates} tokens/s")
    return {name: [one.repeat() for one in repeats] for name, repeats in asking.items()}


class Asking:
    """One method, once over all prompts of a set.

    It starts with what was kept of earlier sessions, and nothing else: a lookup that remembers an
    earlier repeat of the same prompts would recite their answers and measure nothing.
    """

    def __init__(self, session: Session, name: str) -> None:
        self.session, self.method = session, session.pair.methods.named(name)
        self.stats, self.outputs = list[Stats](), list[tuple[int, ...]]()

    def ask(
        self, prompt: Prompt, params: SamplingParams | None = None, *, keep_read: bool = False
    ) -> None:
        """Answer a prompt, and what is asked after it. keep_read: see Session.use."""
        session, messages = self.session, list[Message](prompt.messages)
        session.use(self.method, keep_read=keep_read)
        for later in (*prompt.later, None):
            for _ in session.steps(session.prompt(messages), params or session.params()):
                pass
            self.stats.append(session.stats)
            self.outputs.append(tuple(session.turns.output))
            messages.append({"role": "assistant", "content": session.decode(session.turns.output)})
            messages.append({"role": "user", "content": later or ""})

    def repeat(self) -> Repeat:
        """What came of it."""
        planner = self.method.planner
        known = None if planner is None else explained(planner)
        return Repeat(total(self.stats), tuple(self.outputs), known)


def lately(repeats: Sequence[Asking]) -> float:
    """Tokens a second of the last answers, the median repeat."""
    return statistics.median(one.stats[-1].tokens_per_s for one in repeats)


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
