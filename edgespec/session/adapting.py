"""What lets a pair's draft model learn from its target: parts of adapt/ put together for a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt import missed
from edgespec.adapt.adapted import Adapted
from edgespec.adapt.adapter import fresh
from edgespec.adapt.adapter_file import Head
from edgespec.adapt.examples import Examples
from edgespec.adapt.grown import Grown
from edgespec.adapt.heads import Heads
from edgespec.adapt.learned import file_of
from edgespec.adapt.online import Columns, Online
from edgespec.adapt.topic_files import TopicFiles
from edgespec.adapt.topics import Topics
from edgespec.adapt.trainer import Trainer
from edgespec.config import Config, state_folder
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.errors import TokenizerError, UsageError
from edgespec.protocols import OpenModel

RANK = 16  # SmolLM2's head for Qwen2.5-Coder-1.5B: 16 and 32 gave the same
LABELLED = "auto", "exact"  # bridges whose drafts tell their pieces, so that guesses are labelled
PIECES, PIECE = 64, 1 << 16  # of a file, and bytes of each, that tell it from others: 4 MB in all

Ints = NDArray[np.int64]


def learner(
    model: OpenModel, mapping: Mapping | None, sides: tuple[str, str], config: Config
) -> tuple[Adapted, Online]:
    """The draft model with the heads that were learned earlier, and what learns further.

    mapping: None for a drafter of the target's vocabulary. sides: as of `sides_of`.
    """
    grown = None
    if model.token_ids is not None and config.adapt_rows:
        file = file_of(state_folder(), missed.FOLDER, *sides, missed.ENDING)
        known = missed.Missed(model.token_ids, model.n_vocab, budget=config.adapt_rows, path=file)
        model = grown = Grown(model, known)
    adapted, n_hidden = Adapted(model), model.capabilities.hidden_width
    files, examples = TopicFiles(state_folder(), *sides), Examples(n_hidden)

    def heads(topic: int) -> Heads:
        saved = files.heads[topic].load()
        if saved is None or not fits(saved.head, adapted, may_be_old=grown is None):
            trainer = Trainer(fresh(np.arange(0), n_hidden, rank=RANK))
            return Heads(adapted, trainer, files.heads[topic], {}, within=config.adapt_within)
        trainer = Trainer(saved.adapter)
        return Heads(
            adapted, trainer, files.heads[topic], saved.head.days, within=config.adapt_within
        )

    topics = Topics(heads, files, examples, most=config.adapt_topics)
    online = Online(
        adapted, topics, examples, columns(model, mapping), share=config.adapt_share, grown=grown
    )
    return adapted, online


def fits(head: Head, model: Adapted, *, may_be_old: bool) -> bool:
    """Whether what was learned is of this head: of its columns, where a file says so.

    may_be_old: a file that does not is from before trimmed heads grew, so it fits one that does
    not.
    """
    if head.n_hidden != model.capabilities.hidden_width:
        return False
    return head.n_columns == model.n_columns or (may_be_old and not head.n_columns)


def sides_of(draft: Path, target: Path, lora: str = "") -> tuple[str, str]:
    """What tells drafter and target from others, which names the files of what they have learned.

    lora: the adapter that the drafter is used with, whose hidden states are others than without.
    Raises: UsageError where it is not there.
    """
    side = fingerprint(draft)
    if lora:
        if not Path(lora).is_file():
            raise UsageError(f"{lora} is not there: expected an adapter; check --lora-draft")
        side = hashlib.sha256(f"{side} {fingerprint(Path(lora))}".encode()).hexdigest()
    return side, fingerprint(target)


def fingerprint(path: Path) -> str:
    """Of a model's file, or of the largest of a folder's: by its size and pieces all over it."""
    file = path
    if path.is_dir():
        file = max((one for one in path.iterdir() if one.is_file()), key=lambda f: f.stat().st_size)
    size = file.stat().st_size
    last = max(size - PIECE, 0)
    digest = hashlib.sha256(b"%d " % size)
    with file.open("rb") as data:
        for start in sorted({last * i // (PIECES - 1) for i in range(PIECES)}):
            data.seek(start)
            digest.update(data.read(PIECE))
    return digest.hexdigest()


def columns(model: OpenModel, mapping: Mapping | None) -> Columns:
    """Where tokens of the target, and pieces of the drafter's, stand in the drafter's logits."""
    of_piece: Callable[[Ints], Ints] = lambda ids: ids  # noqa: E731
    if model.token_ids is not None:
        table = np.full(model.n_vocab + 1, -1, np.int64)  # the last for -1
        table[model.token_ids] = np.arange(len(model.token_ids))
        of_piece = table.__getitem__
    if mapping is None:
        return Columns(of_piece, of_piece)
    first = First(mapping)
    return Columns(lambda ids: of_piece(first(ids)), of_piece)


class First:
    """The drafter's token, or the first of those, that spells a token of the target's; -1: none."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._first = mapping.preimage.astype(np.int64)
        self._known = self._first >= 0

    def __call__(self, ids: Ints) -> Ints:
        for token in ids[~self._known[ids]].tolist():
            self._known[token] = True
            self._first[token] = self._spelled(token)
        return self._first[ids]

    def _spelled(self, token: int) -> int:
        try:
            pieces = self._mapping.draft.encode(self._mapping.target.pieces[token])
        except TokenizerError:
            return -1
        return pieces[0] if pieces else -1
