"""Does speculation change a target's output on this device? Tells a numerical tie from a bug.

Greedy texts are compared token by token with plain decoding; sampled ones as a law. A device adds
numbers in another order in a batch than one by one, so two nearly equal logits may change places.
Where texts part, both runs are done again: a tie if each finds its own token best, else a bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.check.chi_square import ChiSquare, chi_square, draws_needed
from edgespec.check.replay import explains, round_of, row_at, tokens_of
from edgespec.decode.constrained import law_of
from edgespec.decode.sampling import penalized
from edgespec.errors import ContextError
from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray, SamplingParams, Step

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 9, 12, 16)
N_NOISE_TOKENS = 48  # three of the widest batches
WIDER = 8  # batches move a logit of a real model by up to 1.9, and e^1.9 is 6.7
END = -1  # no token follows
N_NOISY = 4  # first texts on which the noise of the logits is measured, beside those that differ
N_SAMPLED = 24  # tokens of a text in which a place is looked for
FAR = 1e9  # a margin where there is none: JSON has no infinity
ALPHA = 1e-4  # a correct sampler fails one of the two tests once in 5000 runs

Stream = Callable[[Sequence[int], SamplingParams], Iterator[Step]]
"""Starts decoding a prompt: the engine's `stream`, or a session's."""


@dataclass(frozen=True)
class Divergence:
    """Where a speculative text first differs from the plain one.

    margin: the logit of plain decoding's token less that of the other, decoded one by one: the
    target's top-2 margin, or more if the other token is not even second.
    """

    prompt: int
    position: int
    margin: float
    kind: str  # tie | bug


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


def divergence_of(
    target: LanguageModel,
    prompt: Sequence[int],
    plain: Sequence[Step],
    other: Sequence[Step],
    params: SamplingParams,
    noise: float,
) -> tuple[int, float, str]:
    """Position, margin and kind of the first difference of two runs. Empties the target's cache.

    plain: rounds of one token. It is a tie if at the widths that each run had, the token it
    emitted was the best. A wrong cache, too, is the same when done again: what the round of
    `other` does not give after a cache filled one by one must be near enough for both logits to
    have moved by `noise`. A text that merely ends early has no token there to compare.
    """
    expected, seen = tokens_of(plain), tokens_of(other)
    at = first_difference(expected, seen)
    row = row_at(target, prompt, plain, at)
    if row is None or at >= len(seen):
        return at, FAR, "bug"
    logits = penalized(row, [*prompt, *expected[:at]], params)
    margin = min(float(logits[expected[at]] - logits[seen[at]]), FAR)
    number, before = round_of(other, at)
    clean = [*plain[:before], other[number]]
    is_tie = (
        explains(row, prompt, expected, at, params)
        and explains(row_at(target, prompt, other, at), prompt, seen, at, params)
        and (
            margin <= 2 * noise
            or explains(row_at(target, prompt, clean, at), prompt, seen, at, params)
        )
    )
    return at, margin, "tie" if is_tie else "bug"


def check_greedy(
    target: LanguageModel,
    plain: Stream,
    speculative: Stream,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    exact: bool = False,
) -> dict[str, Any]:
    """The "greedy" part of the report; each stream must start from an empty cache.

    exact: what differs is a bug and never a tie.
    Raises: ContextError, Cancelled.
    """
    params = replace(params, temperature=0.0)
    noise, n_tokens, n_tested = 0.0, 0, 0
    differing = list[tuple[int, Sequence[int], list[Step], list[Step]]]()
    for number, prompt in enumerate(prompts):
        expected, seen = list(plain(prompt, params)), list(speculative(prompt, params))
        text = tokens_of(expected)
        n_tokens += len(text)
        n_tested += sum(step.verdict.n_tested for step in seen)
        differs = text != tokens_of(seen)
        if differs:
            differing.append((number, prompt, expected, seen))
        if differs or number < N_NOISY:  # measuring it takes longer than both streams
            noise = max(noise, float_error_of(target, [*prompt, *text][-N_NOISE_TOKENS:]))
    divergences = [
        Divergence(number, *divergence_of(target, prompt, expected, seen, params, noise))
        for number, prompt, expected, seen in differing
    ]
    if exact:
        divergences = [replace(one, kind="bug") for one in divergences]
    return {
        "n_prompts": len(prompts),
        "n_tokens": n_tokens,
        "n_identical": len(prompts) - len(divergences),
        "divergences": [asdict(one) for one in divergences],
        "noise": noise,
        "n_tested": n_tested,
    }


def least_certain(
    target: LanguageModel, plain: Stream, prompts: Sequence[Sequence[int]], params: SamplingParams
) -> list[int]:
    """The context, in texts sampled from these prompts, whose next token is least certain.

    Where one token is nearly sure there is no law to test. Two tokens fit after it. A constraint
    begins anew there, so with one it is the end of a prompt. Empties the target's cache.
    Raises: ContextError if no prompt leaves that room.
    """
    params = replace(params, seed=0, max_tokens=N_SAMPLED)
    room = target.n_context - 1
    best, most = list[int](), -1.0
    for prompt in prompts:
        if len(prompt) > room:
            continue
        text = list(prompt)
        if params.constraint is None:
            text = [*text, *tokens_of(list(plain(prompt, params)))][:room]
        n = len(prompt) - 1
        target.truncate(0)
        target.extend(text[:n])
        logits = target.forward(text[n:]).copy()
        for at, row in enumerate(logits, n + 1):
            p = law_of(params, at)(row, text[:at]).astype(np.float64)
            p = p[p > 0]
            uncertainty = float(-(p * np.log(p)).sum())
            if uncertainty > most:
                best, most = text[:at], uncertainty
    if not best:
        raise ContextError(
            f"no prompt leaves room for two tokens in the context of {target.n_context}: expected "
            "one to sample after; raise it with -c, or --draws 0"
        )
    return best


def check_sampling(
    target: LanguageModel,
    speculative: Stream,
    prompt: Sequence[int],
    params: SamplingParams,
    n_draws: int,
    tick: Callable[[int], None],
) -> dict[str, Any]:
    """The "sampling" part: do the first two tokens of n_draws streams follow the target's law?

    Draw i has seed i, so a run can be repeated; that alone does not make the rule `match`. What
    ends with its first token has END for a second. tick: told the number of draws done.
    Raises: ContextError if two tokens do not fit.
    """
    if len(prompt) + 1 > target.n_context:
        raise ContextError(
            f"the prompt has {len(prompt)} tokens, the context holds {target.n_context}: expected "
            f"room for two more; shorten it or type -c {len(prompt) + 2}"
        )
    rule = "rejection" if params.verification == "auto" else params.verification
    params = replace(params, max_tokens=16, verification=rule)
    law = laws_of_two(target, prompt, params, n_draws)
    ones: Counter[int] = Counter()
    twos: Counter[tuple[int, int]] = Counter()
    n_tested = n_accepted = 0
    for seed in range(n_draws):
        tokens: list[int] = []
        for step in speculative(prompt, replace(params, seed=seed)):
            tokens += step.verdict.tokens
            n_tested += step.verdict.n_tested
            n_accepted += len(step.verdict.accepted)
            if len(tokens) >= 2:
                break
        x1, x2, *_ = *tokens, END
        ones[x1] += 1
        twos[x1, x2] += 1
        tick(seed + 1)
    n_impossible = sum(n for (x1, x2), n in twos.items() if law.forbids(x1, x2))
    tests = {
        "first": chi_square(ones, law.first, n_draws),
        "second": chi_square(twos, law.pairs, n_draws),
    }
    needed = [draws_needed(law.first), draws_needed(law.pairs)]
    return {
        "n_draws": n_draws,
        "temperature": params.temperature,
        "verification": rule,
        "n_tested": n_tested,
        "n_accepted": n_accepted,
        "tests": {name: asdict(test) for name, test in tests.items()},
        "n_impossible": n_impossible,
        "kind": "bug" if n_impossible else kind_of(tests.values(), n_tested),
        "n_draws_needed": None if None in needed else max(n for n in needed if n),
    }


def kind_of(tests: Iterable[ChiSquare], n_tested: int) -> str:
    """A bug if a test says that the law does not hold; untested if one has nothing to compare."""
    tests = list(tests)
    if any(test.p_value < ALPHA for test in tests):
        return "bug"
    return "ok" if n_tested and all(test.n_cells > 1 for test in tests) else "untested"


@dataclass(frozen=True)
class TwoLaws:
    """p(x1), and p(x1) p(x2 | x1) for every x1 expected often enough to have cells of its own.

    may: bits [V] of what may follow these tokens; of a rare x1 it is not known.
    """

    first: dict[int, float]
    pairs: dict[tuple[int, int], float]
    may: dict[tuple[int, ...], NDArray[np.uint8]]

    def forbids(self, x1: int, x2: int) -> bool:
        """Whether one of them cannot be drawn: chi-square would pool a few with what is rare."""
        places = [((), x1)] if x2 == END else [((), x1), ((x1,), x2)]
        return any(
            before in self.may and not np.unpackbits(self.may[before])[x] for before, x in places
        )


def laws_of_two(
    target: LanguageModel, prompt: Sequence[int], params: SamplingParams, n_draws: int
) -> TwoLaws:
    """The laws of two tokens; the likeliest x1 and x2 are always there.

    From plain decoding's logits. Empties the target's cache.
    """
    chain, wide = law_of(params, len(prompt)), law_of(widened(params), len(prompt))
    may: dict[tuple[int, ...], NDArray[np.uint8]] = {}
    target.truncate(0)
    target.extend(prompt[:-1])

    def law(*tokens: int) -> FloatArray:
        row, context = target.forward([*prompt, *tokens][-1:])[-1], [*prompt, *tokens]
        may[tokens] = np.packbits(wide(row, context) > 0)
        return chain(row, context)

    p1 = law().astype(np.float64)
    first = {int(x): float(p1[x]) for x in np.flatnonzero(p1)}
    pairs: dict[tuple[int, int], float] = {}
    for x1 in map(int, np.union1d(np.flatnonzero(p1 * n_draws >= 5), p1.argmax())):
        if x1 in params.stop_tokens:
            pairs[x1, END] = float(p1[x1])
            continue
        p2 = law(x1)
        target.keep(())
        for x2 in np.union1d(np.flatnonzero(p1[x1] * p2 * n_draws >= 5), p2.argmax()):
            pairs[x1, int(x2)] = float(p1[x1] * p2[x2])
    return TwoLaws(first, pairs, may)


def widened(params: SamplingParams) -> SamplingParams:
    """What is left out by these even if a batch moves logits is impossible, not just near."""
    return replace(
        params,
        top_k=params.top_k * WIDER,
        top_p=1 - (1 - params.top_p) / WIDER,
        min_p=params.min_p / WIDER,
    )
