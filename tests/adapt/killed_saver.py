"""Saves one kind of what is learned in a process that is killed at random moments; checks the rest.

`python tests/adapt/killed_saver.py heads|rows|prompts FOLDER KILLS`, on a system with fork. Prints
how many kills there were, how many of them during a write, and how many states were found.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np

from edgespec.adapt import missed
from edgespec.adapt.adapter import HeadAdapter, fresh
from edgespec.adapt.adapter_file import AdapterFiles, read
from edgespec.adapt.kept_prompts import KeptPrompts
from edgespec.adapt.learned import file_of
from edgespec.adapt.missed import Missed
from edgespec.adapt.topic_files import Map, TopicFiles, new_map
from edgespec.adapt.topic_files import read as read_map
from edgespec.files import PART

PAIR = "d" * 64, "7" * 64
N_READY = 8  # generations made before the first kill

Save, Check = Callable[[int], None], Callable[[], str]
"""Saves the n-th generation; names the newest one, after all that is there was read."""


def adapter_of(generation: int) -> HeadAdapter:
    """One of 2,000 rows, each value of which tells its generation."""
    adapter = fresh(np.arange(2000), 64, rank=16)
    for part in adapter.parameters:
        part[:] = generation
    return adapter


def map_of(generation: int) -> Map:
    """One each weight of which tells its generation."""
    what = new_map()
    what.router.weights[:] = generation
    return what


def heads(folder: Path) -> tuple[Save, Check]:
    """Adapters, and maps of topics."""
    files, topics = AdapterFiles(folder, *PAIR), TopicFiles(folder, *PAIR)
    ready = [(adapter_of(n), map_of(n)) for n in range(N_READY)]

    def save(n: int) -> None:
        files.save(ready[n % N_READY][0], {})
        topics.save_map(ready[n % N_READY][1])

    def check() -> str:
        assert len(np.unique(read_map(topics.map).router.weights)) == 1
        for path in files.versions():
            values = [np.unique(part) for part in read(path).adapter.parameters]
            assert len(np.unique(np.concatenate(values))) == 1, path
        return files.versions()[0].name

    return save, check


def rows(folder: Path) -> tuple[Save, Check]:
    """Counts of rows, all of one number, which tells the generation."""
    path = file_of(folder, missed.FOLDER, *PAIR, missed.ENDING)
    one = Missed(np.arange(2), 3000, budget=1024, path=path)

    def save(n: int) -> None:
        one._counts, one._n_unsaved = dict.fromkeys(range(2, 3000), float(n + 1)), 1
        one.save()

    def check() -> str:
        counts, _ = missed.counts_in(path, path.stem)
        assert len(counts) == 2998 and len(set(counts.values())) == 1
        return str(counts[2])

    return save, check


def prompts(folder: Path) -> tuple[Save, Check]:
    """Prompts of 20 kB that are numbered on from what is there; none is lost between others."""
    kept = KeptPrompts(folder, *PAIR, budget_bytes=400_000)

    def save(_: int) -> None:
        content = f"{numbers(kept)[-1] + 1} " * 3000 if kept.path.exists() else "0 " * 3000
        kept.add([{"role": "user", "content": content}])

    def check() -> str:
        found = numbers(kept)
        assert found == list(range(found[0], found[-1] + 1)), found
        return str(found[-1])

    return save, check


def numbers(kept: KeptPrompts) -> list[int]:
    """Those of all prompts that are there, each of one number alone."""
    contents = [messages[0]["content"].split() for messages in kept.messages()]
    assert all(len(words) == 3000 and len(set(words)) == 1 for words in contents)
    return [int(words[0]) for words in contents]


def main(kind: str, folder: Path, n_kills: int) -> None:
    """Start, kill, look; n_kills times."""
    rng, found = random.Random(1), set[str]()
    save, check = {"heads": heads, "rows": rows, "prompts": prompts}[kind](folder)
    save(0)
    for _ in range(n_kills):
        child = os.fork()
        if child == 0:
            for n in count(rng.randrange(1000)):
                save(n)
        time.sleep(rng.uniform(0.002, 0.04))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "it has failed by itself"
        found.add(check())
    print(n_kills, len(list(folder.rglob(f"*{PART}"))), len(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
