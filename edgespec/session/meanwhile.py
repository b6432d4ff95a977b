"""A draft model that opens in a thread of its own while its target does.

Loading is a single thread of C and some of Python, so two models load in little more than the time
of the larger one.

First token of a second start, Qwen 1.5B mapped on two cores, a whole process over a bare llama.cpp
program that loads and reads the same (39 tokens): with SmolLM2 1.44 (1.09 to 2.26), with Qwen 0.5B
1.47 (1.31 to 2.48); in processor time 1.32 and 1.52. Medians of 7 in turns, beside other programs,
which had more than the two cores for themselves. With vocabularies compared at the start 1.69. With
reordered weights, on the quiet device, medians of 5: 2.02 (1.71 to 2.24), without a drafter 1.99
(1.76 to 2.29); both models as int4 graphs 3.08 (2.64 to 3.47). A bare program took 1.06 seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgespec.backends import ModelOptions, open_model
from edgespec.errors import Cancelled
from edgespec.protocols import OpenModel


class Meanwhile:
    """The model in `path`, begun once its target tells its context, to be taken when that is open.

    trying: told how far a trial is, which waits until the target is open.
    """

    def __init__(
        self, path: Path, options: ModelOptions, trying: Callable[[float], None] | None
    ) -> None:
        self._path, self._target_is_open = path, threading.Event()
        self._trying, self._is_dropped = trying, False
        self._options = replace(
            options, trying=self._tried, alone=self._target_is_open.wait, progress=self._loaded
        )
        self._thread: threading.Thread | None = None
        self._model: OpenModel | None = None
        self._error: BaseException | None = None

    def begin(self, n_context: int, n_vocab: int) -> None:
        """Open it with the target's context, counted in tokens of a vocabulary of n_vocab."""
        options = replace(self._options, n_context=n_context, counted_by=n_vocab)
        self._thread = threading.Thread(target=self._open, args=[options], daemon=True)
        self._thread.start()

    def _open(self, options: ModelOptions) -> None:
        try:
            self._model = open_model(self._path, options)
        except BaseException as error:  # raised where it is taken
            self._error = error

    def _loaded(self, _: float) -> None:
        """How far loading is. Raises: Cancelled once nobody wants the model."""
        if self._is_dropped:
            raise Cancelled("stopped while loading")

    def _tried(self, share: float) -> None:
        """How far a trial is. Raises: as `_loaded`."""
        self._loaded(share)
        if self._trying is not None:
            self._trying(share)

    def take(self) -> OpenModel | None:
        """The open model, now the caller's; None if it was never begun.

        Raises: what opening it raised.
        """
        self._target_is_open.set()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        model, self._model = self._model, None
        return model

    def drop(self) -> None:
        """Close it, unless it was taken; waits until it is open, or loads no further."""
        self._is_dropped = True
        self._target_is_open.set()
        if self._thread is not None:
            self._thread.join()
        if self._model is not None:
            self._model.close()
