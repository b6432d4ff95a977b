"""What a model's files say before it is opened: its kind, memory and vocabulary, no weights read.

A model that cannot run here still has a preview, with the reasons in `problems`. How each kind of
file is read is in llamacpp/preview.py and onnx/preview.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends import ModelOptions, backend_of
from edgespec.config import DEFAULT_CONTEXT
from edgespec.errors import ModelFileError

PREVIEWS = {
    "llamacpp": "edgespec.backends.llamacpp.preview:preview_of",
    "onnx": "edgespec.backends.onnx.preview:preview_of",
}


@dataclass(frozen=True)
class Cache:
    """Keys and values. token_bytes: of one token. step, n_more: sizes are rounded up, and added.

    most: tokens the model was trained or exported for. is_capped: it never has room for more than
    `most`. is_fixed: it always has room for just those. state_bytes: of recurrent states, whatever
    the context. n_back: tokens that snapshots among them take back, 0 where states are copied and
    what stays is read again. window_bytes: of one token in layers that see the last tokens only;
    n_window: how many they keep, 0 for all.
    """

    token_bytes: int
    most: int
    step: int = 1
    n_more: int = 0
    is_capped: bool = False
    is_fixed: bool = False
    state_bytes: int = 0
    n_back: int = 0
    window_bytes: int = 0
    n_window: int = 0

    def n_bytes(self, n_context: int) -> int:
        """Bytes of a cache for so many tokens."""
        n_context = min(n_context, self.most) if self.is_capped else n_context
        n_context = self.most if self.is_fixed else n_context
        n_tokens = n_context + -n_context % self.step + self.n_more
        windowed = self.window_bytes * min(n_tokens, self.n_window or n_tokens)
        return self.token_bytes * n_tokens + windowed + self.state_bytes


@dataclass(frozen=True)
class Preview:
    """One model. quant: see types.ModelInfo; n_params, weights_bytes: 0 if it has no weights.

    logits_bytes: memory for rows of logits. tokenizer: None where none can be opened. token_ids:
    see protocols.LanguageModel. cache: None if the files do not say. shares_memory: whether it
    would lie in the memory that all programs share, not on a GPU. more_context: how many times the
    tokens of a context it gets when those are counted in another vocabulary.
    """

    path: Path
    backend: str
    architecture: str
    quant: str
    n_params: int
    weights_bytes: int
    logits_bytes: int
    n_vocab: int
    tokenizer: Any  # protocols.Tokenizer, with close()
    token_ids: NDArray[np.int32] | None
    cache: Cache | None
    shares_memory: bool = True
    more_context: float = 1.0
    problems: tuple[str, ...] = ()

    @property
    def most_context(self) -> int:
        """Tokens it was made for, at most what a context has unless asked."""
        return min(DEFAULT_CONTEXT, DEFAULT_CONTEXT if self.cache is None else self.cache.most)

    def close(self) -> None:
        """Free the tokenizer."""
        if self.tokenizer is not None:
            self.tokenizer.close()


def preview(path: Path, options: ModelOptions) -> Preview:
    """What is known of the model in `path` without opening it.

    Raises: ModelFileError, UsageError for what is no model file at all.
    """
    module, _, attribute = PREVIEWS[backend_of(path)].partition(":")
    found: Preview = getattr(import_module(module), attribute)(path, options)
    return found


def with_vocabulary(path: Path) -> Preview:
    """The same of a model that is to be asked for its vocabulary alone, which is there then.

    Raises: ModelFileError, also without one; UsageError.
    """
    found = preview(path, ModelOptions())
    if found.tokenizer is None:
        raise ModelFileError(found.problems[0])
    return found
