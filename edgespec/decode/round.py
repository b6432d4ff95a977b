"""One generation as a state machine: `ask` for a round's forward, `tell` it the logits.

Whoever drives it runs the forward: an engine alone, or a scheduler with those of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from edgespec.decode.constrained import law_of
from edgespec.decode.sampling import Laws, score
from edgespec.decode.tally import Tally
from edgespec.decode.uniforms import Uniforms, rule_of, uniforms_of
from edgespec.decode.verify import accept
from edgespec.errors import UsageError
from edgespec.protocols import Drawing, LanguageModel, Speculator
from edgespec.types import (
    Draft,
    FloatArray,
    Round,
    SamplingParams,
    Step,
    Times,
    TokenScore,
    Verdict,
)


class Ask(NamedTuple):
    """What the target has to read next: the context's last token and the draft below it.

    parents: as of LanguageModel.forward; None for a chain.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...] | None


class Want(NamedTuple):
    """What a draft may be: as the arguments of Speculator.propose."""

    context: Sequence[int]
    room: int
    drawing: Drawing | None


class Decoding:
    """Rounds with exactly the target's law until a stop token, `max_tokens` or a full context.

    prompt: at least one id. sequence: holds all of the prompt but its last token, and is the
    machine's from now on: nobody else reads into it or cuts it. context: the ids so far.
    Raises: UsageError for parameters out of range.
    Source: Leviathan et al. 2022, arXiv 2211.17192, algorithm 1.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        speculator: Speculator,
        sequence: LanguageModel,
    ) -> None:
        self.context, self.tally = list(prompt), Tally()
        self._params, self._speculator, self._sequence = params, speculator, sequence
        self._law, self._rule = law_of(params, len(prompt)), rule_of(params)
        self._uniforms, self._n_left, self._stopped = uniforms_of(params), params.max_tokens, False
        self._ask_s = self._want_s = 0.0

    def ask(self) -> Ask | None:
        """The coming round's forward, None after the last round."""
        start = perf_counter()
        if (want := self.want()) is None:
            return None
        wanted = perf_counter()
        asked = self.take(self._speculator.propose(*want))
        self._ask_s, self._want_s = perf_counter() - wanted, wanted - start
        return asked

    def want(self) -> Want | None:
        """The first half of `ask`, for who drafts for several texts at once."""
        context, n_context = self.context, self._sequence.n_context
        if self._stopped or self._n_left < 1 or len(context) > n_context:
            return None
        assert self._sequence.length == len(context) - 1  # the cache holds all but the last token
        room = min(n_context - len(context), self._n_left - 1, self._speculator.most)
        self._u = self._uniforms.take(self._params.max_tokens - self._n_left, room + 1)
        drawing = None
        if room and self._rule != "match":
            drawing = Drawing(self._law.drafting(), Uniforms(*self._u[:room, 0]))
        return Want(context, room, drawing)

    def take(self, draft: Draft, ask_s: float = 0.0) -> Ask:
        """The second half: the forward of a draft for what was wanted, which took ask_s to make."""
        if len(draft):
            draft = self._law.cut(self._readable(draft, len(self._u) - 1), self.context)
        self._draft, self._ask_s = draft, ask_s
        return Ask((self.context[-1], *draft.tokens), rows_above(draft))

    def tell(self, logits: FloatArray, target_s: float, hidden: FloatArray | None = None) -> Step:
        """The round, verified by the logits [k + 1, V] of what was asked for and emitted.

        target_s: seconds that the forward took. hidden: the states behind the logits, if at hand.
        Afterwards the sequence holds all of the context but its last token.
        """
        told = perf_counter()
        draft, context, params = self._draft, self.context, self._params
        p = Laws(self._law, logits, context, draft)
        verdict = accept(draft, p, self._u[:, 1:], rule=self._rule)
        law_s = perf_counter() - told if draft.law else 0.0  # it asks the drafter while compared
        verdict = verdict.until(params.stop_tokens, self._n_left)
        scores = scores_of(logits, verdict, params.n_top)
        context += verdict.tokens
        # Row 0 was the last token; the emitted token itself is not in the cache yet.
        rows = (0, *(node + 1 for node in verdict.accepted[: len(verdict.tokens) - 1]))
        self._sequence.keep(rows)
        self._n_left -= len(verdict.tokens)
        self._stopped = verdict.tokens[-1] in params.stop_tokens
        times = Times(self._ask_s, target_s, law_s, told, self._want_s)
        done = Round(context, draft, verdict, times, hidden, logits, p.known)
        learning = perf_counter()
        self._speculator.observe(done)
        self.tally.observe(done, perf_counter() - learning)
        return Step(verdict, draft, scores)

    def _readable(self, draft: Draft, room: int) -> Draft:
        """The draft itself.

        Raises: UsageError if it has more tokens than asked for, or leaves than declared.
        """
        if len(draft) > room:
            raise UsageError(
                f"drafter {self._speculator.name} proposed {len(draft)} tokens: expected at most "
                f"the {room} it was asked for"
            )
        if not draft.is_chain and draft.n_leaves > self._speculator.n_leaves:
            raise UsageError(
                f"drafter {self._speculator.name} proposed a tree of {draft.n_leaves} leaves: "
                f"expected at most the {self._speculator.n_leaves} of its n_leaves"
            )
        return draft


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
