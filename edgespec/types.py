"""The values that travel between the parts: what is drafted, what is emitted, how it is sampled.

Values without behaviour beyond their own consistency. What is made every round is a named tuple,
which takes a microsecond less than a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
VERIFICATIONS = ("auto", "match", "rejection", "block")
Progress = Callable[[str, float], None]
"""Told what takes a while, in one line, and the share of it that is done, at last 1."""


class Constraint(Protocol):
    """What may be generated, token by token: a grammar. It knows nothing of the prompt."""

    def allowed(self, generated: Sequence[int], ids: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of `ids` [n] may follow `generated`, the ids emitted so far; bool [n]."""
        ...


@runtime_checkable
class Limit(Constraint, Protocol):
    """A constraint that ends what is generated within n_tokens, and knows if it had to."""

    n_tokens: int

    def note(self, generated: Sequence[int], likelier: NDArray[np.integer]) -> None:
        """Told of refused ids that are likelier than all that may follow `generated`."""
        ...

    def forced(self, generated: Sequence[int]) -> bool:
        """Whether anywhere in these ids the limit, not the grammar, refused such an id."""
        ...


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen from the target's logits, and when to stop.

    The chain is: constraint, logit bias, repeat / frequency / presence penalties over the last
    `penalty_last_n` tokens, then temperature 0 (greedy) or top-k, top-p, min-p, temperature.
    `seed` None draws a fresh one. With a seed the text does not depend on the drafter, but for
    numerical ties (see ARCHITECTURE.md).
    n_top: for each emitted token its log probability and that of so many likeliest ones; -1: none.
    """

    temperature: float = 0.0
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64  # as in llama.cpp
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int = 512  # about a page
    stop_tokens: Set[int] = frozenset()
    verification: str = "auto"  # of VERIFICATIONS
    constraint: Constraint | None = None
    n_top: int = -1

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature <= 0


class Chances(Protocol):
    """Where a random choice comes from: uniforms, or in a test every branch in turn."""

    def pick(self, weights: FloatArray, /) -> int:
        """An index with probability weights[i] / sum(weights)."""
        ...

    def under(self, share: float, /) -> bool:
        """True with probability `share`, at most 1."""
        ...


class DraftLaw(Protocol):
    """The law each token of a chain was drawn from, where it is not an array of rows."""

    def keeps(self, i: int, token: int, p: float, u: float, /) -> bool:
        """Whether u * (probability of having drafted `token` as the i-th) < p."""
        ...

    def residual(self, i: int, p: FloatArray, chances: Chances, /) -> int:
        """A token drawn from (p - law i)+, normalised; from p [V] where rounding leaves nothing."""
        ...

    def shared(self, p: FloatArray, /) -> float | None:
        """About the chance that p [V] accepts the first token, if told without the drafter."""
        ...


class Spent(NamedTuple):
    """What making drafts took, in seconds.

    read_s: the model's forwards of many tokens: a prompt, or what it had missed. step_s: its other
    forwards. translate_s: all else where the model has another vocabulary.
    """

    read_s: float = 0.0
    step_s: float = 0.0
    translate_s: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """The sums."""
        return Spent(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Draft:
    """Proposed tokens as a tree below the last token of the context; a chain is the usual case.

    tokens: k ids. parents: k indices of earlier nodes, -1 for the context's last token.
    probs: [k, V] law each token was drawn from, or None when the law is unknown (always the
    case in a branching tree). law: in its place, a law that is worked out as far as it is asked
    for. sources: who proposed each node. confidence: k estimates of the probability that the node
    and all above it are accepted, or empty; if drawn, of the likeliest tokens there. n_cut: tokens
    dropped because a grammar refuses the first of them; of that one sources and confidence still
    tell. spent: by its drafter, if a model.
    pieces: the drafter's own tokens for each, where those differ: for several that one of its
    tokens stands for, all with the first; empty where they are the same.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    probs: FloatArray | None = None
    sources: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()
    law: DraftLaw | None = None
    n_cut: int = 0
    spent: Spent = field(default=Spent(), compare=False)
    pieces: tuple[tuple[int, ...], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.parents and self.tokens:
            object.__setattr__(self, "parents", tuple(range(-1, len(self.tokens) - 1)))
        assert len(self.parents) == len(self.tokens)
        assert self.probs is None or self.law is None
        assert all(parent < node for node, parent in enumerate(self.parents))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_drawn(self) -> bool:
        """Whether the tokens were drawn from a law that is known."""
        return self.probs is not None or self.law is not None

    @property
    def is_cut(self) -> bool:
        """Whether the next drafted token could not be accepted."""
        return self.n_cut > 0

    @property
    def is_chain(self) -> bool:
        """Whether every node is the child of the one before it."""
        return self.parents == tuple(range(-1, len(self.tokens) - 1))

    def first(self, n: int, *, n_told: int | None = None) -> Draft:
        """The first n nodes; n_told: of how many sources and confidence tell, if not of n."""
        told = n if n_told is None else n_told
        return replace(
            self,
            tokens=self.tokens[:n],
            parents=self.parents[:n],
            probs=None if self.probs is None else self.probs[:n],
            sources=self.sources[:told],
            confidence=self.confidence[:told],
            pieces=self.pieces[:n],
        )

    @property
    def n_leaves(self) -> int:
        """Nodes without children; 1 for a chain."""
        return max(len(self.tokens) - len(set(self.parents) - {-1}), 1)

    def path(self, node: int) -> tuple[int, ...]:
        """Tokens from the first level down to `node`; empty for -1."""
        return () if node < 0 else (*self.path(self.parents[node]), self.tokens[node])


NO_DRAFT = Draft()


@dataclass(frozen=True)
class Verdict:
    """What one round emits: accepted draft nodes and, unless cut, one token of the target's own.

    tokens: emitted ids, at least one. accepted: the draft nodes they came from, in order;
    len(accepted) is len(tokens) - 1, or len(tokens) when a stop token inside the draft cut it.
    n_tested: draft nodes on the accepted path plus the one that was refused, if any, be it by
    the grammar.
    """

    tokens: tuple[int, ...]
    accepted: tuple[int, ...]
    n_tested: int

    def until(self, stop_tokens: Set[int], n_left: int) -> Verdict:
        """The same round cut after its first stop token and after `n_left` tokens."""
        n = next((i + 1 for i, t in enumerate(self.tokens) if t in stop_tokens), len(self.tokens))
        n = min(n, n_left)
        if n == len(self.tokens):
            return self
        accepted = self.accepted[:n]
        return Verdict(self.tokens[:n], accepted, min(self.n_tested, len(accepted)))


class Times(NamedTuple):
    """What a round took, in seconds.

    ask_s: proposing the draft. target_s: the target's forward. law_s: the part of comparing in
    which a lazy law asked the drafter again. told: when the logits came, on perf_counter's clock.
    want_s: what comes before proposing, as in every round of plain decoding too.
    """

    ask_s: float = 0.0
    target_s: float = 0.0
    law_s: float = 0.0
    told: float = 0.0
    want_s: float = 0.0

    @property
    def draft_s(self) -> float:
        """All of the drafter's time."""
        return self.ask_s + self.law_s


class Round(NamedTuple):
    """A finished round, as everything that learns from rounds sees it.

    context: the ids up to what the round emitted; the list grows on, so read it at once.
    hidden: [k + 1, width] the target's states behind its logits, where it gives them. logits:
    [k + 1, V], a view that its next forward overwrites. law: the target's [V] by tested row.
    """

    context: Sequence[int]
    draft: Draft
    verdict: Verdict
    times: Times = Times()
    hidden: FloatArray | None = None
    logits: FloatArray | None = None
    law: Callable[[int], FloatArray] | None = None

    @property
    def is_felt(self) -> bool:
        """Whether drafting took so long that the forward after it finds other data in caches."""
        return self.times.ask_s > 0.05 * self.times.target_s


@dataclass(frozen=True)
class Capabilities:
    """What a model can do beyond reading chains, declared when it is opened.

    n_leaves: most leaves of a forking forward; 1: chains only, 0: any number. n_rows: most rows of
    one, 0: any number. hidden_width: of the states it gives beside logits, 0: none.
    """

    n_leaves: int = 1
    n_rows: int = 0
    hidden_width: int = 0


@dataclass(frozen=True)
class TokenScore:
    """What the target thought of an emitted token, before the sampling chain.

    logprob: natural logarithm of its probability. top: the likeliest ids with theirs, best first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Step:
    """One round of the engine: what it emitted and what it had drafted.

    scores: one per emitted token, if SamplingParams.n_top asked for them, else none.
    """

    verdict: Verdict
    draft: Draft
    scores: tuple[TokenScore, ...] = ()

    @property
    def from_draft(self) -> tuple[bool, ...]:
        """For each emitted token, whether the drafter proposed it."""
        return tuple(i < len(self.verdict.accepted) for i in range(len(self.verdict.tokens)))


@dataclass(frozen=True)
class Piece:
    """A piece of streamed text: UTF-8 complete, the token that ended it and who proposed it.

    scores: of the tokens whose text this is, if they were asked for. is_thought: it stands before
    the answer, between the tags of a model that thinks.
    """

    text: str
    token: int
    from_draft: bool
    scores: tuple[tuple[int, TokenScore], ...] = ()
    is_thought: bool = False


class Arm(NamedTuple):
    """What one source of drafts did: rounds it drafted in, and its tokens there."""

    n_rounds: int = 0
    n_drafted: int = 0
    n_tested: int = 0
    n_accepted: int = 0

    def plus(self, other: Arm) -> Arm:
        """The sums."""
        return Arm(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Stats:
    """Counts and times of one generation; times in seconds.

    acceptance_rate = n_accepted / n_tested; block_efficiency = n_tokens / n_rounds;
    overhead_s is what is neither target nor drafter; speedup is over plain decoding, 0 if that
    was not measured.
    """

    n_prompt: int = 0
    n_tokens: int = 0
    n_rounds: int = 0
    n_drafted: int = 0
    n_tested: int = 0
    n_accepted: int = 0
    accepted_by_position: tuple[int, ...] = ()
    tested_by_position: tuple[int, ...] = ()
    rounds_by_length: tuple[int, ...] = ()  # rounds that verified 0, 1, .. drafted tokens
    n_lone: int = 0  # rounds that verified 0 after a draft or a wider round
    arms: Mapping[str, Arm] = field(default_factory=dict)  # by source
    wall_s: float = 0.0
    ttft_s: float = 0.0
    decode_s: float = 0.0
    target_s: float = 0.0
    draft_s: float = 0.0
    spent: Spent = Spent()  # of draft_s
    single_s: float = 0.0  # what a round of one token takes beside target, drafter and learning
    note: str = ""  # why drafting paused, if it did
    plain_token_s: float = 0.0  # what a token takes here without drafting, measured; 0: not known

    @property
    def overhead_s(self) -> float:
        return self.decode_s - self.target_s - self.draft_s

    @property
    def tokens_per_s(self) -> float:
        return self.n_tokens / self.decode_s if self.decode_s > 0 else 0.0

    @property
    def speedup(self) -> float:
        return self.n_tokens * self.plain_token_s / self.decode_s if self.decode_s > 0 else 0.0

    @property
    def acceptance_rate(self) -> float:
        return self.n_accepted / self.n_tested if self.n_tested else 0.0

    @property
    def block_efficiency(self) -> float:
        return self.n_tokens / self.n_rounds if self.n_rounds else 0.0


@dataclass(frozen=True)
class ModelInfo:
    """What a loaded model is; `quant` in llama.cpp's words ("F16", "Q4_K - Medium").

    placement: nodes of a graph by the provider that runs them. device: in words ("CPU, 2 threads").
    """

    path: str
    sha256: str
    backend: str
    architecture: str
    n_params: int
    quant: str
    n_bytes: int
    placement: Mapping[str, int] = field(default_factory=dict)
    device: str = ""
