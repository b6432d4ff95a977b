"""Does speculation keep a target's law? Chi-square over the first two tokens of many texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.check.chi_square import ChiSquare, chi_square, draws_needed
from edgespec.check.kept import Draws, Kept
from edgespec.check.lossless import Stream
from edgespec.check.replay import tokens_of
from edgespec.decode.constrained import law_of
from edgespec.errors import ContextError
from edgespec.protocols import LanguageModel
from edgespec.types import FloatArray, SamplingParams, Step

WIDER = 8  # batches move a logit of a real model by up to 1.9, and e^1.9 is 6.7
END = -1  # no token follows
N_SAMPLED = 24  # tokens of a text in which a place is looked for
N_KEPT = 50  # draws, after which they are written down
ALPHA = 1e-4  # a correct sampler fails one of the two tests once in 5000 runs


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
    kept: Kept | None = None,
) -> dict[str, Any]:
    """The "sampling" part: do the first two tokens of n_draws streams follow the target's law?

    Draw i has seed i, so a run can be repeated; that alone does not make the rule `match`. What
    ends with its first token has END for a second. tick: told the number of draws done. kept: the
    draws of an earlier check of the same, and where new ones are added.
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
    kept = kept or Kept()
    while kept.draws.n < n_draws:
        drawn = Draws()
        for seed in range(kept.draws.n, min(kept.draws.n + N_KEPT, n_draws)):
            drawn.add(*two_tokens(speculative(prompt, replace(params, seed=seed))))
            tick(seed + 1)
        kept.drew(drawn)
    twos = kept.draws.pairs
    ones: Counter[int] = Counter()
    for (x1, _), n in twos.items():
        ones[x1] += n
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
        "n_tested": kept.draws.n_tested,
        "n_accepted": kept.draws.n_accepted,
        "tests": {name: asdict(test) for name, test in tests.items()},
        "n_impossible": n_impossible,
        "kind": "bug" if n_impossible else kind_of(tests.values(), kept.draws.n_tested),
        "n_draws_needed": None if None in needed else max(n for n in needed if n),
    }


def two_tokens(steps: Iterable[Step]) -> tuple[tuple[int, int], int, int]:
    """The first two tokens of a stream, how many drafted ones were tested and how many accepted."""
    tokens, n_tested, n_accepted = list[int](), 0, 0
    for step in steps:
        tokens += step.verdict.tokens
        n_tested += step.verdict.n_tested
        n_accepted += len(step.verdict.accepted)
        if len(tokens) >= 2:
            break
    x1, x2, *_ = *tokens, END
    return (x1, x2), n_tested, n_accepted


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
