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
        self.n_batch, self.n_rows = model.n_batch, model.capabilities.n_rows
        self.model, self.sequences = model, [SharedSequence(model, i, n) for i in range(1, n + 1)]

    def forward(
        self,
        asks: Sequence[tuple[SharedSequence, Sequence[int]]],
        reads: Sequence[tuple[SharedSequence, Sequence[int]]] = (),
    ) -> list[FloatArray]:
        """See protocols.SharedModel.

        Raises: ContextError before anything is read if they do not fit; ShapeError for more tokens
        or rows than the model computes at once; Cancelled.
        """
        parts = [one.part(tokens) for one, tokens in asks]
        parts += [one.part(tokens, 0) for one, tokens in reads]
        logits = self.model.forward_sequences(parts)
        out, end = [], 0
        for sequence, tokens in asks:
            start, end = end, end + len(tokens)
            sequence.has_read(len(tokens))
            out.append(logits[start:end])
        for sequence, tokens in reads:
            sequence.has_read(len(tokens))
        return out


class SharedSequence:
    """Implements protocols.SharedText, for chains: one text of a SharedModel."""

    token_ids = None
    capabilities = Capabilities()

    def __init__(self, model: LlamaCppModel, sequence: int, n: int) -> None:
        self._model, self._sequence = model, sequence
        self.n_vocab, self.n_context = model.n_vocab, model.n_context // n
        self._n_read, self._held = 0, list[int]()  # tokens in the cache, and those to follow
        self._base = 0  # length before the last forward
        self._settled = True  # the cache holds exactly what was read

    @property
    def length(self) -> int:
        """See protocols.LanguageModel; what is held counts."""
        return self._n_read + len(self._held)

    @property
    def hidden(self) -> FloatArray:
        return np.empty((0, 0), np.float32)

    def hold(self, tokens: Sequence[int]) -> None:
        """See protocols.SharedText. Raises: ContextError."""
        self._check_room(len(tokens))
        self._held += tokens

    def drop_held(self) -> None:
        """See protocols.SharedText."""
        self._held = []

    def part(self, tokens: Sequence[int], n_rows: int | None = None) -> Part:
        """What is held and these tokens as a part of a pass; it counts once `has_read` says so.

        n_rows: of the last so many tokens logits are wanted, None: of these.
        """
        self._check_room(len(tokens))
        ids = ids_of([*self._held, *tokens], self.n_vocab)
        if not self._settled:  # what an interrupted pass left
            self._model.cut_sequence(self._sequence, self._n_read)
        self._settled = False
        return Part(self._sequence, self._n_read, ids, len(tokens) if n_rows is None else n_rows)

    def _check_room(self, n: int) -> None:
        if self.length + n > self.n_context:
            raise ContextError(
                f"{self.length} + {n} tokens: expected at most the {self.n_context} of "
                "this text's share of the context; shorten it or open fewer"
            )

    def has_read(self, n: int) -> None:
        """A pass with what was held and n more tokens of this text is done."""
        self._base = self.length
        self._n_read, self._held, self._settled = self._base + n, [], True

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        self._check_room(len(tokens))
        most = self._model.n_batch - len(self._held)
        for start in range(0, len(tokens), most):
            part = tokens[start : start + most]
            self._model.forward_sequences([self.part(part, 0)])
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
        if n_rows is not None and n_rows < len(tokens):
            self.extend(tokens[: len(tokens) - n_rows])
            tokens = tokens[len(tokens) - n_rows :]
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
        del self._held[max(n - self._n_read, 0) :]
        if n < self._n_read or not self._settled:
            self._n_read = min(n, self._n_read)
            self._model.cut_sequence(self._sequence, self._n_read)
        self._settled = True

    def copy(self, other: SharedSequence, n: int) -> None:
        """See protocols.SharedText. Raises: ShapeError unless `other` has n tokens."""
        if not 0 <= n <= other.length:
            raise ShapeError(f"cannot copy {n} of {other.length} tokens: expected as many or less")
        self._n_read = min(n, other._n_read)
        self._model.cut_sequence(self._sequence, self._n_read, other._sequence)
        self._held, self._settled = other._held[: n - self._n_read], True

    def close(self) -> None:
        """Forget the text; the model stays open."""
        self.truncate(0)
