"""What stands before an open model and hands most calls on."""

from __future__ import annotations

from collections.abc import Sequence

from edgespec.protocols import OpenModel
from edgespec.types import Capabilities, FloatArray, ModelInfo


class Wrapped:
    """All of protocols.OpenModel by `model`, which it closes, but `forward` and `token_ids`."""

    def __init__(self, model: OpenModel) -> None:
        self.model = model
        self.tokenizer, self.device = model.tokenizer, model.device
        self.n_vocab, self.n_context = model.n_vocab, model.n_context
        self.capabilities: Capabilities = model.capabilities

    @property
    def hidden(self) -> FloatArray:
        """See protocols.LanguageModel."""
        return self.model.hidden

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self.model.length

    def extend(self, tokens: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        self.model.extend(tokens)

    def keep(self, rows: Sequence[int]) -> None:
        """See protocols.LanguageModel."""
        self.model.keep(rows)

    def truncate(self, n: int) -> None:
        """See protocols.LanguageModel."""
        self.model.truncate(n)

    def cancel(self) -> None:
        """See protocols.OpenModel."""
        self.model.cancel()

    def use_threads(self, n: int) -> None:
        """See protocols.OpenModel."""
        self.model.use_threads(n)

    def info(self) -> ModelInfo:
        """See protocols.OpenModel."""
        return self.model.info()

    def close(self) -> None:
        """See protocols.LanguageModel."""
        self.model.close()
