"""What can be plugged in: models, drafters, speculators, controllers, tokenizers.

Any backend can serve as target or as drafter. The contracts below are what tests/conformance
checks of every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgespec.types import Capabilities, Chances, Draft, FloatArray, ModelInfo, Round

if TYPE_CHECKING:
    from typing_extensions import Self


class Law(Protocol):
    """A sampling chain with its parameters."""

    def __call__(self, logits: FloatArray, context: Sequence[int], /) -> FloatArray:
        """Probabilities [V], sum 1, for logits [V] and the ids before them."""
        ...

    def translated(self, ids: NDArray[np.int32]) -> Law:
        """The same chain over another vocabulary, in which token t of this one is ids[t], or -1."""
        ...

    def drafting(self) -> Law:
        """What a drafter of this vocabulary draws from: near this law, and defined everywhere."""
        ...

    def cut(self, draft: Draft, context: Sequence[int]) -> Draft:
        """The draft without what this law can never emit; emitting it keeps the law."""
        ...


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn when sampling. law: the target's chain. chances: a uniform per token."""

    law: Law
    chances: Chances


class LanguageModel(Protocol):
    """Token ids in, logits out, with a cache of what was read so far: one sequence of a model.

    n_vocab: V. n_context: most tokens the cache holds. capabilities: whether `parents` may fork.
    token_ids: None, or for a head trimmed to K rows the id [K] each column of the logits is of;
    wherever logits [n, V] are spoken of, such a model gives [n, K]. It can only be a drafter.
    """

    n_vocab: int
    n_context: int
    capabilities: Capabilities
    token_ids: NDArray[np.int32] | None

    @property
    def hidden(self) -> FloatArray:
        """[n, hidden_width] states behind the last forward's logits, a view; none if that is 0."""
        ...

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        ...

    def extend(self, tokens: Sequence[int]) -> None:
        """Read tokens into the cache without computing logits (a prompt).

        Raises: ContextError before anything is read if they do not fit; Cancelled.
        """
        ...

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> FloatArray:
        """Logits [n, V] after each token; a view that the next call overwrites.

        parents: for each token the index of its parent among these tokens, -1 for the last token
        in the cache; None is a chain. After a forking forward only `keep` may follow. n_rows: of a
        chain only so many last rows are wanted, and those before them may be left out.
        Raises: ContextError before anything is read if they do not fit; Cancelled.
        """
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Of the last forward's tokens keep only `rows` (a path from the top), drop the others."""
        ...

    def truncate(self, n: int) -> None:
        """Forget everything after the first n tokens; n <= length."""
        ...

    def close(self) -> None:
        """Free the memory; further calls are an error; closing twice is not."""
        ...


class SharedText(LanguageModel, Protocol):
    """One text of a model that reads several; it reads chains."""

    def hold(self, tokens: Sequence[int]) -> None:
        """These count as read; the next forward of the text reads them first, without logits.

        Raises: ContextError if they do not fit.
        """
        ...

    def drop_held(self) -> None:
        """What is held is not read after all: the text ends before it."""
        ...

    def copy(self, other: Self, n: int) -> None:
        """Be the first n tokens that `other` has read, in place of what was here."""
        ...


Text = TypeVar("Text", bound=SharedText)


class SharedModel(Protocol[Text]):
    """One model that reads several texts: its weights, and a sequence for each text.

    A scheduler asks one Decoding per sequence, forwards all they ask for at once, and tells them.
    n_batch, n_rows: most tokens of a forward, and most rows of logits.
    """

    sequences: list[Text]
    n_batch: int
    n_rows: int

    def forward(
        self,
        asks: Sequence[tuple[Text, Sequence[int]]],
        reads: Sequence[tuple[Text, Sequence[int]]] = (),
    ) -> list[FloatArray]:
        """Logits [k, V] of each text of `asks` after each of its tokens, by one pass; views.

        reads: parts of other texts, read along without logits.
        """
        ...


class Drafter(Protocol):
    """Proposes what the target will say next, in the target's token ids.

    Whatever it proposes, the output keeps the target's law; a bad drafter only costs time.
    n_leaves: most leaves of its drafts, 1 for chains; the target must be able to read as many.
    """

    name: str
    n_leaves: int

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        """At most k tokens to follow `context` (at least one id); fewer or none if unsure.

        With `drawing` tokens may be drawn from its law of (own logits, context so far), one chance
        each, and `probs` then holds the rows drawn from; otherwise the likeliest tokens and no
        `probs`. `context` may have changed anywhere since the last call.
        """
        ...

    def observe(self, done: Round) -> None:
        """Learn from a finished round, whoever drafted it."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Tokenizer(Protocol):
    """Text to the target's token ids and back, by bytes."""

    bos: int | None  # begins every text, None if no token has to
    bos_text: str  # what a chat template writes as bos_token, "" for nothing
    eos: int | None  # the one a chat template writes as eos_token
    stop_tokens: Set[int]  # every end-of-generation token
    chat_template: str | None  # Jinja source from the model's own metadata

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Ids of text; special: spellings of control tokens become those tokens."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes one token stands for; control tokens give b"" unless `special`."""
        ...


class OpenModel(LanguageModel, Protocol):
    """What a backend hands back: a language model with its tokenizer and a name tag.

    device: where it runs, in words.
    """

    tokenizer: Tokenizer
    device: str

    def info(self) -> ModelInfo:
        """What the model is."""
        ...

    def cancel(self) -> None:
        """End the forward in progress with Cancelled; callable from any thread."""
        ...

    def use_threads(self, n: int) -> None:
        """Compute with at most n threads from the next call on, where the backend can; 0: with as
        many as it was opened with. From any thread.
        """
        ...


class Speculator(Protocol):
    """Drafting as the engine sees it: who drafts, and how much. n_leaves: as of a Drafter.

    name: of what drafts, "" if nothing does. most: tokens it may propose at once; one answer may
    set less.
    """

    name: str
    most: int
    n_leaves: int

    @property
    def reason(self) -> str:
        """Why drafting is paused, in a sentence; empty while it is not."""
        ...

    def propose(self, context: Sequence[int], room: int, drawing: Drawing | None) -> Draft:
        """A draft of at most `room` tokens; otherwise as `Drafter.draft`."""
        ...

    def observe(self, done: Round) -> None:
        """Learn from a finished round."""
        ...

    def close(self) -> None:
        """Keep what was learned and free what it holds."""
        ...


class Controller(Protocol):
    """Decides from measured costs and acceptance how many tokens to draft. most: at once."""

    most: int

    @property
    def reason(self) -> str:
        """Why drafting is paused, in a sentence; empty while it is not."""
        ...

    def next_length(self) -> int:
        """Draft length of the coming round, 0 to pause drafting."""
        ...

    def observe(self, done: Round) -> None:
        """Learn from a finished round and what it cost."""
        ...
