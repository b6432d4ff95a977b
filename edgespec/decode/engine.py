"""The speculative loop over token ids: draft, verify in one pass, emit, learn.

Knows protocols only: no backend, vocabulary or text. With a draft length of 0 it is plain
decoding; a chain is a tree with one leaf, so there is one loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from edgespec.decode.constrained import law_of
from edgespec.decode.follow import common_prefix
from edgespec.decode.sampling import Laws, score
from edgespec.decode.tally import Tally
from edgespec.decode.verify import accept
from edgespec.errors import ContextError, UsageError
from edgespec.protocols import Controller, Drafter, LanguageModel, Law
from edgespec.types import Draft, FloatArray, SamplingParams, Stats, Step, TokenScore, Verdict

NO_DRAFT = Draft()
PART = 512  # prompt tokens read in one go: what a batch of any backend holds, or a multiple


class Engine:
    """Streams rounds of tokens with exactly the target's law; one generation at a time.

    on_read: told the share of a long prompt that the target has read.
    """

    def __init__(
        self,
        target: LanguageModel,
        drafter: Drafter | None,
        controller: Controller,
        *,
        on_read: Callable[[float], None] | None = None,
    ) -> None:
        self.target, self.drafter, self.controller = target, drafter, controller
        self.on_read = on_read
        self._cached: list[int] = []  # the ids the target's cache holds
        self._tally = Tally()

    @property
    def stats(self) -> Stats:
        """Of the current generation, or of the last one."""
        return self._tally.stats(self.controller.reason)

    def stream(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        """Rounds until a stop token (emitted last), `params.max_tokens` or a full context.

        prompt: at least one id, at most `target.n_context`. The consumer may stop at any yield;
        the cache then holds all but the last emitted token and the next call reuses it.
        Raises: ContextError, UsageError before anything is read; Cancelled.
        Source: Leviathan et al. 2022, arXiv 2211.17192, algorithm 1.
        """
        self.check(prompt)
        law, method, noise = law_of(params, len(prompt)), method_of(params), noise_of(params)
        tally = self._tally = Tally()
        context = list(prompt)
        tally.n_prompt = self._read(context[:-1])
        n_left = params.max_tokens
        while n_left > 0 and len(context) <= self.target.n_context:
            assert self.target.length == len(context) - 1  # the cache holds all but the last token
            start = perf_counter()
            room = min(self.target.n_context - len(context), n_left - 1)
            k = min(self.controller.next_length(), room)
            u = noise.take(params.max_tokens - n_left, k + 1)
            draft = law.cut(self._draft(context, k, method, law, u), context)
            drafted = perf_counter()
            logits = self.target.forward([context[-1], *draft.tokens], rows_above(draft))
            verified = perf_counter()
            p = Laws(law, logits, context, draft)
            verdict = accept(draft, p, u[:, 1:], method=method).until(params.stop_tokens, n_left)
            # A lazy law asks the drafter while it is compared.
            draft_s = drafted - start + (perf_counter() - verified if draft.law else 0.0)
            scores = scores_of(logits, verdict, params.n_top)
            context += verdict.tokens
            # Row 0 was the last token; the emitted token itself is not in the cache yet.
            self.target.keep(
                (0, *(node + 1 for node in verdict.accepted[: len(verdict.tokens) - 1]))
            )
            self._cached += context[len(self._cached) : -1]
            n_left -= len(verdict.tokens)
            if self.drafter is not None:
                self.drafter.observe(context, draft, verdict)
            self.controller.observe(draft, verdict, verified - drafted, draft_s)
            tally.time(start, drafted, verified, perf_counter())
            tally.count(draft, verdict)
            yield Step(verdict, draft, scores)
            if verdict.tokens[-1] in params.stop_tokens:
                return

    def check(self, prompt: Sequence[int]) -> None:
        """Raises: UsageError for a prompt of no ids, ContextError for one that does not fit."""
        if not prompt:
            raise UsageError(
                "the prompt has no tokens: expected at least one (a begin-of-text token will do)"
            )
        if len(prompt) > self.target.n_context:
            raise ContextError(
                f"the prompt has {len(prompt)} tokens, the context holds {self.target.n_context}: "
                f"shorten the prompt or raise it with -c {len(prompt) + 256}"
            )

    def _read(self, tokens: list[int]) -> int:
        """Bring the target's cache to `tokens`, reusing the common prefix; tokens newly read."""
        n_same = common_prefix(self._cached, tokens, self.target.length)
        del self._cached[n_same:]
        self.target.truncate(n_same)
        n_new = len(tokens) - n_same
        for start in range(n_same, len(tokens), PART):
            part = tokens[start : start + PART]
            self.target.extend(part)
            self._cached += part
            if self.on_read is not None and n_new > PART:
                self.on_read((start + len(part) - n_same) / n_new)
        return n_new + 1

    def _draft(
        self, context: Sequence[int], k: int, method: str, law: Law, u: NDArray[np.float64]
    ) -> Draft:
        if self.drafter is None or k == 0:
            return NO_DRAFT
        if method == "match":
            return self.drafter.draft(context, k)
        return self.drafter.draft(context, k, law=law.drafting(), u=u[:k, 0])


def rows_above(draft: Draft) -> tuple[int, ...] | None:
    """Parents of the rows [last token, *draft] for `LanguageModel.forward`; None for a chain."""
    return None if draft.is_chain else (-1, *(parent + 1 for parent in draft.parents))


def scores_of(logits: FloatArray, verdict: Verdict, n_top: int) -> tuple[TokenScore, ...]:
    """What the target thought of each emitted token, from logits [k + 1, V]; none if n_top < 0."""
    if n_top < 0:
        return ()
    rows = (0, *(node + 1 for node in verdict.accepted))
    return tuple(
        score(logits[row], token, n_top) for row, token in zip(rows, verdict.tokens, strict=False)
    )


def method_of(params: SamplingParams) -> str:
    """How drafts are verified: greedily or with a seed by matching, whose text ignores drafts."""
    if params.verification != "auto":
        return params.verification
    return "match" if params.greedy or params.seed is not None else "rejection"


class Noise:
    """Uniforms [n, 3] (draft, accept, pick) for the tokens from a position on.

    Matching reads them by position, so that the text is a function of the seed alone, however
    the rounds fall. The other rules need fresh ones every round: a refused position's uniforms
    have already shaped what was emitted before it.
    """

    def __init__(self, seed: int | None, by_position: bool) -> None:
        self._rng = np.random.default_rng(seed)
        self._by_position = by_position
        self._drawn: NDArray[np.float64] = np.empty((0, 3))

    def take(self, position: int, n: int) -> NDArray[np.float64]:
        if not self._by_position:
            return self._rng.random((n, 3))
        while len(self._drawn) < position + n:
            self._drawn = np.concatenate((self._drawn, self._rng.random((256, 3))))
        return self._drawn[position : position + n]


def noise_of(params: SamplingParams) -> Noise:
    """The uniforms of one generation."""
    return Noise(params.seed, method_of(params) == "match")
