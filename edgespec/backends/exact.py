"""A target whose text does not depend on what else was read with it: same prompt, same logits.

A row's logits depend on the class of the forward's width (widths.py), and on how what lies before
it in the cache was read. So whatever decides a token is a forward of one class, filled up with
tokens that are forgotten where the class is too wide, and a prompt is read in parts that end at
fixed places, whatever was in the cache before: of that only whole parts are used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgespec.backends.tokens import tree_of
from edgespec.errors import ContextError, ShapeError
from edgespec.protocols import OpenModel
from edgespec.types import Capabilities, FloatArray, ModelInfo

PART = 256  # what llama.cpp reads in one batch on a CPU
FILLING = 0  # any token will do


class Exact:
    """Implements protocols.LanguageModel, for chains, over `model`, which it closes.

    widths: of one class, ascending. After `truncate` or `extend` all that counts is a prompt, and
    what was decoded of it is read again; after `keep` decoding goes on.
    """

    token_ids: NDArray[np.int32] | None = None

    def __init__(self, model: OpenModel, widths: Sequence[int]) -> None:
        self.model, self.widths = model, tuple(widths)
        self.tokenizer, self.n_vocab = model.tokenizer, model.n_vocab
        self.n_context = model.n_context - most_filling(self.widths)
        self.capabilities = Capabilities(hidden_width=model.capabilities.hidden_width)
        self.device = f"{model.device}, exact in widths {in_words(self.widths)}"
        self._ids: list[int] = []  # what counts, read or not
        self._n_whole = 0  # so many of them were read in whole parts
        self._n_prompt = 0  # so many were read as a prompt: the last part ends here
        self._decoding = False  # whether the model's cache begins with all of the ids
        self._last = (0, 0)  # where the last forward began and how many rows it has
        self._hidden = np.empty((0, 0), np.float32)

    @property
    def hidden(self) -> FloatArray:
        """See protocols.LanguageModel."""
        return self._hidden

    @property
    def length(self) -> int:
        """Tokens that count as read."""
        return len(self._ids)

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel. A last part that is not whole is read again with more."""
        self._check_room(len(tokens))
        n_before = len(self._ids)
        self.truncate(n_before)
        self._ids += map(int, tokens)
        try:
            self._read_prompt()
        except BaseException:
            del self._ids[n_before:]
            self.truncate(n_before)
            raise

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """See protocols.LanguageModel; what fits no single forward of the class comes as a copy.

        Raises: ShapeError for a tree.
        """
        if parents is not None and tree_of(parents, len(tokens)) is not None:
            raise ShapeError("an exact target reads no trees: expected a chain; draft one")
        self._check_room(len(tokens))
        base = self.length
        self._last = (base, 0)
        if not self._decoding:
            self._read_prompt()
        self._decoding = True
        logits, self._hidden = self._forward(tokens, base)
        self._ids += map(int, tokens)
        self._last = (base, len(tokens))
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """See protocols.LanguageModel. Raises: ShapeError if `rows` is not a path from the top."""
        base, n = self._last
        if list(rows) != list(range(len(rows))) or len(rows) > n:
            raise ShapeError(f"rows {list(rows)[:20]} of {n}: expected a path from the top")
        del self._ids[base + len(rows) :]
        self._last = (base, len(rows))

    def truncate(self, n: int) -> None:
        """See protocols.LanguageModel. Raises: ShapeError unless 0 <= n <= length."""
        if not 0 <= n <= self.length:
            raise ShapeError(f"cannot truncate {self.length} tokens to {n}: expected fewer")
        del self._ids[n:]
        self._n_whole = min(self._n_whole, n // PART * PART)
        if n < self._n_prompt:
            self._n_prompt = self._n_whole
        self._last, self._decoding = (n, 0), False

    def cancel(self) -> None:
        """Make the call in flight, in whatever thread, raise Cancelled."""
        self.model.cancel()

    def use_threads(self, n: int) -> None:
        """See protocols.OpenModel."""
        self.model.use_threads(n)

    def info(self) -> ModelInfo:
        """What the model is."""
        info = self.model.info()
        return replace(info, device=self.device)

    def close(self) -> None:
        """See protocols.LanguageModel."""
        self.model.close()

    def _read_prompt(self) -> None:
        """Bring the model's cache to what counts, whole parts first and then the rest as one."""
        while self.length - self._n_whole >= PART:
            self._read(self._n_whole + PART)
            self._n_whole = self._n_prompt
        if self._n_prompt != self.length:
            self._read(self.length)

    def _read(self, end: int) -> None:
        """Read a prompt's ids behind its whole parts, up to `end`, as one part."""
        self._n_prompt = self._n_whole
        self.model.truncate(self._n_whole)
        self.model.extend(self._ids[self._n_whole : end])
        self._n_prompt = end

    def _forward(self, tokens: Sequence[int], base: int) -> tuple[FloatArray, FloatArray]:
        """Logits and states of tokens from `base` on, by as few forwards of the class as may be."""
        most = self.widths[-1]
        if len(tokens) <= most:
            return self._piece(tokens, base)
        pieces = []
        for start in range(0, len(tokens), most):
            logits, hidden = self._piece(tokens[start : start + most], base + start)
            pieces.append((logits.copy(), hidden.copy()))
        logits, hidden = map(np.concatenate, zip(*pieces, strict=True))
        return logits, hidden

    def _piece(self, tokens: Sequence[int], base: int) -> tuple[FloatArray, FloatArray]:
        """Logits and states of tokens from `base` on, by one forward of the class; views."""
        self.model.truncate(base)
        n_filling = filled(len(tokens), self.widths) - len(tokens) if tokens else 0
        filling = (FILLING,) * n_filling
        logits = self.model.forward((*tokens, *filling))
        return logits[: len(tokens)], self.model.hidden[: len(tokens)]

    def _check_room(self, n: int) -> None:
        needed, n_filling = self.length + n, self.model.n_context - self.n_context
        if needed > self.n_context:
            raise ContextError(
                f"{self.length} + {n} tokens: expected at most the {self.n_context} of the "
                f"context; shorten the prompt or raise it with -c {needed + n_filling}"
            )


def filled(n: int, widths: Sequence[int]) -> int:
    """The width that n tokens are read at: the next one of the class."""
    return next(width for width in widths if width >= n)


def most_filling(widths: Sequence[int]) -> int:
    """Tokens that a forward may have behind those that count."""
    return max(filled(n, widths) - n for n in range(1, widths[-1] + 1))


def in_words(widths: Sequence[int]) -> str:
    """Widths as runs: 1-7, or 4, 8."""
    runs: list[list[int]] = []
    for width in widths:
        if runs and width == runs[-1][-1] + 1:
            runs[-1].append(width)
        else:
            runs.append([width])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in runs)
