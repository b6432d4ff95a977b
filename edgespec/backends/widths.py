"""Which widths of forwards compute alike on this device: to the last bit the same rows.

A kernel takes one token in another way than four, and adds numbers in another order. Widths form
classes, found by trying: rows are compared bit by bit, at a short context and behind the length
from which on attention is split. Of a class each row must also be the same in every place.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from edgespec.backends.exact import filled
from edgespec.errors import BackendError, UsageError
from edgespec.files import write_whole
from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray

log = logging.getLogger("edgespec")

# From 512 cells on llama.cpp splits the attention of a single token; it counts them by 256.
CONTEXTS = (8, 264)
FEW, MOST = 8, 17  # wider ones than FEW are tried where the widest computes as these do
ROOM = 3  # the last token and two drafted
USUAL = (1, 4)  # where classes are alike, by what so many tokens take: plain, and three drafted


def find_widths(
    model: LanguageModel, *, clock: Callable[[], float] = perf_counter
) -> tuple[int, ...]:
    """The widths of the class to decode in, ascending. Empties the model's cache.

    One with room for a draft, where plain decoding costs no more than ever, and then the fastest:
    the same one each time, for times on a busy device are no reason for another text.
    A few seconds of a model whose token takes 80 ms.
    Raises: BackendError if a row depends on its place at every width; Cancelled.
    """
    contexts = [n for n in CONTEXTS if n + 2 * MOST <= model.n_context] or [0]
    tries = [Tries(model, n, clock) for n in contexts]
    widths = [n for n in range(1, FEW + 1) if n < model.n_context]
    classes = classes_of(tries, [*widths, *([MOST] if contexts != [0] else [])])
    if any(set(one) & set(widths) and one[-1] == MOST for one in classes):
        classes = classes_of(tries, range(1, MOST + 1))
    # Wide ones of a class may depend on the place where narrow ones do not.
    parts = [one[:n] for one in classes for n in range(1, len(one) + 1)]
    for one in sorted(parts, key=lambda p: (p[-1] < ROOM, p[0] > 1, price(p, tries), -len(p))):
        if all(each.is_placeless(one) for each in tries):
            return one
    raise BackendError(
        f"rows of {model.n_vocab} logits depend on their place at every width here: expected a "
        "class of widths that compute alike; leave --exact out"
    )


class Tries:
    """Forwards of several widths behind n tokens."""

    def __init__(self, model: LanguageModel, n: int, clock: Callable[[], float]) -> None:
        self._model, self._n, self._clock = model, n, clock
        ids = np.random.default_rng(0).integers(model.n_vocab, size=n + 2 * MOST).tolist()
        self._read, self._tokens = ids[:n], ids[n:]
        self.rows: dict[int, FloatArray] = {}
        self.seconds: dict[int, float] = {}

    def measure(self, widths: Sequence[int]) -> None:
        """Rows and seconds of these widths."""
        self._begin()
        for width in widths:
            if width not in self.rows:
                times = []
                for _ in range(2):  # a width's first call makes its graph
                    start = self._clock()
                    rows = self._model.forward(self._tokens[:width])
                    times.append(self._clock() - start)
                    self._model.keep(())
                self.rows[width], self.seconds[width] = rows.copy(), min(times)

    def alike(self, a: int, b: int) -> bool:
        """Whether two widths give the same rows."""
        n = min(a, b)
        return np.array_equal(self.rows[a][:n], self.rows[b][:n])

    def is_placeless(self, widths: Sequence[int]) -> bool:
        """Whether each row comes first in the narrowest forward as it comes within the widest."""
        self._begin()
        for i in range(widths[-1]):
            first = self._model.forward(self._tokens[i : i + widths[0]])[0]
            if not np.array_equal(first, self.rows[widths[-1]][i]):
                return False
            self._model.keep((0,))
        return True

    def _begin(self) -> None:
        self._model.truncate(0)
        self._model.extend(self._read)


def classes_of(tries: Sequence[Tries], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Widths that give the same rows in all tries, widest first; each class ascending."""
    for one in tries:
        one.measure(widths)
    classes: list[list[int]] = []
    for width in sorted(widths, reverse=True):
        for known in classes:
            if all(one.alike(known[0], width) for one in tries):
                known.append(width)
                break
        else:
            classes.append([width])
    return [tuple(sorted(known)) for known in classes]


def price(widths: Sequence[int], tries: Sequence[Tries]) -> float:
    """Seconds of USUAL numbers of tokens, each read by forwards of the class."""
    return sum(
        one.seconds[filled(min(n - start, widths[-1]), widths)]
        for one in tries
        for n in USUAL
        for start in range(0, n, widths[-1])
    )


def load(file: Path) -> tuple[int, ...] | None:
    """The widths in `file`; None if there is none or it is damaged."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return tuple(known) if known and known == sorted({int(n) for n in known}) else None
    except (OSError, ValueError, TypeError):
        return None


def save(widths: Sequence[int], file: Path) -> None:
    """Keep them; where nothing can be written they are found again next time."""
    try:
        write_whole(file, json.dumps(widths).encode(), ours=True)
    except UsageError as error:
        log.info("widths not stored: %s", error)
