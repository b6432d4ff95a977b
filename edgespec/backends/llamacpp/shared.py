"""Several texts in one llama.cpp context: a sequence each, and forwards that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgespec.backends.llamacpp.batch import Part
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.tokens import ids_of
from edgespec.errors import ContextError, ShapeError, UsageError
from edgespec.types import Capabilities, FloatArray


class SharedModel:
    """Implements protocols.SharedModel with an open model, which is then used by nobody else.

    n: texts at once, each of an n-th of the context. Raises: UsageError for more than the model
    was opened for leaves, or one with a recurrent state, of which there is one.
    """

    def __init__(self, model: LlamaCppModel, n: int) -> None:
        if model.is_recurrent:
            raise UsageError(
                "a model with a recurrent state reads one text at a time: expected one that only "
                "attends; choose another target"
            )
        if not 1 <= n <= model.capabilities.n_leaves:
            raise UsageError(
                f"{n} sequences: expected 1 to {model.capabilities.n_leaves}; open the model with "
                "more max_leaves"
            )
        self.model, self.sequences = model, [SharedSequence(model, i, n) for i in range(1, n + 1)]

    def forward(self, asks: Sequence[tuple[SharedSequence, Sequence[int]]]) -> list[FloatArray]:
        """Logits [k, V] of each sequence after each of its tokens, by one pass; views.

        Raises: ContextError before anything is read if they do not fit; ShapeError for more rows
        than the model computes at once; Cancelled.
        """
        logits = self.model.forward_sequences([one.part(tokens) for one, tokens in asks])
        out, end = [], 0
        for sequence, tokens in asks:
            start, end = end, end + len(tokens)
            sequence.has_read(len(tokens))
            out.append(logits[start:end])
        return out


class SharedSequence:
    """Implements protocols.LanguageModel, for chains: one text of a SharedModel."""

    token_ids = None
    capabilities = Capabilities()

    def __init__(self, model: LlamaCppModel, sequence: int, n: int) -> None:
        self._model, self._sequence = model, sequence
        self.n_vocab, self.n_context = model.n_vocab, model.n_context // n
        self.length = 0
        self._base = 0  # length before the last forward
        self._settled = True  # the cache holds exactly `length` tokens

    @property
    def hidden(self) -> FloatArray:
        return np.empty((0, 0), np.float32)

    def part(self, tokens: Sequence[int]) -> Part:
        """These tokens as a part of a pass; it counts once `has_read` says so."""
        if self.length + len(tokens) > self.n_context:
            raise ContextError(
                f"{self.length} + {len(tokens)} tokens: expected at most the {self.n_context} of "
                "this text's share of the context; shorten it or open fewer"
            )
        ids = ids_of(tokens, self.n_vocab)
        if not self._settled:  # what an interrupted pass left
            self._model.cut_sequence(self._sequence, self.length)
        self._settled = False
        return Part(self._sequence, self.length, ids)

    def has_read(self, n: int) -> None:
        """A pass with n tokens of this text is done."""
        self._base, self.length, self._settled = self.length, self.length + n, True

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        most = self._model.n_batch
        for start in range(0, len(tokens), most):
            part = tokens[start : start + most]
            self._model.forward_sequences([self.part(part)], logits=False)
            self.has_read(len(part))

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """See protocols.LanguageModel. Raises: ShapeError for a tree."""
        if parents is not None:
            raise ShapeError("a shared sequence reads no trees: expected a chain")
        logits = self._model.forward_sequences([self.part(tokens)])
        self.has_read(len(tokens))
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """See protocols.LanguageModel. Raises: ShapeError if `rows` is not a path from the top."""
        if list(rows) != list(range(len(rows))) or self._base + len(rows) > self.length:
            raise ShapeError(f"rows {list(rows)[:20]}: expected a path from the top")
        self.truncate(self._base + len(rows))

    def truncate(self, n: int) -> None:
        """See protocols.LanguageModel."""
        if not 0 <= n <= self.length:
            raise ShapeError(f"cannot truncate {self.length} tokens to {n}: expected fewer")
        self._model.cut_sequence(self._sequence, n)
        self.length, self._settled = n, True

    def close(self) -> None:
        """Forget the text; the model stays open."""
        self.truncate(0)
