"""What the child process does that opens an unknown file first (gguf/trial.py)."""

from __future__ import annotations

import sys
from pathlib import Path

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.trial import REFUSED
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.device import n_cores
from edgespec.errors import EdgeSpecError


def trial(path: str, loading: str) -> None:
    """Open `path` and run a few tokens, in a process that may die.

    Exits with trial.REFUSED and the reason on stdout when the file is refused.
    """
    large = Path(path).is_file() and Path(path).stat().st_size > 100 << 20
    n_threads = min(4, n_cores()) if large else 1
    options = ModelOptions(n_context=512, device="cpu", n_threads=n_threads)
    try:
        model = LlamaCppModel(Path(path), options, loading=loading)
        n_vocab = model.n_vocab
        # One row, a draft's worth and a prompt's worth take different kernels.
        for n in (1, 9, 64):
            model.truncate(0)
            model.extend([i % n_vocab for i in range(n)])
            model.forward([i % n_vocab for i in range(n)])
        model.close()
    except EdgeSpecError as error:
        print(error)
        sys.exit(REFUSED)
