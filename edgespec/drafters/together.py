"""One draft model for several texts: each pass gives every text that drafts its next token.

The model has the target's vocabulary. What it reads of a text is window.py's business; how much is
drafted for whom, its caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from edgespec.decode.follow import Follower, Pays, common_prefix
from edgespec.drafters.window import FEW, MOST, PART, Window
from edgespec.pace.goodput import cost_of
from edgespec.protocols import Drawing, SharedModel
from edgespec.types import NO_DRAFT, Draft, FloatArray


@dataclass(eq=False)
class Wish:
    """A draft of at most k tokens after `context`, the who-th text; otherwise as Drafter.draft.

    pays: told the confidences so far, whether another token does. Not asked where tokens are drawn.
    """

    who: int
    context: Sequence[int]
    k: int
    drawing: Drawing | None
    pays: Pays


@dataclass(eq=False)
class Growing:
    """A draft as far as it has come. last: what its text reads next, after what it holds; n_next:
    how many tokens these are.
    """

    wish: Wish
    before: list[int]
    last: int
    n_next: int
    tokens: list[int] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    rows: list[FloatArray] = field(default_factory=list)

    def grow(self, logits: FloatArray) -> bool:
        """Add the next token by its logits [V]; whether one more is wanted."""
        wish = self.wish
        if wish.drawing is None:
            token = int(logits.argmax())
            sure = 1.0 / float(np.exp(logits - logits[token]).sum())
            self.confidence.append(sure * (self.confidence[-1] if self.confidence else 1.0))
        else:
            row = wish.drawing.law(logits, self.before)
            token = wish.drawing.chances.pick(row)
            self.rows.append(row)
            self.before.append(token)
        self.tokens.append(token)
        self.last, self.n_next = token, 1
        if len(self.tokens) >= wish.k:
            return False
        return wish.drawing is not None or wish.pays(self.confidence)

    def draft(self, name: str) -> Draft:
        """As it is now."""
        tokens, sources = tuple(self.tokens), (name,) * len(self.tokens)
        if self.rows:
            return Draft(tokens, probs=np.array(self.rows), sources=sources)
        return Draft(tokens, sources=sources, confidence=tuple(self.confidence))


class Drafters(Protocol):
    """What drafts for several texts, which are numbered from 0."""

    def step_s(self, m: int) -> float:
        """Seconds that a token for each of m texts takes."""
        ...

    def read_s(self, n: int) -> float:
        """Seconds that reading n tokens takes."""
        ...

    def begin(self, who: int, ids: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> None:
        """The who-th text will be another one, which begins with `ids`, of these messages."""
        ...

    def n_unread(self, who: int, context: Sequence[int]) -> int:
        """Tokens of a text that a draft for it would have to read first."""
        ...

    def drafts(self, wishes: Sequence[Wish]) -> list[Draft]:
        """A draft for each, none where more has to be read first than is read along with it: of
        that a part is read now.
        """
        ...

    def forget(self) -> None:
        """A call was interrupted: nobody knows what was read."""
        ...


class Together:
    """Implements Drafters with the texts of a shared model.

    first_s: what a pass for 1, 2, .. texts takes, until it is known.
    """

    name = "model"

    def __init__(
        self, shared: SharedModel[Any], first_s: Sequence[float], *, most_shown: int = MOST
    ) -> None:
        self.shared, texts = shared, shared.sequences
        self._caches = [Follower(text) for text in texts]
        self._windows = [Window(text.n_context, most=most_shown) for text in texts]
        self._first_s, self._step_s = first_s, [0.0] * (len(texts) + 1)  # by how many draft
        self._read_s = 0.0  # of a token
        self._few = min(FEW, shared.n_batch // len(texts) - 1)  # unread tokens read with a draft

    def step_s(self, m: int) -> float:
        """See Drafters; of a number not seen yet, by the next smaller that was."""
        known = next((i for i in range(m, 0, -1) if self._step_s[i]), 0)
        if not known:
            return self._guess(m)
        return self._step_s[known] * self._guess(m) / self._guess(known)

    def _guess(self, m: int) -> float:
        return cost_of(self._first_s, m)

    def read_s(self, n: int) -> float:
        """See Drafters."""
        return n * (self._read_s or self._guess(n) / n) if n else 0.0

    def begin(self, who: int, ids: Sequence[int], messages: Sequence[Mapping[str, Any]]) -> None:
        """See Drafters: what the text shares with the last one need not be read again."""

    def n_unread(self, who: int, context: Sequence[int]) -> int:
        """See Drafters."""
        shown = self._windows[who].of(context)
        return len(shown) - common_prefix(self._caches[who].ids, shown, len(shown))

    def drafts(self, wishes: Sequence[Wish]) -> list[Draft]:
        """See Drafters."""
        growing, reads = list[Growing](), []
        for wish in wishes:
            begun = self._begin(wish)
            if isinstance(begun, Growing):
                growing.append(begun)
            elif begun:
                reads.append((wish.who, begun))
        made = {id(one.wish): one for one in growing}
        while growing or reads:
            growing, reads = self._step(growing, reads), []
        return [
            made[id(wish)].draft(self.name) if id(wish) in made else NO_DRAFT for wish in wishes
        ]

    def _begin(self, wish: Wish) -> Growing | list[int]:
        """The draft, whose text holds what is to be read before its last token; else what to read
        now.
        """
        cache, text = self._caches[wish.who], self._caches[wish.who].model
        shown = self._windows[wish.who].of(wish.context)
        wish.k = min(wish.k, text.n_context - len(shown) + 1)
        if wish.k < 1:
            return []
        n_same = cache.cut(shown, len(shown) - 1)
        missing = shown[n_same:]
        if len(missing) > self._few:
            return missing[: min(PART, len(missing) - 1)]
        self.shared.sequences[wish.who].hold(missing[:-1])
        cache.ids += missing[:-1]
        return Growing(wish, list(wish.context) if wish.drawing else [], missing[-1], len(missing))

    def _step(
        self, growing: Sequence[Growing], reads: Sequence[tuple[int, list[int]]]
    ) -> list[Growing]:
        """One pass; the drafts that go on."""
        texts = self.shared.sequences
        room, is_usual = self.shared.n_batch, all(one.n_next == 1 for one in growing)
        room -= sum(one.n_next for one in growing)
        fit = list(reads)[: room // PART]  # the others are asked again next round
        growing_n = [one.n_next for one in growing]
        start = perf_counter()
        rows = self.shared.forward(
            [(texts[one.wish.who], [one.last]) for one in growing],
            [(texts[who], tokens) for who, tokens in fit],
        )
        took_s = perf_counter() - start
        for who, tokens in fit:
            self._caches[who].ids += tokens
        for one in growing:
            self._caches[one.wish.who].ids.append(one.last)
        if not fit and is_usual:
            self._observe(len(growing), took_s)
        else:
            n = sum(len(tokens) for _, tokens in fit) + sum(growing_n)
            self._read_s += (took_s / n - self._read_s) * (0.3 if self._read_s else 1.0)
        return [one for one, logits in zip(growing, rows, strict=True) if one.grow(logits[-1])]

    def _observe(self, m: int, took_s: float) -> None:
        known = self._step_s[m]
        took_s = min(took_s, 3 * known) if known else took_s
        self._step_s[m] = known + (took_s - known) * 0.1 if known else took_s

    def forget(self) -> None:
        """See Drafters."""
        for cache in self._caches:
            cache.ids = []
            cache.model.truncate(0)
