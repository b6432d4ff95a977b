"""What a model drafter is shown of a long text, and when reading it pays. Knows ids and seconds.

A drafter reads a prompt in a good part of the target's own time, and hardly needs what stands far
back: it is shown the end of the text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Protocol, runtime_checkable

# SmolLM2-135M's likeliest token is the one that Qwen2.5-Coder-1.5B says, after prompts of 2,000
# tokens (120 tokens each; +-0.045), with 128, 256, 512, 1,024 tokens shown and with all: dialogues
# 0.51 0.51 0.49 0.74; a story 0.47 0.46 0.49 (768: 0.53); code 0.58 0.56 0.58 0.58, all 0.72. So
# more does help, where an answer repeats what stands there, but reading it takes longer than such
# an answer can win by it; and what it copies, the n-grams find. Nothing reads the rest later yet.
SINKS = 4  # first tokens, always shown: models look there (arXiv 2309.17453)
SHOWN, MOST = 128, 1024  # tokens shown of a new text; up to how many they grow
ROOM = 132  # tokens of a drafter's context that are left for drafts and sinks
SMALLEST = 512  # tokens of a context below which all is shown
FEW, FEW_S = 32, 0.05  # unread tokens, or as many as take so long, are read along with a draft
PART, PART_S = 64, 0.3  # tokens, or as many as take so long, that are read between two rounds


class Window:
    """The first tokens of a text and its end.

    The end begins at the same place while the text grows, so that a cache is used again; after
    `most` tokens, or where more are new than were ever shown, it begins anew `shown` tokens back.
    """

    def __init__(self, n_context: int, *, shown: int | None = None, most: int = MOST) -> None:
        """n_context: what the drafter holds. most: 0 for all that it holds. shown: None for as much
        of `most` as SHOWN is of MOST.
        """
        shown = SHOWN * most // MOST if shown is None else shown
        self._is_whole = most == 0 or n_context < SMALLEST
        self._most = n_context - ROOM if n_context >= SMALLEST else sys.maxsize
        self._most = min(most or self._most, self._most)
        self._shown = self._most // 2 if self._is_whole else min(shown, self._most // 2)
        self._start = self._n_known = 0

    def of(self, context: Sequence[int]) -> list[int]:
        """What is shown of it; the same until the next call with another text."""
        n = len(context)
        n_new, n_shown = n - max(self._n_known, self._start), n - self._start
        if self._is_whole and n <= self._most:
            self._start = 0
        elif n_shown > self._most or n_shown < self._shown // 2 or self._is_many(n_new):
            self._start = max(n - self._shown, 0)
        if self._start <= SINKS:
            self._start = 0
        self._n_known = n
        return [*context[: min(SINKS, self._start)], *context[self._start :]]

    def _is_many(self, n_new: int) -> bool:
        """Whether so many tokens are better not read."""
        return not self._is_whole and n_new > self._shown * 3 // 2


@runtime_checkable
class Reads(Protocol):
    """A drafter that has to read a text before it drafts, and can do so in parts."""

    def n_unread(self, context: Sequence[int]) -> int:
        """Tokens of its own that it has to read before it can draft."""
        ...

    def read_on(self, context: Sequence[int], n: int) -> None:
        """Read the next n of them."""
        ...


class Reading:
    """Whether a drafter has read the text; it reads on, in parts, where that pays.

    How much time may go to that is its caller's business. It begins only where all that is unread
    fits into it, and reads in parts, between rounds.
    """

    def __init__(self, drafter: Reads, *, clock: Callable[[], float] = perf_counter) -> None:
        self._drafter, self._clock = drafter, clock
        self.token_s = 0.0  # what reading a token takes; 0 before the first part
        self.took_s = 0.0  # in all

    def is_done(self, context: Sequence[int], most_s: float, usual_s: float = 0.0) -> bool:
        """Whether it may draft now. most_s: seconds that may go to reading what is unread.

        usual_s: what reading a token is taken to take as long as that is not known.
        """
        n = self._drafter.n_unread(context)
        if n <= FEW:
            return True
        takes_s = n * (self.token_s or usual_s)
        if most_s > 0 and takes_s <= most_s:
            if 0 < takes_s <= FEW_S:
                return True
            fits = int(PART_S / self.token_s) if self.token_s else 0
            start, part = self._clock(), min(n, max(PART, fits))
            self._drafter.read_on(context, part)
            took_s = self._clock() - start
            self.took_s += took_s
            self.token_s += (took_s / part - self.token_s) * (0.2 if self.token_s else 1.0)
        return False
