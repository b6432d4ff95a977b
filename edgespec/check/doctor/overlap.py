"""How two vocabularies agree: in the bytes of their tokens, in their ids, on running text.

Control tokens spell nothing and are compared apart, in special.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import TokenizerError
from edgespec.text.vocabulary import Vocabulary

FILLER = re.compile(rb"(\[PAD\d+\])?")  # what unused ids at the end of a vocabulary spell
SAME, PADDED, CONTROL, OTHER = "same", "padded", "control", "other"


@dataclass(frozen=True)
class Overlap:
    """How much of each vocabulary the other has.

    kind: "same", id for id; "padded", the same but for unused ids at one's end; "control", the
    same but for control tokens; "other". n_unused: of the longer at its end. n_*_spelled: different
    byte strings that each one's tokens spell, n_shared: those that both have. n_proposable: of
    these, what the drafter's head has a row for. text_share: of the target's tokens in running
    text, those that the drafter's own tokens of it are too.
    """

    kind: str
    n_target: int
    n_draft: int
    n_unused: int
    n_target_spelled: int
    n_draft_spelled: int
    n_shared: int
    n_proposable: int
    text_share: float

    @property
    def target_share(self) -> float:
        """Of what the target's tokens spell, what the drafter has as one token."""
        return self.n_shared / max(self.n_target_spelled, 1)

    @property
    def draft_share(self) -> float:
        """Of what the drafter's tokens spell, what the target has as one token."""
        return self.n_shared / max(self.n_draft_spelled, 1)

    def record(self) -> dict[str, Any]:
        """For scripts."""
        return {**self.__dict__, "target_share": self.target_share, "draft_share": self.draft_share}


def overlap_of(
    target: Vocabulary,
    draft: Vocabulary,
    texts: Iterable[str],
    token_ids: NDArray[np.int32] | None = None,
) -> Overlap:
    """The figures of one pair. token_ids: of a drafter's trimmed head, see LanguageModel."""
    shared = target.by_bytes.keys() & draft.by_bytes.keys()
    kept = len(shared)
    if token_ids is not None:
        kept = len(shared & {draft.pieces[token] for token in token_ids.tolist()})
    kind = kind_of(target, draft)
    return Overlap(
        kind=kind,
        n_target=target.n_vocab,
        n_draft=draft.n_vocab,
        n_unused=abs(target.n_vocab - draft.n_vocab) if kind == PADDED else 0,
        n_target_spelled=len(target.by_bytes),
        n_draft_spelled=len(draft.by_bytes),
        n_shared=len(shared),
        n_proposable=kept,
        text_share=text_share(target, draft, texts),
    )


def kind_of(target: Vocabulary, draft: Vocabulary) -> str:
    """See Overlap.kind; every id is compared."""
    n = min(target.n_vocab, draft.n_vocab)
    longer = target if target.n_vocab > n else draft
    more = [piece for piece in longer.pieces[n:] if not FILLER.fullmatch(piece)]
    if target.pieces[:n] != draft.pieces[:n] or more:
        return OTHER
    if _controls(target, n) != _controls(draft, n) or _controls(longer, longer.n_vocab, n):
        return CONTROL
    return PADDED if longer.n_vocab > n else SAME


def _controls(side: Vocabulary, end: int, start: int = 0) -> dict[int, bytes]:
    """How control tokens of these ids are written."""
    return {
        token: side.tokenizer.piece(token, special=True)
        for token in range(start, end)
        if side.is_control(token)
    }


def text_share(target: Vocabulary, draft: Vocabulary, texts: Iterable[str]) -> float:
    """Of the target's tokens in `texts` those that spell what one of the drafter's does there.

    0 for texts that the drafter cannot spell.
    """
    n_tokens = n_found = 0
    for text in texts:
        data = text.encode()
        ids = target.encode(data, start=True)
        n_tokens += len(ids)
        try:
            n_found += len(_places(target, ids) & _places(draft, draft.encode(data, start=True)))
        except TokenizerError:
            continue
    return n_found / max(n_tokens, 1)


def _places(side: Vocabulary, ids: list[int]) -> set[tuple[int, bytes]]:
    """Where each token of a text ends, and its bytes; not of an id that stands in for another."""
    at, found = -side.adds_space, set[tuple[int, bytes]]()
    for token in ids:
        piece = side.pieces[token]
        at += len(piece)
        if side.by_bytes[piece] == token:
            found.add((at, piece))
    return found
