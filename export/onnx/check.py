"""Whether an exported graph says what the original says: differences, agreement, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.onnx.folder import CHANNEL
from edgespec.errors import BackendError, TokenizerError, UsageError
from edgespec.protocols import Tokenizer
from edgespec.text.template import ChatTemplate

from ..read.checkpoint import Checkpoint
from .sample import CHATS, TEXTS

# Rise of perplexity that is still taken for rounding, as a share, and least top-1 agreement.
LOSS = {"fp32": 0.002, "fp16": 0.005, CHANNEL: 0.02, "int8": 0.02, "int4": 0.10}
AGREEMENT = {"fp32": 0.99, "fp16": 0.98, CHANNEL: 0.93, "int8": 0.95, "int4": 0.80}
PIECE = 256  # tokens of a text compared at a time
MOST_TOKENS = 4096


@dataclass(frozen=True)
class Check:
    """n_tokens compared; max_difference of the logits, of the trimmed head's columns if it is;
    agreement: share of tokens with the same likeliest next one; perplexities, 0 if the head is
    trimmed.
    """

    n_tokens: int
    max_difference: float
    agreement: float
    perplexity: float
    perplexity_original: float

    @property
    def loss(self) -> float:
        """Rise of the perplexity, as a share."""
        if not self.perplexity_original:
            return 0.0
        return self.perplexity / self.perplexity_original - 1

    def __str__(self) -> str:
        words = (
            f"same likeliest token {self.agreement:.2%}, logits within {self.max_difference:.2g}"
        )
        if self.perplexity_original:
            words += f", perplexity {self.perplexity:.3f} ({self.loss:+.2%})"
        return f"{words}, over {self.n_tokens} tokens"


def check_graph(
    checkpoint: Checkpoint,
    folder: Path,
    precision: str,
    texts: Sequence[str] = (),
    max_loss: float | None = None,
    *,
    told: Callable[[float], None] = lambda share: None,
) -> Check:
    """Compare the graph in `folder` with its checkpoint, on sample.py's texts where none are given.

    told: the share that is done. Raises: BackendError if it is bad.
    """
    columns = slice(None) if checkpoint.token_ids is None else checkpoint.token_ids
    with closing(open_model(folder, ModelOptions(device="cpu"))) as model:
        ids = [model.tokenizer.encode(text, bos=True) for text in texts or TEXTS]
        ids += [] if texts else chats(model.tokenizer)
        pieces = list(cut(ids, min(PIECE, model.n_context)))
        found = compared(
            pieces, rows_of(model, pieces, told), original(checkpoint, pieces), columns
        )
    worst = LOSS[precision] if max_loss is None else max_loss
    # Who allows a loss is not held to the likeliest tokens as well, where there is a loss to see.
    allowed = max_loss is not None and bool(found.perplexity_original)
    agrees = allowed or found.agreement >= AGREEMENT[precision]
    if not (found.loss <= worst and agrees):
        more = "--precision int8" if precision == CHANNEL else "a smaller --block or more bits"
        raise BackendError(
            f"the exported graph differs too much ({found}): expected a perplexity at most "
            f"{worst:.1%} above the original's and {AGREEMENT[precision]:.0%} agreement; use "
            f"{more}, or allow it with --max-loss"
        )
    return found


def chats(tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of sample.py's conversations, as plain text where the model has no chat template."""
    told = [[{"role": role, "content": said} for role, said in chat] for chat in CHATS]
    try:
        template = ChatTemplate(tokenizer, own=True)
        return [template.tokens(messages, answer=False) for messages in told]
    except TokenizerError:
        plain = ["\n\n".join(said for _, said in chat) for chat in CHATS]
        return [tokenizer.encode(text, bos=True) for text in plain]


def cut(texts: Sequence[Sequence[int]], longest: int) -> Iterator[list[int]]:
    """Pieces of at least two and at most `longest` tokens, MOST_TOKENS in all."""
    left = MOST_TOKENS
    for ids in texts:
        for start in range(0, len(ids), longest):
            piece = list(ids[start : start + min(longest, left)])
            if len(piece) > 1:
                left -= len(piece)
                yield piece
    if left == MOST_TOKENS:
        raise UsageError("the text to check on has no two tokens: expected some lines of text")


def rows_of(
    model: Any, pieces: Sequence[Sequence[int]], told: Callable[[float], None]
) -> Iterator[NDArray[np.float32]]:
    """Logits [n, V or K] of each piece; `told` when the next is asked for."""
    for number, piece in enumerate(pieces):
        told(number / len(pieces))
        yield run(model, piece)


def run(model: Any, piece: Sequence[int]) -> NDArray[np.float32]:
    """Logits [n, V or K] after each token of `piece`, read alone."""
    model.truncate(0)
    return np.array(model.forward(piece))


def original(checkpoint: Checkpoint, pieces: Sequence[list[int]]) -> Iterator[NDArray[np.float32]]:
    """Logits [n, V] of the checkpoint itself: a GGUF's by llama.cpp, else by transformers.

    One piece's at a time: those of 1,000 tokens of a large vocabulary are a gigabyte.
    """
    if checkpoint.path.is_dir():
        from ..read.hf_reference import logits

        yield from logits(checkpoint.path, pieces)
        return
    longest = max(map(len, pieces))
    with closing(open_model(checkpoint.path, ModelOptions(longest, device="cpu"))) as model:
        for piece in pieces:
            yield run(model, piece)


def compared(
    pieces: Sequence[Sequence[int]],
    rows: Iterable[NDArray[np.float32]],
    originals: Iterable[NDArray[np.float32]],
    columns: Any,
) -> Check:
    """Figures over all pieces; `columns` of the originals are what the rows hold."""
    n_tokens, difference, same, losses, losses_original = 0, 0.0, 0, 0.0, 0.0
    n_predicted = sum(len(piece) - 1 for piece in pieces)
    for piece, seen, whole in zip(pieces, rows, originals, strict=True):
        expected = whole[:, columns]
        n_tokens += len(piece)
        difference = max(difference, float(np.abs(seen - expected).max()))
        same += int((seen.argmax(1) == expected.argmax(1)).sum())
        if seen.shape == whole.shape:
            losses += surprise(seen, piece)
            losses_original += surprise(whole, piece)
    return Check(
        n_tokens,
        difference,
        same / n_tokens,
        math.exp(losses / n_predicted) if losses else 0.0,
        math.exp(losses_original / n_predicted) if losses_original else 0.0,
    )


def surprise(rows: NDArray[np.float32], piece: Sequence[int]) -> float:
    """Minus the summed log-probabilities of each token after the first; rows [n, V]."""
    logits = rows[:-1].astype(np.float64)
    top = logits.max(axis=1)
    norm = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((norm - logits[np.arange(len(piece) - 1), piece[1:]]).sum())
