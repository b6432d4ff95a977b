"""Which rows a trimmed head is missing: tokens that the target says and the drafter cannot.

Every row is of a token that was said, the most often said ones are held, within a budget; a count
fades, so rows that are not needed any more go. EvoSpec (arXiv 2605.27390) and MicroSpec (arXiv
2605.26444) let the rows of a draft head follow the text, too.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt import learned
from edgespec.adapt.seal import opened, sealed
from edgespec.errors import UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec")

FORMAT, FOLDER, ENDING = b"edgespec missed rows 2 ", "rows", ".rows"
FADING = 16  # sightings for each row of the budget, after which all counts are halved
LEAST = 0.5  # a count that is forgotten once it is less
MOST_BYTES = 1 << 24  # of a file that is read
WRONG = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class Missed:
    """Counts of tokens that a head of the rows `own` [K] has no row for, of `n_vocab` tokens.

    budget: rows held at most. path: where they are kept.
    """

    def __init__(self, own: NDArray[np.integer], n_vocab: int, *, budget: int, path: Path) -> None:
        self._can_miss = np.ones(n_vocab, np.bool_)
        self._can_miss[own] = False
        self._budget, self.path = budget, path
        self._counts: dict[int, float] = {}
        self.held: set[int] = set()
        self._n_since, self._n_unsaved, self._is_stored = 0, 0, True
        self._load()

    def said(self, token: int) -> tuple[int | None, int | None]:
        """The target said it: which token's row is held from now on, and which one's no longer."""
        if not 0 <= token < len(self._can_miss) or not self._can_miss[token]:
            return None, None
        self._counts[token] = self._counts.get(token, 0.0) + 1
        self._n_unsaved += 1
        self._fade()
        return (None, None) if token in self.held else self._held(token)

    def _held(self, token: int) -> tuple[int | None, int | None]:
        """Hold it, in place of the least said one where there is no room."""
        least = None
        if len(self.held) >= self._budget:
            least = min(self.held, key=lambda one: self._counts.get(one, 0.0), default=None)
            if least is None or self._counts.get(least, 0.0) >= self._counts[token]:
                return None, None
            self.held.remove(least)
        self.held.add(token)
        return token, least

    def _fade(self) -> None:
        self._n_since += 1
        if self._n_since >= FADING * self._budget:
            self._n_since = 0
            halves = {token: n / 2 for token, n in self._counts.items()}
            self._counts = {token: n for token, n in halves.items() if n >= LEAST}

    def save(self, *, at_least: int = 1) -> None:
        """See adapt.learned.Kind. Where that fails it is said once, and not tried again."""
        if self._n_unsaved < max(at_least, 1) or not self._is_stored:
            return
        self._n_unsaved = 0
        counts = {str(token): n for token, n in self._counts.items()}
        body = json.dumps({"pair": self.path.stem, "counts": counts, "held": sorted(self.held)})
        try:
            learned.sweep(self.path)
            write_whole(self.path, sealed(FORMAT, body.encode()), ours=True)
        except (OSError, UsageError) as error:
            self._is_stored = False
            log.warning("rows that the drafter's head is missing are not stored: %s", error)

    def _load(self) -> None:
        """What was kept; nothing of a file that does not check."""
        try:
            counts, held = counts_in(self.path, self.path.stem)
        except FileNotFoundError:
            return
        except (OSError, *WRONG) as error:
            log.warning("%s cannot be used (%s): missing rows are counted anew", self.path, error)
            if not isinstance(error, OSError):
                learned.set_aside(self.path)
            return
        fits = {token: n for token, n in counts.items() if self._fits(token)}
        self._counts = fits
        self.held = set([token for token in held if token in fits][: self._budget])

    def _fits(self, token: int) -> bool:
        return 0 <= token < len(self._can_miss) and bool(self._can_miss[token])


def counts_in(path: Path, pair: str) -> tuple[dict[int, float], list[int]]:
    """Counts by token, and the tokens held, in a file of this pair. Raises: OSError, WRONG."""
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("too large")
    found = json.loads(opened(FORMAT, path.read_bytes()))
    if found["pair"] != pair:
        raise ValueError(f"rows of {found['pair']!r:.40}, another pair")
    counts = {int(token): float(n) for token, n in found["counts"].items()}
    if not all(0 < n < float("inf") for n in counts.values()):
        raise ValueError("counts that are none")
    return counts, [int(token) for token in found["held"]]


def files_in(state: Path) -> list[Path]:
    """Those of all pairs, and parts."""
    return learned.files_in(state, FOLDER, ENDING)
