"""Small worlds in which the law of what a bridge emits can be enumerated exactly.

A world is two vocabularies over a few letters, a cache of n-grams between them, a drafter and a
target whose laws are functions of the whole context, and a sampling chain in double precision.
`first_tokens_law(world, bridge, k)` is the exact law of the target's next tokens when a bridge
drafts; `plain_law(world)` the one it must equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgespec.decode.follow import Reader
from edgespec.decode.verify import Dense
from edgespec.drafters.bridges import Bridge
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.errors import TokenizerError
from edgespec.protocols import Drawing
from edgespec.text.vocabulary import Vocabulary
from edgespec.types import Capabilities, Draft

Law = dict[tuple[int, ...], float]
Row = NDArray[np.float64]
Outcome = TypeVar("Outcome")
IMPOSSIBLE = 1e-15  # branches below this are rounding
KINDS = ("flat", "zeros", "peaked", "text")


class PieceTokenizer:
    """Implements protocols.Tokenizer by the longest match over made-up pieces."""

    bos = None
    chat_template = None

    def __init__(
        self, pieces: Sequence[bytes], *, eos: bool = False, adds_space: bool = False
    ) -> None:
        """eos: one more token is the end of the text, and spells nothing."""
        self.pieces = [*pieces, b""] if eos else list(pieces)
        self.eos, self.adds_space = len(pieces) if eos else None, adds_space
        self.stop_tokens = frozenset() if self.eos is None else frozenset({self.eos})
        self._ids = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
        self._longest = max(map(len, pieces))

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        data, at, out = text.encode(), 0, list[int]()
        data = b" " + data if self.adds_space and data else data
        while at < len(data):
            ends = range(at + self._longest, at, -1)
            token = next((self._ids[data[at:e]] for e in ends if data[at:e] in self._ids), None)
            if token is None:
                raise TokenizerError(f"{text!r} cannot be written: expected only known letters")
            out.append(token)
            at += len(self.pieces[token])
        return out

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return b"</s>" if special and token == self.eos else self.pieces[token]


@dataclass(frozen=True)
class SomeLaw:
    """A law [V] for every context, as a function of the seed and the context alone.

    kind: flat, zeros (some tokens impossible), peaked (one token takes nearly all), or text:
    every vocabulary follows one and the same law of the next letter, so that laws of two
    vocabularies are close.
    """

    seed: int
    pieces: Sequence[bytes]
    kind: str
    _known: dict[tuple[int, ...], Row] = field(default_factory=dict)

    def __call__(self, context: Sequence[int]) -> Row:
        context = tuple(context)
        if context not in self._known:
            law = self._text(context) if self.kind == "text" else self._any(context)
            self._known[context] = law / law.sum()
        return self._known[context]

    def _any(self, context: tuple[int, ...]) -> Row:
        rng = np.random.default_rng((self.seed, *context))
        law = rng.dirichlet(np.ones(len(self.pieces)))
        one = rng.integers(len(law))
        if self.kind == "zeros":
            law *= rng.random(len(law)) < 0.5
            law[one] += 0.1
        if self.kind == "peaked":
            law *= 0.05
            law[one] += 0.95
        return law

    def _text(self, context: tuple[int, ...]) -> Row:
        before = b"".join(self.pieces[token] for token in context)
        law = np.full(len(self.pieces), 0.1)  # what an end of text gets
        for token, piece in enumerate(self.pieces):
            text = before
            for letter in piece:
                chances = np.random.default_rng((self.seed, *text[-2:])).dirichlet(np.ones(3))
                law[token] *= 3 * chances[letter % 3]
                text += bytes((letter,))
        return law


@dataclass(frozen=True)
class Chain:
    """Implements protocols.Law in double precision.

    Filters and penalties are there so that a law is another one than the softmax of the logits.
    """

    temperature: float = 1.0
    top_k: int = 0
    penalty: float = 0.0  # off the logits of the last two tokens
    bias: tuple[int, float] = (-1, 0.0)  # a token and what its logit gains

    def __call__(self, logits: Row, context: Sequence[int], /) -> Row:
        out = logits.astype(np.float64)
        if self.bias[0] >= 0:
            out[self.bias[0]] += self.bias[1]
        out[sorted(set(context[-2:]))] -= self.penalty
        if 0 < self.top_k < len(out):
            out[out < np.sort(out)[-self.top_k]] = -np.inf
        weights = np.exp((out - out.max()) / self.temperature)
        law: Row = weights / weights.sum()
        return law

    def translated(self, ids: NDArray[np.int32]) -> Chain:
        if self.bias[0] < 0:
            return self
        return replace(self, bias=(int(ids[self.bias[0]]), self.bias[1]))


class LawModel:
    """Implements protocols.LanguageModel: logits are the log of a law, in double precision.

    The logits of one forward are spoilt by the next, which the protocol allows.
    """

    capabilities = Capabilities()

    def __init__(
        self, law: Callable[[Sequence[int]], Row], n_vocab: int, rows: Sequence[int] | None = None
    ) -> None:
        """rows: the ids that a trimmed head has columns for."""
        self.law, self.n_vocab, self.n_context = law, n_vocab, 64
        self.token_ids = None if rows is None else np.array(rows, np.int32)
        self.n_forwards = 0
        self._tokens: list[int] = []
        self._given = np.empty(0)

    @property
    def length(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        self._tokens += tokens
        assert self.length <= self.n_context

    def forward(
        self,
        tokens: Sequence[int],
        parents: Sequence[int] | None = None,
        *,
        n_rows: int | None = None,
    ) -> Row:
        rows = []
        self.n_forwards += 1
        for token in tokens:
            self.extend((token,))
            rows.append(self.law(self._tokens))
        self._given.fill(np.nan)
        with np.errstate(divide="ignore"):
            logits = np.log(np.array(rows))
        self._given = logits if self.token_ids is None else logits[:, self.token_ids]
        return self._given

    def keep(self, rows: Sequence[int]) -> None:
        raise AssertionError("a drafter's model never forks")

    def truncate(self, n: int) -> None:
        assert n <= self.length
        del self._tokens[n:]

    def close(self) -> None:
        self._tokens = []


def saying(ids: Sequence[int], n_vocab: int, share: float = 1.0) -> Callable[[Sequence[int]], Row]:
    """A law that after one token says `ids`, each with this share; the rest is for the others."""

    def law(context: Sequence[int]) -> Row:
        out = np.full(n_vocab, (1 - share) / max(n_vocab - 1, 1))
        out[ids[(len(context) - 1) % len(ids)]] = share
        return out

    return law


@dataclass(frozen=True)
class World:
    """What a bridge is tried in. prompt: the target's ids that come before all that is drafted.

    q: the drafter's law and p: the target's, before the chain. rows: of a trimmed head.
    """

    mapping: Mapping
    cache: NgramCache
    q: SomeLaw
    p: SomeLaw
    chain: Chain
    prompt: tuple[int, ...]
    rows: tuple[int, ...] | None = None

    def reader(self) -> Reader:
        """A new reader of the drafter."""
        return Reader(LawModel(self.q, len(self.q.pieces), self.rows))

    def target_law(self, context: Sequence[int]) -> Row:
        """Law [V_T] that the target samples from."""
        with np.errstate(divide="ignore"):
            return self.chain(np.log(self.p(context)), context)

    def spelled(self, context: Sequence[int]) -> list[int]:
        """The drafter's ids for the target's; none if a letter is missing."""
        out: list[int] = []
        target, draft = self.mapping.target, self.mapping.draft
        for control, run in itertools.groupby(context, target.is_control):
            if control:
                images = (int(self.mapping.preimage[token]) for token in run)
                out += [image for image in images if image >= 0]
                continue
            text = b"".join(target.pieces[token] for token in run)
            try:
                out += draft.tokenizer.encode(text.decode())
            except TokenizerError:
                return []
        return out


def world_of(
    draft: Sequence[bytes],
    target: Sequence[bytes],
    ngrams: Sequence[tuple[Sequence[bytes], bytes]] = (),
    *,
    kind: str = "flat",
    seed: int = 0,
    eos: tuple[bool, bool] = (False, False),
    chain: Chain | None = None,
    prompt: Sequence[bytes] = (),
    rows: tuple[int, ...] | None = None,
) -> World:
    """A world of these pieces; what is named by its bytes is the first token that has them.

    ngrams: pieces of the drafter's and the target's that they are. eos: which vocabulary has one.
    """
    tokenizers = PieceTokenizer(draft, eos=eos[0]), PieceTokenizer(target, eos=eos[1])
    vocabularies = [Vocabulary(one, len(one.pieces)) for one in tokenizers]
    cache = NgramCache()
    for pieces, merged in ngrams:
        cache.learn(tuple(map(draft.index, pieces)), target.index(merged))
    own = 0 if kind == "text" else 1  # two laws of one text share the seed
    return World(
        Mapping(*vocabularies),
        cache,
        SomeLaw(seed, tokenizers[0].pieces, kind),
        SomeLaw(seed + own * 7919, tokenizers[1].pieces, kind),
        chain or Chain(),
        tuple(map(target.index, prompt)) or (0,),
        rows,
    )


def spellings(piece: bytes, pieces: Sequence[bytes], most: int = 3) -> Iterator[tuple[bytes, ...]]:
    """Ways to write `piece` with 1 to `most` of `pieces`."""
    if not piece:
        yield ()
    if not piece or most == 0:
        return
    for first in sorted({p for p in pieces if p and piece.startswith(p)}):
        for rest in spellings(piece[len(first) :], pieces, most - 1):
            yield (first, *rest)


@st.composite
def worlds(draw: st.DrawFn, *, trimmed: bool = False) -> World:
    """Worlds of 2 or 3 letters, 3 to 6 draft tokens, 3 to 7 target tokens, some of each foreign.

    Letters may be missing on either side, tokens may have the same bytes, n-grams of 2 and 3
    pieces may begin other n-grams, and either vocabulary may have an end of text.
    """
    letters = b"abc"[: draw(st.integers(2, 3))]
    pool = [bytes(p) for n in (1, 2, 3) for p in itertools.product(letters, repeat=n)]
    n_short = len(letters) * (len(letters) + 1)
    begun = st.sampled_from([pool[: len(letters)], pool[: len(letters)], []])
    draft, target = list(draw(begun)), list(draw(begun))
    eos = draw(st.tuples(st.booleans(), st.booleans()))
    alike = st.sampled_from([True, True, True, False])  # otherwise tokens with the same bytes

    def more(own: list[bytes], of: Sequence[bytes], most: int) -> list[bytes]:
        only = draw(alike)
        choice = st.sampled_from([piece for piece in of if not only or piece not in own])
        n = max(3 - len(own), 1), most - len(own)
        return draw(st.lists(choice, min_size=n[0], max_size=n[1], unique=only))

    draft += more(draft, pool[:n_short], 6)
    target += more(target, pool, 7)
    found = [(way, piece) for piece in target for way in spellings(piece, draft) if len(way) > 1]
    kept = draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    chosen = list(itertools.compress(found, kept))
    bias = draw(st.sampled_from([(-1, 0.0), (0, 1.0)]))
    chain = Chain(
        temperature=draw(st.sampled_from([1.0, 0.7, 1.5])),
        top_k=draw(st.sampled_from([0, 0, 2, 3])),
        penalty=draw(st.sampled_from([0.0, 0.0, 0.8])),
        bias=bias,
    )
    ids = range(len(draft) + eos[0])
    kinds = [kind for kind in KINDS if not trimmed or kind != "zeros"]  # some row has a chance
    return world_of(
        draft,
        target,
        chosen,
        kind=draw(st.sampled_from(kinds)),
        seed=draw(st.integers(0, 999)),
        eos=eos,
        chain=chain,
        prompt=draw(st.lists(st.sampled_from(target), min_size=1, max_size=2)),
        rows=tuple(draw(st.sets(st.sampled_from(ids), min_size=1))) if trimmed else None,
    )


class Branch:
    """Implements types.Chances: follows a script of choices, then the first one everywhere."""

    def __init__(self, script: Sequence[int]) -> None:
        self.share = 1.0
        self.trail: list[tuple[int, int]] = []  # choice and number of choices
        self._script = script

    def pick(self, weights: Row) -> int:
        shares = np.asarray(weights, np.float64)
        assert (shares >= 0).all(), f"weights {weights}: expected none below 0"
        shares = shares / shares.sum()
        possible = np.flatnonzero(shares > IMPOSSIBLE)
        at = self._choose(len(possible))
        self.share *= float(shares[possible[at]])
        return int(possible[at])

    def under(self, share: float) -> bool:
        return not self.pick(np.array([share, max(1 - share, 0)]))

    def _choose(self, n: int) -> int:
        depth = len(self.trail)
        choice = self._script[depth] if depth < len(self._script) else 0
        self.trail.append((choice, n))
        return choice


def branches(run: Callable[[Branch], Outcome]) -> Iterator[tuple[float, Outcome]]:
    """Every outcome of `run` with its probability; `run` must be a function of its choices."""
    script: list[int] | None = []
    while script is not None:
        branch = Branch(script)
        outcome = run(branch)
        yield branch.share, outcome
        trail = branch.trail
        while trail and trail[-1][0] + 1 == trail[-1][1]:
            trail.pop()
        script = [choice for choice, _ in trail] if trail else None
        if script:
            script[-1] += 1


def drafts(
    world: World, bridge: Bridge, context: Sequence[int], k: int, *, drawn: bool = True
) -> Iterator[tuple[float, Draft]]:
    """Every draft after `context` with its probability; one if it is not `drawn`."""
    spelled, reader = world.spelled(context), world.reader()

    def run(chances: Branch) -> Draft:
        drawing = Drawing(world.chain, chances) if drawn else None
        if not spelled:
            return Draft()
        draft = bridge.draft(reader, list(spelled), list(context), k, drawing)
        assert len(draft) <= k
        assert draft.is_chain
        assert all(0 <= token < world.mapping.target.n_vocab for token in draft.tokens)
        return draft

    return branches(run)


def emitted(world: World, context: Sequence[int], draft: Draft, chances: Branch) -> list[int]:
    """One round's tokens: `verify.reject`, or `verify.match` where the draft's law is unknown."""
    rows = draft.law or (None if draft.probs is None else Exact(draft.probs))
    out: list[int] = []
    for i, x in enumerate(draft.tokens):
        p = world.target_law([*context, *out])
        if rows is None:
            out.append(chances.pick(p))
            if out[-1] != x:
                return out
            continue
        q = rows.exact(i, x)
        assert q > 0, f"token {x} was drawn, its probability is {q}"
        if not chances.under(min(1.0, float(p[x]) / q)):
            return [*out, rows.residual(i, p, chances)]
        out.append(x)
    return [*out, chances.pick(world.target_law([*context, *out]))]


class Exact(Dense):
    """Rows that tell the probability behind `keeps`, as a lazy law does."""

    def exact(self, i: int, token: int) -> float:
        return float(self._q[i, token])


def round_law(
    world: World, bridge: Bridge, context: Sequence[int], k: int, *, drawn: bool = True
) -> Law:
    """The law of what one round emits."""
    law: Law = {}
    for share, draft in drafts(world, bridge, context, k, drawn=drawn):
        run = lambda chances, draft=draft: tuple(emitted(world, context, draft, chances))  # noqa: E731
        for part, tokens in branches(run):
            law[tokens] = law.get(tokens, 0.0) + share * part
    return law


def first_tokens_law(
    world: World,
    bridge: Bridge | None,
    k: int,
    n_tokens: int = 3,
    *,
    n_rounds: int = 1,
    drawn: bool = True,
) -> Law:
    """The law of the first tokens after the prompt: rounds of k drafted, then the target alone."""
    law: Law = {}

    def go(done: tuple[int, ...], share: float, n_left: int) -> None:
        if len(done) >= n_tokens:
            law[done[:n_tokens]] = law.get(done[:n_tokens], 0.0) + share
            return
        context = (*world.prompt, *done)
        if n_left and bridge is not None:
            nexts = round_law(world, bridge, context, k, drawn=drawn)
        else:
            nexts = {(t,): float(p) for t, p in enumerate(world.target_law(context)) if p > 0}
        for tokens, part in nexts.items():
            go((*done, *tokens), share * part, n_left - 1 if n_left else 0)

    go((), 1.0, n_rounds)
    return law


def plain_law(world: World, n_tokens: int = 3) -> Law:
    """The same for the target alone."""
    return first_tokens_law(world, None, 0, n_tokens, n_rounds=0)


def distance(one: Law, other: Law) -> float:
    """Total variation."""
    both = one.keys() | other.keys()
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in both) / 2
