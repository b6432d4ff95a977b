"""Answers that a target writes, several at once, and what it thought at each of their tokens.

Texts that a target wrote are what its drafter will meet (DistillSpec, arXiv 2310.08461, section 4);
its likeliest tokens are kept with them, so nobody has to ask it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.labels import KEPT
from edgespec.decode.follow import common_prefix
from edgespec.protocols import LanguageModel, SharedModel
from edgespec.types import FloatArray


@dataclass(frozen=True)
class Written:
    """A text in the target's tokens, and its law at each token of the answer.

    ids: [n], the prompt's first. ids_of, probs: [n - n_prompt, K] likeliest tokens in the place of
    each answer token, and how likely; K is KEPT, or the vocabulary where that is less.
    """

    ids: tuple[int, ...]
    n_prompt: int
    ids_of: NDArray[np.int32]
    probs: NDArray[np.float32]

    @property
    def said(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return self.ids[self.n_prompt :]


class Alone:
    """Implements protocols.SharedModel by a model that reads one text."""

    def __init__(self, model: LanguageModel) -> None:
        self.sequences = [model]

    def forward(self, asks: Sequence[tuple[LanguageModel, Sequence[int]]]) -> list[FloatArray]:
        """See protocols.SharedModel."""
        return [model.forward(tokens) for model, tokens in asks]


@dataclass
class Going:
    """An answer that is being written."""

    number: int
    text: Any  # its sequence
    ids: list[int]
    n_prompt: int
    ids_of: list[NDArray[np.int32]] = field(default_factory=list)
    probs: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, row: FloatArray) -> int:
        """The likeliest token of a row [V] of logits is said, and returned."""
        top = np.argpartition(-row, min(KEPT, len(row)) - 1)[:KEPT]
        top = top[np.argsort(-row[top], kind="stable")]
        law = np.exp(row - row[top[0]])
        self.ids_of.append(top.astype(np.int32))
        self.probs.append((law[top] / law.sum()).astype(np.float16).astype(np.float32))  # as kept
        self.ids.append(int(top[0]))
        return self.ids[-1]

    def done(self) -> Written:
        return Written(tuple(self.ids), self.n_prompt, np.array(self.ids_of), np.array(self.probs))


def write(
    model: SharedModel[Any], prompts: Sequence[Sequence[int]], n_max: int, ends: Collection[int]
) -> Iterator[tuple[int, Written | None]]:
    """Greedy answers of at most n_max tokens, with their prompts' numbers, as each ends.

    ends: tokens that end one, kept as its last. None for a prompt that does not fit, before
    anything is read.
    """
    waiting, room = list[tuple[int, list[int]]](), model.sequences[0].n_context
    for number, prompt in enumerate(prompts):
        if len(prompt) + n_max > room:
            yield number, None
        else:
            waiting.append((number, list(prompt)))
    waiting.reverse()
    free, going = list(model.sequences), list[Going]()
    known: dict[Any, list[int]] = {text: [] for text in free}  # ids of each, the read ones first
    while waiting or going:
        while waiting and free:
            number, ids = waiting.pop()
            one = Going(number, free.pop(), ids, len(ids))
            read(one.text, ids, known)
            known[one.text] = one.ids
            going.append(one)
        rows = model.forward([(one.text, one.ids[-1:]) for one in going])
        for one, row in zip(list(going), rows, strict=True):
            token = one.add(row[-1])
            if token in ends or len(one.ids) - one.n_prompt >= n_max:
                going.remove(one)
                free.append(one.text)
                yield one.number, one.done()


def read(text: Any, prompt: list[int], known: Mapping[Any, list[int]]) -> None:
    """Read a prompt but for its last token; what any of the texts begins with is read already."""
    alike = {
        other: common_prefix(ids, prompt, min(other.length, len(prompt) - 1))
        for other, ids in known.items()
    }
    source = max(alike, key=lambda other: (alike[other], other is text))
    n = alike[source]
    if source is text:
        text.truncate(n)
    else:
        text.copy(source, n)
    text.extend(prompt[n:-1])
