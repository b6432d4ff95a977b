"""Drives one generation at a time: reads the prompt, forwards what each round asks for.

Knows protocols only: no backend, vocabulary or text. What a round is stands in round.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from edgespec.decode.follow import Follower
from edgespec.decode.round import Decoding
from edgespec.errors import ContextError, UsageError
from edgespec.protocols import LanguageModel, Speculator
from edgespec.types import SamplingParams, Stats, Step

PART = 512  # prompt tokens read in one go: what a batch of any backend holds, or a multiple


class Engine:
    """Streams rounds of tokens with exactly the target's law; one generation at a time.

    on_read: told the share of a long prompt that the target has read.
    """

    def __init__(
        self,
        target: LanguageModel,
        speculator: Speculator,
        *,
        on_read: Callable[[float], None] | None = None,
    ) -> None:
        self.target, self.on_read = target, on_read
        self._cache = Follower(target)
        self._decoding: Decoding | None = None
        self.use(speculator)

    def use(self, speculator: Speculator) -> None:
        """Draft by `speculator` from the next generation on.

        Raises: UsageError if it branches more than the target can read.
        """
        able, name, n_leaves = self.target.capabilities, speculator.name, speculator.n_leaves
        if n_leaves > 1 and 0 < able.n_leaves < n_leaves:
            raise UsageError(
                f"drafter {name} branches into {n_leaves} leaves: expected at most "
                f"{able.n_leaves} with this target; set its n_leaves to that"
            )
        if n_leaves > 1 and 0 < able.n_rows <= speculator.most:
            raise UsageError(
                f"drafter {name} branches with {speculator.most} tokens: expected trees of at most "
                f"{able.n_rows} rows, the last token's included; draft fewer"
            )
        self.speculator = speculator

    @property
    def stats(self) -> Stats:
        """Of the current generation, or of the last one."""
        if self._decoding is None:
            return Stats(note=self.speculator.reason)
        return self._decoding.tally.stats(self.speculator.reason)

    def stream(self, prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        """Rounds until a stop token (emitted last), `params.max_tokens` or a full context.

        prompt: at least one id, at most `target.n_context`. The consumer may stop at any yield;
        the cache then holds all but the last emitted token and the next call reuses it.
        Raises: ContextError, UsageError before anything is read; Cancelled.
        """
        self.check_prompt(prompt)
        decoding = self._decoding = Decoding(prompt, params, self.speculator, self.target)
        decoding.tally.n_prompt = self._read(decoding.context[:-1])
        with_states = self.target.capabilities.hidden_width > 0
        while (ask := decoding.ask()) is not None:
            start = perf_counter()
            logits = self.target.forward(ask.tokens, ask.parents)
            target_s = perf_counter() - start
            step = decoding.tell(logits, target_s, self.target.hidden if with_states else None)
            self._cache.ids += decoding.context[len(self._cache.ids) : -1]
            yield step

    def check_prompt(self, prompt: Sequence[int]) -> None:
        """Raises: as `check_prompt`."""
        check_prompt(prompt, self.target.n_context)

    def _read(self, tokens: list[int]) -> int:
        """Bring the target's cache to `tokens`, reusing the common prefix; tokens newly read.

        Parts end at multiples of PART, whatever was there before.
        """
        n_same = self._cache.cut(tokens, len(tokens))
        n_new = len(tokens) - n_same
        ends = [*range((n_same // PART + 1) * PART, len(tokens), PART), len(tokens)]
        for start, end in zip([n_same, *ends], ends, strict=False):
            self._cache.extend(tokens[start:end])
            if self.on_read is not None and n_new > PART:
                self.on_read((end - n_same) / n_new)
        return n_new + 1


def check_prompt(prompt: Sequence[int], n_context: int) -> None:
    """Raises: UsageError for a prompt of no ids, ContextError for one that does not fit."""
    if not prompt:
        raise UsageError(
            "the prompt has no tokens: expected at least one (a begin-of-text token will do)"
        )
    if len(prompt) > n_context:
        raise ContextError(
            f"the prompt has {len(prompt)} tokens, the context holds {n_context}: "
            f"shorten the prompt or raise it with -c {len(prompt) + 256}"
        )
