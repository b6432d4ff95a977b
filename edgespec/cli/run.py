"""What commands that open models share: a progress line, Ctrl-C, stats, the record."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from edgespec.check.record import model_row, record
from edgespec.cli.output import show_progress
from edgespec.cli.prompts import Prompt
from edgespec.config import Config
from edgespec.errors import ContextError
from edgespec.session.session import Session
from edgespec.text.template import Message
from edgespec.types import Stats

ENDS = {"context": "the context is full: the answer ends here (-c makes it larger)"}


@contextmanager
def opened(config: Config) -> Iterator[Session]:
    """A session in which Ctrl-C cancels the generation in progress, which then raises Cancelled."""
    with Session(config, progress=show_progress) as session, interruptible(session):
        yield session


@contextmanager
def interruptible(session: Session) -> Iterator[None]:
    """Ctrl-C asks the session to stop; a second one before it has is a KeyboardInterrupt."""

    def stop() -> None:
        if session.turns.stopping or not session.turns.running:
            raise KeyboardInterrupt
        session.cancel()

    with on_interrupt(stop):
        yield


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `stop`, which may raise."""
    before = signal.signal(signal.SIGINT, lambda _signal, _frame: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def fitting(session: Session, prompts: Sequence[Prompt], source: str) -> list[Prompt]:
    """The prompts that fit the context; of several turns only if the longest answers do, too.

    So what is left out does not depend on what is answered. Said in a line, with their number.
    Raises: ContextError if none fits.
    """
    room, longest = session.target.n_context, session.config.max_tokens
    lengths = [n_tokens(session, prompt, longest) for prompt in prompts]
    kept = [prompt for prompt, n in zip(prompts, lengths, strict=True) if n <= room]
    if not kept:
        raise ContextError(
            f"{source}: of {len(prompts)} prompts the shortest takes {min(lengths)} tokens, the "
            f"context holds {room}: expected one that fits; raise it with -c {min(lengths) + 256}"
        )
    if len(kept) < len(prompts):
        n = len(prompts) - len(kept)
        say(f"{source}: skipped {n} of {len(prompts)}, too long for the context of {room}")
    return kept


def n_tokens(session: Session, prompt: Prompt, longest: int) -> int:
    """Tokens of a prompt up to its last answer, those before supposed to be of `longest` tokens."""
    messages: list[Message] = list(prompt.messages)
    for later in prompt.later:
        messages.append({"role": "assistant", "content": ""})
        messages.append({"role": "user", "content": later})
    return len(session.prompt(messages)) + longest * len(prompt.later)


def say(text: str) -> None:
    """A line for the reader of the terminal, not for the pipe."""
    print(text, file=sys.stderr, flush=True)


ENOUGH = 128  # rounds by which it is known what pays; before, the times tell of finding that out


def stats_line(stats: Stats) -> str:
    """One generation's speed and acceptance in a line."""
    line = f"[{stats.n_tokens} tokens, {stats.tokens_per_s:.1f} tokens/s"
    if stats.speedup > 0 and stats.n_tested and stats.n_rounds >= ENOUGH:
        line += f", {stats.speedup:.2f} times plain decoding"
    if stats.n_tested:
        line += f", {stats.acceptance_rate:.0%} of drafted tokens accepted"
        line += f", {stats.block_efficiency:.2f} tokens a round"
    if stats.note:
        line += f"; {stats.note}"
    return line + "]"


def drafter_row(session: Session) -> dict[str, Any] | None:
    """The record's "drafter" entry: the draft model, or the name of a drafter without one."""
    if session.pair.draft_model is not None:
        row = model_row(session.pair.draft_model.info())
        if session.method.translated is not None:
            row["bridge"] = {"name": session.method.bridge, **session.method.translated.counts()}
        return row
    name = session.method.speculator.name
    if not name:
        return None
    if name == "mixed":  # without a draft model there is only lookup to mix
        name = "ngram"
    return {"path": name, "sha256": "", "backend": name, "n_params": 0, "quant": ""}


def session_record(session: Session, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The "edgespec.run/1" object of what a session did."""
    data = record(session.target.info(), drafter_row(session), session.params(), runs)
    decisive = ("json_schema", "grammar", "kv_type", "exact")  # of the output, beside the sampling
    data["params"] |= {name: getattr(session.config, name) for name in decisive}
    return data
