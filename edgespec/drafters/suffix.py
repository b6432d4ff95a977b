"""Where the last tokens occurred before: an index of token sequences that grows and forgets.

For n = 1, 2 and 4 it knows the last place of every n-gram and, for every place, the one
before with the same n-gram. So adding a token costs three dictionary entries, finding the places
of a match costs one step each, and the exact length of a match is compared only when needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

BREAK = -1  # between texts; equals no token id
SIZES = (1, 2, 4)


class SuffixIndex:
    """Tokens of all texts, a BREAK after each but the last; the last one is the live text.

    tokens: what is kept, oldest first. Places are indices into `tokens`.
    """

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.clear()

    def clear(self) -> None:
        self.tokens: list[int] = []
        self._dropped = 0  # places recorded below count from the first token ever
        self._live = 0  # place, so counted, where the live text begins
        self._last: tuple[dict[int, int], ...] = tuple({} for _ in SIZES)
        self._before: tuple[list[int], ...] = tuple([] for _ in SIZES)

    def begin(self, tokens: Sequence[int]) -> None:
        """Start a new live text; what was live before becomes history."""
        if self.tokens and self.tokens[-1] != BREAK:
            self.extend((BREAK,))
        self._live = self._dropped + len(self.tokens)
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add to the live text."""
        known, place = self.tokens, self._dropped + len(self.tokens)
        levels = list(zip(SIZES, self._last, self._before, strict=True))
        for token in tokens:
            known.append(token)
            for n, last, before in levels:
                key = token if n == 1 else hash(tuple(known[-n:]))
                before.append(last.get(key, -1))
                last[key] = place
            place += 1
        excess = len(known) - self.max_tokens
        if (
            excess > self.max_tokens // 64
        ):  # in lumps: moving the rest down costs the same each time
            self._drop(excess)

    def _drop(self, n_tokens: int) -> None:
        """Forget the oldest tokens and the keys that lead to them alone.

        The first tokens kept lose their keys too: an n-gram cut short can never be deleted later.
        """
        tokens = self.tokens
        for last, n in zip(self._last, SIZES, strict=True):
            for i in range(min(n_tokens + n - 1, len(tokens))):
                key = tokens[i] if n == 1 else hash(tuple(tokens[max(i + 1 - n, 0) : i + 1]))
                if last.get(key, -1) == self._dropped + i:
                    del last[key]
        del tokens[:n_tokens]
        for before in self._before:
            del before[:n_tokens]
        self._dropped += n_tokens
        self._live = max(self._live, self._dropped)

    def matches(self, max_depth: int, max_places: int) -> Iterator[tuple[list[int], int]]:
        """Earlier places that end with the last `depth` live tokens, the longest depth first.

        Each is (places, depth): all of the most recent `max_places` found whose match is at least
        that long, most recent first; a depth at which no place is added is left out.
        """
        limit = min(max_depth, self._dropped + len(self.tokens) - self._live)
        ceiling = limit + 1
        for n, before in zip(reversed(SIZES), reversed(self._before), strict=True):
            if n > limit or ceiling <= n:
                continue
            places = self._chained(before, max_places)
            lengths = [self._length(place, n, limit) for place in places]
            for depth in sorted({m for m in lengths if n <= m < ceiling}, reverse=True):
                yield [p for p, m in zip(places, lengths, strict=True) if m >= depth], depth
            ceiling = n

    def _chained(self, before: list[int], max_places: int) -> list[int]:
        """The most recent earlier places with the n-gram at the end."""
        out: list[int] = []
        dropped, place = self._dropped, before[-1]
        while place >= dropped and len(out) < max_places:
            out.append(place - dropped)
            place = before[place - dropped]
        return out

    def _length(self, place: int, n: int, limit: int) -> int:
        """How many tokens up to `place` equal the last ones, at most `limit`; 0 if fewer than n.

        The n-grams are compared as well: their keys are hashes, which may collide.
        """
        tokens = self.tokens
        end = len(tokens) - 1
        limit = min(limit, place + 1)
        if limit < n or tokens[place + 1 - n : place + 1] != tokens[end + 1 - n :]:
            return 0
        while (
            n + 8 <= limit
            and tokens[place - n - 7 : place + 1 - n] == tokens[end - n - 7 : end + 1 - n]
        ):
            n += 8
        while n < limit and tokens[place - n] == tokens[end - n]:
            n += 1
        return n
