"""Does speculation change a target's greedy texts on this device? Tells a numerical tie from a bug.

They are compared token by token with plain decoding. A device adds numbers in another order in a
batch than one by one, so two nearly equal logits may change places. Where texts part, both runs are
done again: a tie if each finds its own token best, else a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgespec.check.kept import Kept, Parting, Text
from edgespec.check.replay import explains, round_of, row_at, tokens_of
from edgespec.decode.sampling import penalized
from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray, SamplingParams, Step

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 9, 12, 16)
N_NOISE_TOKENS = 48  # three of the widest batches
N_NOISY = 4  # first texts on which the noise of the logits is measured, beside those that differ
FAR = 1e9  # a margin where there is none: JSON has no infinity

Stream = Callable[[Sequence[int], SamplingParams], Iterator[Step]]
"""Starts decoding a prompt: the engine's `stream`, or a session's."""


def float_error_of(target: LanguageModel, tokens: Sequence[int]) -> float:
    """Largest difference of a logit of `tokens` between decoding them one by one and in batches.

    Empties the target's cache.
    """
    tokens = tokens[: min(N_NOISE_TOKENS, target.n_context)]
    alone = logits_in_batches(target, tokens, 1)
    return max(
        float(np.abs(logits_in_batches(target, tokens, width) - alone).max()) for width in WIDTHS
    )


def logits_in_batches(target: LanguageModel, tokens: Sequence[int], width: int) -> FloatArray:
    """Logits [n, V] after each of n tokens, read `width` at a time into an empty cache."""
    target.truncate(0)
    rows = [target.forward(tokens[at : at + width]).copy() for at in range(0, len(tokens), width)]
    return np.concatenate(rows)


def first_difference(plain: Sequence[int], other: Sequence[int]) -> int:
    """The first position at which two outputs that are not equal differ."""
    pairs = enumerate(zip(plain, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(plain), len(other)))


def parting_of(
    target: LanguageModel,
    prompt: Sequence[int],
    plain: Sequence[Step],
    other: Sequence[Step],
    params: SamplingParams,
) -> Parting:
    """Where two runs first differ, and whether their widths explain it. Empties the target's cache.

    plain: rounds of one token. A text that merely ends early has no token there to compare.
    """
    expected, seen = tokens_of(plain), tokens_of(other)
    at = first_difference(expected, seen)
    row = row_at(target, prompt, plain, at)
    if row is None or at >= len(seen):
        return Parting(at, FAR, False, False)
    logits = penalized(row, [*prompt, *expected[:at]], params)
    margin = min(float(logits[expected[at]] - logits[seen[at]]), FAR)
    number, before = round_of(other, at)
    clean = [*plain[:before], other[number]]

    def gives(steps: Sequence[Step]) -> bool:
        return explains(row_at(target, prompt, steps, at), prompt, seen, at, params)

    is_own = explains(row, prompt, expected, at, params) and gives(other)
    return Parting(at, margin, is_own, is_own and gives(clean))


def check_greedy(
    target: LanguageModel,
    plain: Stream,
    speculative: Stream,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    exact: bool = False,
    kept: Kept | None = None,
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The "greedy" part of the report; each stream must start from an empty cache.

    exact: what differs is a bug and never a tie. kept: what an earlier check of the same found, and
    where each text is added. tick: told the number of texts compared.
    Raises: ContextError, Cancelled.
    """
    kept = kept or Kept()
    params = replace(params, temperature=0.0)
    for number, prompt in enumerate(prompts):
        if number not in kept.texts:
            streams = list(plain(prompt, params)), list(speculative(prompt, params))
            kept.compared(compared(target, number, prompt, streams, params))
        tick(number + 1)
    texts = [kept.texts[number] for number in range(len(prompts))]
    noise = max((text.noise for text in texts), default=0.0)
    parted = [(text.prompt, text.parting) for text in texts if text.parting is not None]
    return {
        "n_prompts": len(prompts),
        "n_tokens": sum(text.n_tokens for text in texts),
        "n_identical": len(prompts) - len(parted),
        "divergences": [
            {
                "prompt": prompt,
                "position": parting.position,
                "margin": parting.margin,
                "kind": "bug" if exact else parting.kind(noise),
            }
            for prompt, parting in parted
        ],
        "noise": noise,
        "n_tested": sum(text.n_tested for text in texts),
    }


def compared(
    target: LanguageModel,
    number: int,
    prompt: Sequence[int],
    streams: tuple[list[Step], list[Step]],
    params: SamplingParams,
) -> Text:
    """A prompt's plain and speculative rounds side by side. May empty the target's cache."""
    plain, other = streams
    text = tokens_of(plain)
    differs = text != tokens_of(other)
    noise = 0.0
    if differs or number < N_NOISY:  # measuring it takes longer than both streams
        noise = float_error_of(target, [*prompt, *text][-N_NOISE_TOKENS:])
    n_tested = sum(step.verdict.n_tested for step in other)
    parting = parting_of(target, prompt, plain, other, params) if differs else None
    return Text(number, len(text), n_tested, noise, parting)
