"""What the server asks of whoever generates; session/many has who does.

Knows requests as ids and options, and nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from edgespec.config import Config
from edgespec.option import Options
from edgespec.protocols import Tokenizer
from edgespec.session.completion import Begun
from edgespec.session.prompt import Prompt
from edgespec.text.template import ChatTemplate, Message
from edgespec.types import Piece


class Pieces(Protocol):
    """The pieces of one generation, as they come."""

    def __iter__(self) -> Iterator[Piece]: ...

    def __next__(self) -> Piece:
        """The next one; waits for it. Raises: Cancelled once it was closed."""
        ...

    def close(self) -> None:
        """End the generation within a round; from any thread, in whatever state it is."""
        ...


class Answering(Protocol):
    """Begins generations; from any thread, several at once.

    n_slots: generations at once; others wait. n_context: most tokens of a prompt with its answer.
    n_vocab: V.
    """

    n_slots: int

    @property
    def template(self) -> ChatTemplate: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def config(self) -> Config: ...

    @property
    def n_context(self) -> int: ...

    @property
    def n_vocab(self) -> int: ...

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """As Session.prompt."""
        ...

    def encode(self, text: str) -> list[int]:
        """As Session.encode."""
        ...

    def with_options(self, options: Options) -> Config:
        """The configuration with a request's own values. Raises: UsageError."""
        ...

    def begin(self, ids: Sequence[int], config: Config, options: Options) -> Begun:
        """A generation, which may have to wait for its turn; its pieces are `Pieces`.

        Raises: at once what is wrong with the request; BusyError if too many wait.
        """
        ...

    def close(self) -> None:
        """End what is in progress and what waits, and free the models."""
        ...
