"""What learning while drafting costs: tokens a second with it and without, in turns.

`python tests/adapt/cost.py --prompts FILE [repeats=5] [NAME=VALUE, options of edgespec.load]` asks
each prompt of two sessions, one that learns. No gain is sure there, no lead counts, so both heads
stay as they are and both draft the same; that is checked.
"""

from __future__ import annotations

import json
import sys
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from stream import value_of

import edgespec
from edgespec.adapt import gate, rivals
from edgespec.cli.prompts import read_prompts


def main(words: list[str]) -> None:
    """Print one line of JSON."""
    rivals.SIGMAS = gate.SIGMAS = inf
    given = dict(word.split("=", 1) for word in words[2:])
    options: dict[str, Any] = {name: value_of(text) for name, text in given.items()}
    repeats = int(options.pop("repeats", 5))
    options = {"temperature": 0.0, "max_tokens": 128, "speculative": "on", **options}
    prompts = list(read_prompts(Path(words[1])))
    with (
        edgespec.load(**options) as frozen,
        edgespec.load(adapt=True, **options) as learning,
    ):
        ratios, spent = [], []
        for repeat in range(repeats):
            for i, prompt in enumerate(prompts):
                both = [frozen, learning] if (repeat + i) % 2 else [learning, frozen]
                seen = {one is learning: asked(one, prompt.messages) for one in both}
                assert seen[True][0] == seen[False][0], "both draft alike"
                ratios.append(seen[False][1] / seen[True][1])
        learner = learning.pair.learner
        assert learner is not None
        spent = [learner.spent_s, learner.n_steps, learner.examples.n_bytes]
    low, high = sorted(ratios)[len(ratios) // 10], sorted(ratios)[-1 - len(ratios) // 10]
    print(json.dumps({
        "median": median(ratios), "tenth": low, "nine_tenths": high, "answers": len(ratios),
        "spent_s": spent[0], "steps": spent[1], "buffer_bytes": spent[2],
    }))  # fmt: skip


def asked(session: Any, messages: Any) -> tuple[tuple[int, int, int], float]:
    """What was drafted, and the seconds of decoding."""
    for _ in session.chat(list(messages)):
        pass
    stats = session.stats
    return (stats.n_tokens, stats.n_drafted, stats.n_accepted), stats.decode_s


if __name__ == "__main__":
    main(sys.argv[1:])
