"""What a drafter's head learns along a stream of requests, beside what it would do unlearned.

`python tests/adapt/stream.py OUT.jsonl --prompts FILE [NAME=VALUE, options of edgespec.load]` asks
them in turn and adds a line for each: guesses, how many were the target's likeliest token with the
head as it is and as it was, tokens/s, updates. every=N: also one for every N tokens of an answer.
read=S: each begins when the idle time after the one before brings nothing more, but S seconds after
it at most. `... --plot PICTURE.png OUT.jsonl OUT.jsonl ..` draws windows of 50 lines.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import edgespec
from edgespec.adapt.online import Hits
from edgespec.cli.prompts import read_prompts

WINDOW = 50  # requests


def main(words: list[str]) -> None:
    if words[0] == "--plot":
        plot(Path(words[1]), [Path(word) for word in words[2:]])
        return
    out = Path(words[0])
    given = dict(word.split("=", 1) for word in words[3:])
    options: dict[str, Any] = {name: value_of(text) for name, text in given.items()}
    read_s, every = float(options.pop("read", 0)), int(options.pop("every", sys.maxsize))
    run(out, Path(words[2]), read_s, every, {"temperature": 0.0, "max_tokens": 128, **options})


def value_of(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def run(out: Path, prompts: Path, read_s: float, every: int, options: dict[str, Any]) -> None:
    """Ask every prompt that has no line yet."""
    done = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    n_done = sum(json.loads(line)["ended"] for line in done)
    with edgespec.load(adapt=True, **options) as session, out.open("a", encoding="utf-8") as file:
        seen = Hits()
        for prompt in read_prompts(prompts)[n_done:]:
            n_told = 0
            for _ in session.chat(list(prompt.messages)):
                if session.stats.n_tokens >= n_told + every:
                    n_told = session.stats.n_tokens
                    seen = tell(session, seen, file, ended=False)
            seen = tell(session, seen, file, ended=True)
            session.pair.learner.idle.wait(read_s)


def tell(session: Any, before: Hits, file: TextIO, *, ended: bool) -> Hits:
    """Write a line of what was guessed since; the counts now."""
    learner, stats = session.pair.learner, session.stats
    row = {name: n - getattr(before, name) for name, n in asdict(learner.hits).items()}
    row |= {"tokens": stats.n_tokens, "decode_s": stats.decode_s, "drafted": stats.n_drafted}
    row |= {"accepted": stats.n_accepted, "steps": learner.n_steps, "spent_s": learner.spent_s}
    row |= {"topic": learner.topics.answer.topic, "topics": len(learner.topics.heads)}
    row |= {"adopted": learner.model.correction is not None, "ended": ended}
    file.write(json.dumps(row) + "\n")
    file.flush()
    return replace(learner.hits)


def shares(out: Path) -> tuple[list[float], list[float]]:
    """Right guesses by windows of requests: with the head as it was in use, and as it began."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    sums = {name: np.cumsum([0, *(row[name] for row in rows)]) for name in ("n", "made", "frozen")}
    first = np.arange(max(1, len(rows) - WINDOW + 1))
    last = np.minimum(first + WINDOW, len(rows))
    n = sums["n"][last] - sums["n"][first]
    made, frozen = ((sums[name][last] - sums[name][first]) / n for name in ("made", "frozen"))
    return made.tolist(), frozen.tolist()


def plot(picture: Path, outs: list[Path]) -> None:
    """Draw both lines of each, one panel below the other."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        len(outs), figsize=(7, 1.0 + 1.6 * len(outs)), layout="constrained", squeeze=False
    )
    for out, axes in zip(outs, panels[:, 0], strict=True):
        made, frozen = shares(out)
        at = np.arange(len(made)) + min(WINDOW, len(made))
        axes.plot(at, made, label="learning")
        axes.plot(at, frozen, label="frozen head, same places")
        axes.set_title(out.stem, fontsize="medium", loc="left")
        axes.grid(alpha=0.3)
    panels[0, 0].legend(frameon=False)
    panels[-1, 0].set_xlabel("requests")
    figure.supylabel(f"right guesses, last {WINDOW} requests", fontsize="medium")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
