"""What the child process does that opens an unknown file first (gguf/trial.py)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.trial import PROMPT, REFUSED
from edgespec.backends.gguf.tried import Times
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.device import Others
from edgespec.errors import EdgeSpecError

WIDTHS, REPEATS, MOST_S = (1, 4, 8), 5, 3.0


def trial(path: str, loading: str, n_threads: str, timed: str) -> None:
    """Open `path` and run a few tokens, in a process that may die; timed: print what they take.

    Exits with trial.REFUSED and the reason on stdout when the file is refused.
    """
    options = ModelOptions(n_context=512, device="cpu", n_threads=int(n_threads))
    try:
        model = LlamaCppModel(Path(path), options, loading=loading)
        run_few(model)
        if timed:
            print(json.dumps(_measured(model)))
        model.close()
    except EdgeSpecError as error:
        print(error)
        sys.exit(REFUSED)


def run_few(model: Any) -> None:
    """Read a few tokens, for the kernels to be met: one row's, a draft's, a prompt's."""
    for n in (1, 9, PROMPT):
        ids = [i % model.n_vocab for i in range(min(n, model.n_context // 2))]
        model.truncate(0)
        model.extend(ids)
        model.forward(ids)
    model.truncate(0)


def _measured(model: LlamaCppModel) -> dict[str, Times | bool]:
    """The least a forward takes by width, and whether others computed here meanwhile."""
    ids = [i % model.n_vocab for i in range(PROMPT)]
    seconds: Times = {}
    start, others = perf_counter(), Others()
    for i in range(REPEATS):
        for n in (PROMPT, *WIDTHS):
            model.truncate(0 if n == PROMPT else PROMPT)
            begin = perf_counter()
            (model.extend if n == PROMPT else model.forward)(ids[:n])
            took_s = perf_counter() - begin
            seconds[str(n)] = min(seconds.get(str(n), took_s), took_s)
        if i and perf_counter() > start + MOST_S:
            break
    return {"seconds": seconds, "busy": others.compute}
