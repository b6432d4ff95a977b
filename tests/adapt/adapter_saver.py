"""Saves adapters and maps of topics in a process that is killed at random moments; checks the rest.

`python tests/adapt/adapter_saver.py FOLDER KILLS`, on a system with fork. Prints how many kills
there were, how many of them during a write, and how many newest versions were found.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np

from edgespec.adapt.adapter import HeadAdapter, fresh
from edgespec.adapt.adapter_file import FOLDER, AdapterFiles, read
from edgespec.adapt.topic_files import Map, TopicFiles, new_map
from edgespec.adapt.topic_files import read as read_map
from edgespec.files import PART


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


def check(files: AdapterFiles, topics: TopicFiles) -> str:
    """The newest version's name, after all of them and the map were read: each is whole."""
    assert len(np.unique(read_map(topics.map).router.weights)) == 1
    for path in files.versions():
        values = [np.unique(part) for part in read(path).adapter.parameters]
        assert len(np.unique(np.concatenate(values))) == 1, path
    return files.versions()[0].name


def main(folder: Path, n_kills: int) -> None:
    """Start, kill, look; n_kills times."""
    rng, pair, found = random.Random(1), ("d" * 64, "7" * 64), set()
    files, topics = AdapterFiles(folder, *pair), TopicFiles(folder, *pair)
    ready = [(adapter_of(generation), map_of(generation)) for generation in range(8)]
    files.save(ready[0][0], {})
    topics.save_map(ready[0][1])
    for _ in range(n_kills):
        child = os.fork()
        if child == 0:
            for n in count():
                files.save(ready[n % len(ready)][0], {})
                topics.save_map(ready[n % len(ready)][1])
        time.sleep(rng.uniform(0.002, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found.add(check(files, topics))
    print(n_kills, len(list((folder / FOLDER).glob(f"*{PART}"))), len(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
