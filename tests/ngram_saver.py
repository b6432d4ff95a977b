"""Saves n-gram caches in a process that is killed at random moments, and checks what is left.

`python tests/ngram_saver.py FOLDER KILLS SEED`, on a system with fork. Prints how many kills there
were, how many of them during a write, and how many different caches were found in the file.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

from vocab_maker import vocabulary

from edgespec.drafters.bridges.ngram_file import DAMAGED, load, save
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.files import PART

DRAFT = vocabulary(*(f"{i:03}" for i in range(300)))
TARGET = vocabulary(*(f"{i:03}." for i in range(300)))


def cache_of(generation: int) -> NgramCache:
    """A cache that is told from every other by each of its entries and by their number."""
    cache = NgramCache()
    for i in range(100 + generation):
        cache.learn((259 + i, ord(".")), 259 + i, hits=1 + generation)
    return cache


CACHES = [cache_of(generation) for generation in range(100)]


def save_for_ever(path: Path, generation: int) -> None:
    """Write one generation after the other."""
    for n in count(generation):
        save(CACHES[n % 100], path, DRAFT, TARGET)


def found(path: Path) -> int:
    """The generation that the file holds, whole; -1 before the first."""
    if not path.exists():
        return -1
    entries = list(load(path, DRAFT, TARGET).entries())
    generation = len(entries) - 100
    assert entries == list(CACHES[generation].entries())
    assert not path.with_name(path.name + DAMAGED).exists()
    return generation


def wait_for_another(path: Path) -> None:
    """Return when another file has taken the path, so that on a busy machine something happens."""
    before = seen(path)
    while seen(path) == before:
        time.sleep(0.001)


def seen(path: Path) -> tuple[int, int]:
    """Changes with the file; zeros if there is none."""
    if not path.exists():
        return 0, 0
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def main(folder: Path, n_kills: int, seed: int) -> None:
    """Start, kill, look; n_kills times."""
    rng, path = random.Random(seed), folder / "cache"
    generations = [-1]
    for _ in range(n_kills):
        child = os.fork()
        if child == 0:
            save_for_ever(path, generations[-1] + 1)
        if rng.random() < 0.8:
            wait_for_another(path)
        time.sleep(rng.uniform(0, 0.015))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        generations.append(found(path))
    print(n_kills, len(list(folder.glob(f"*{PART}"))), len(set(generations) - {-1}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
