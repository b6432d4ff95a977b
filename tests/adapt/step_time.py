"""What a training step takes, by rows and rank: the figures of edgespec/adapt/README.md.

`OMP_NUM_THREADS=1 python tests/adapt/step_time.py [ROWS,ROWS.. [RANK,RANK..]]` prints a line for
each: the median of 25 steps after 30 others, all rows held, and what a correction takes, likewise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
from head_pair import HeadPair, taught

from edgespec.adapt.adapter import fresh
from edgespec.adapt.trainer import Trainer

ROWS, RANKS = (4096, 8192, 16384), (16, 32, 64)
N_HIDDEN, N_REQUESTS = 576, 16  # SmolLM2-135M's; of 32 positions each
N_BEFORE, N_TIMED = 30, 25


def main(rows: tuple[int, ...], ranks: tuple[int, ...]) -> None:
    """Print the lines."""
    print("| rows | rank | step, ms | correction, ms |")
    for n in rows:
        pair = HeadPair(n=n, d=N_HIDDEN)
        examples = taught(pair, n_requests=N_REQUESTS)
        logits = pair.drafted(pair.hidden(1, np.random.default_rng(0)))[0]
        state = pair.centres[0].astype(np.float32)
        for rank in ranks:
            adapter = fresh(np.arange(n), N_HIDDEN, rank=rank)
            learner = Trainer(adapter)
            step_s = timed(partial(learner.step, examples))
            correct_s = timed(partial(adapter.correct, logits, state))
            print(f"| {n:,} | {rank} | {1e3 * step_s:.1f} | {1e3 * correct_s:.3f} |", flush=True)


def timed(do: Callable[[], object]) -> float:
    """The median in seconds."""
    took = []
    for _ in range(N_BEFORE + N_TIMED):
        start = perf_counter()
        do()
        took.append(perf_counter() - start)
    return median(took[N_BEFORE:])


if __name__ == "__main__":
    given = [tuple(map(int, word.split(","))) for word in sys.argv[1:3]]
    main(*given, *(ROWS, RANKS)[len(given) :])
