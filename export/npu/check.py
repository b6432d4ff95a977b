"""Is a static model what it was made from? Its folder, opened and run, against the original.

Read both as the wide graph does and token by token, so that the two graphs and the cache between
them are what is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgespec.backends import ModelOptions
from edgespec.backends.onnx.model import OnnxModel
from edgespec.errors import ModelFileError
from edgespec.types import FloatArray, Progress

from ..onnx.check import original
from ..read.checkpoint import Checkpoint

N_STEPS = 24  # tokens of each piece that are read one by one too
# Least share of tokens where both find the same one likeliest, and most the perplexity may grow.
LIMITS = {"fp32": (0.98, 1.005), "fp16": (0.97, 1.01), "int8": (0.90, 1.05)}
ROUNDED_SOURCE = 0.90  # llama.cpp rounds what it multiplies with quantized weights, we do not


@dataclass(frozen=True)
class StaticReport:
    """How a static model compares with its original on held-out text.

    max_difference: of the logits. agreement: share of tokens with the same likeliest next one.
    perplexity: over the tokens that the head has; original_perplexity likewise.
    """

    n_tokens: int
    max_difference: float
    agreement: float
    perplexity: float
    original_perplexity: float

    def __str__(self) -> str:
        return (
            f"{self.n_tokens} tokens of held-out text: same likeliest token in "
            f"{self.agreement:.2%}, logits within {self.max_difference:.3g}, perplexity "
            f"{self.perplexity:.2f} (original {self.original_perplexity:.2f})"
        )


def check_static(
    checkpoint: Checkpoint,
    folder: Path,
    precision: str,
    pieces: Sequence[Sequence[int]],
    progress: Progress,
) -> StaticReport:
    """Compare on `pieces` of text, read in one go and their beginnings token by token.

    Raises: ModelFileError if the model is too far from its original.
    """
    pairs: list[tuple[FloatArray, FloatArray]] = []
    losses: list[tuple[FloatArray, FloatArray]] = []
    columns = column_of(checkpoint)
    kept = slice(None) if checkpoint.token_ids is None else checkpoint.token_ids
    originals = [rows[:, kept] for rows in original(checkpoint, [list(p) for p in pieces])]
    with closing(OnnxModel(folder, ModelOptions(device="cpu"))) as model:
        for i, (piece, expected) in enumerate(zip(pieces, originals, strict=True)):
            found = model.forward(piece).copy()
            model.truncate(0)
            first = piece[:N_STEPS]
            singly = np.concatenate([model.forward([token]).copy() for token in first])
            model.truncate(0)
            pairs += [(expected, found), (expected[: len(first)], singly)]
            targets = columns[np.array(piece[1:])]
            losses.append((loss(expected, targets), loss(found, targets)))
            progress("checking", (i + 1) / len(pieces))
    expected, found = (np.concatenate(each) for each in zip(*pairs, strict=True))
    original_loss, own_loss = (np.concatenate(each) for each in zip(*losses, strict=True))
    report = StaticReport(
        n_tokens=len(expected),
        max_difference=float(np.abs(found - expected).max()),
        agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        perplexity=float(np.exp(own_loss.mean())),
        original_perplexity=float(np.exp(original_loss.mean())),
    )
    judge(report, precision, checkpoint)
    return report


def judge(report: StaticReport, precision: str, checkpoint: Checkpoint) -> None:
    """Raises: ModelFileError for a model that must not be used."""
    least, most = LIMITS[precision]
    if checkpoint["blk.0.attn_q.weight"].kind not in ("F32", "F16", "BF16"):
        least = min(least, ROUNDED_SOURCE)
    worse = report.perplexity / report.original_perplexity
    # Written so that a NaN is refused.
    if not (report.agreement >= least and worse <= most):
        raise ModelFileError(
            f"{checkpoint.name} in {precision} is not the original ({report}): expected at least "
            f"{least:.0%} and a perplexity at most {most} times the original's; use more bits, "
            "or text of the kind the model was trained on"
        )


def loss(logits: FloatArray, targets: FloatArray) -> FloatArray:
    """Minus log probability of each next token's column [n - 1], without those not in the head."""
    rows, columns = logits[:-1][targets >= 0].astype(np.float64), targets[targets >= 0]
    rows = rows - rows.max(axis=1, keepdims=True)
    found: FloatArray = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(len(rows)), columns]
    return found


def column_of(checkpoint: Checkpoint) -> FloatArray:
    """For each token [V] the column of the logits it is in, -1 if it was trimmed away."""
    n_vocab = checkpoint.decoder.n_vocab
    kept = np.arange(n_vocab) if checkpoint.token_ids is None else checkpoint.token_ids
    columns = np.full(n_vocab, -1)
    columns[kept] = np.arange(len(kept))
    return columns
