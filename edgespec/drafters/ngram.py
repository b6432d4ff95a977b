"""Prompt lookup over the whole session: what followed the last time these tokens were seen.

Needs no model and costs microseconds. Gives the score of a suffix tree without building one:
`SuffixIndex` (below) chains the earlier places of every n-gram, a draft reads the most recent
of them and counts what follows. A tree would need a node per suffix and depth (64 per token);
this needs three numbers per token, and forgets the oldest tokens by deleting their keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import NamedTuple

from edgespec.drafters.suffix import BREAK, SuffixIndex
from edgespec.pace.head import MAX_WIDTH
from edgespec.protocols import Drawing
from edgespec.types import Draft, Round


@dataclass(frozen=True)
class Guess:
    """A draft with its SuffixDecoding score and, per node, the trust it drew on and its share."""

    draft: Draft = Draft()
    score: float = 0.0
    shares: tuple[tuple[int, float], ...] = ()
    n_context: int = 0


class Node(NamedTuple):
    """A candidate of a branching draft, ordered for a heap: the surest first, then the latest."""

    unsure: float  # minus the probability that it is accepted
    minus_place: int
    path: float  # product of shares from the match down
    token: int
    parent: int
    depth: int  # tokens matched once it is accepted
    places: list[int]


class Trust:
    """Of tokens that counts called certain, how many came true: by match length and repetition.

    One earlier place after a match of one token says little, five after a match of twenty nearly
    everything, yet the counts are unanimous in both. rates: one per cell, learnt as it goes.
    """

    STEPS = (0, 0, 1, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5)  # cell by matched tokens, then 6
    PRIOR = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    KEEP = 0.99  # weight of what was learnt one token ago
    WEIGHT = 4.0  # tokens the prior counts for

    def __init__(self) -> None:
        self.rates = [*self.PRIOR, *self.PRIOR]  # seen once, seen oftener
        self._expected = [self.WEIGHT] * len(self.rates)

    def cell(self, depth: int, n_places: int) -> int:
        step = self.STEPS[depth] if depth < len(self.STEPS) else 6
        return step if n_places < 2 else step + len(self.PRIOR)

    def learn(self, cell: int, share: float, hit: bool) -> None:
        """A token that had this share of the counts came true or not."""
        old = self._expected[cell] * self.KEEP
        self._expected[cell] = old + share
        self.rates[cell] = min((self.rates[cell] * old + hit) / (old + share), 1.0)


class NgramDrafter:
    """The likeliest continuation of the longest telling match, by counts over this session.

    max_depth: longest match looked for. min_p: product of count shares at which a draft ends,
    min_sure: the same for `confidence`. factor: drafted tokens per matched token. max_tokens: how
    much history is kept. max_places: how many of a match's most recent places are counted. tree:
    branch where the counts do.
    Source: SuffixDecoding, arXiv 2411.04975, score and length rule (its factor is 1). Deviations:
    one store for prompt and past outputs instead of two trees, a place at the very end goes on
    into the draft itself, and `confidence` is what such counts were worth so far (`Trust`).
    """

    name = "ngram"

    def __init__(
        self,
        *,
        max_depth: int = 64,
        min_p: float = 0.1,
        min_sure: float = 0.05,
        factor: float = 2.0,
        max_tokens: int = 1 << 15,
        max_places: int = 12,
        tree: bool = False,
    ) -> None:
        self.max_depth, self.min_p, self.factor = max_depth, min_p, factor
        self.min_sure, self.max_places, self.tree = min_sure, max_places, tree
        self.n_leaves = MAX_WIDTH if tree else 1  # every node may be one
        self._index = SuffixIndex(max_tokens)
        self._context: list[int] = []  # what the index ends with
        self._trust = Trust()
        self._guess = Guess()  # the last draft, until it is known what followed

    def draft(self, context: Sequence[int], k: int, drawing: Drawing | None = None) -> Draft:
        """Ids seen before only; never with `probs`, whatever the law."""
        self._guess = Guess()
        if k < 1:
            return Draft()
        self._follow(context)
        best, best_score = Guess(), 0.0
        for places, depth in self._index.matches(self.max_depth, self.max_places):
            # A node is at most certain, so no shorter match can score more than its length rule.
            budget = min(k, max(1, int(self.factor * depth)))
            if best_score >= budget:
                break
            found = (self._branch if self.tree else self._chain)(places, depth, budget)
            if found.score > best_score:
                best, best_score = found, found.score
        self._guess = replace(best, n_context=len(context))
        return best.draft

    def _chain(self, places: list[int], depth: int, budget: int) -> Guess:
        """The likeliest token at each step, by the places that went the drafted way so far."""
        tokens, trust = self._index.tokens, self._trust
        end = len(tokens)
        path = sure = 1.0
        score, confidence, shares = 0.0, [], []
        for grown in range(depth, depth + budget):
            places = [place + 1 for place in places]
            token, n_same, n_all = tally(tokens, places)
            share = n_same / n_all if n_all else 0.0
            cell = trust.cell(grown, n_all)
            path *= share
            sure *= share * trust.rates[cell]
            if path < self.min_p or sure < self.min_sure:
                break
            if n_same < len(places):
                places = [place for place in places if tokens[place] == token]
            score += path
            confidence.append(sure)
            shares.append((cell, share))
            tokens.append(token)  # a place near the end reads on in the draft
        drafted = tuple(tokens[end:])
        del tokens[end:]
        sources = (self.name,) * len(drafted)
        draft = Draft(drafted, sources=sources, confidence=tuple(confidence))
        return Guess(draft, score, tuple(shares))

    def _branch(self, places: list[int], depth: int, budget: int) -> Guess:
        """The `budget` surest nodes below the match, surest first."""
        heap: list[Node] = []
        self._grow(heap, Node(-1.0, 0, 1.0, -1, -1, depth, places), -1)
        nodes: list[Node] = []
        while heap and len(nodes) < budget:
            nodes.append(heappop(heap))
            self._grow(heap, nodes[-1], len(nodes) - 1)
        draft = Draft(
            tuple(node.token for node in nodes),
            tuple(node.parent for node in nodes),
            None,
            (self.name,) * len(nodes),
            tuple(-node.unsure for node in nodes),
        )
        return Guess(draft, sum(node.path for node in nodes))

    def _grow(self, heap: list[Node], above: Node, parent: int) -> None:
        """Put the children of `above`, which is node `parent` of the draft, on the heap."""
        tokens = self._index.tokens
        children: dict[int, list[int]] = {}
        for place in above.places:
            if place + 1 < len(tokens) and tokens[place + 1] != BREAK:
                children.setdefault(tokens[place + 1], []).append(place + 1)
        n_all = sum(map(len, children.values()))
        rate = self._trust.rates[self._trust.cell(above.depth, n_all)]
        for token, places in children.items():
            share = len(places) / n_all
            unsure, path = above.unsure * share * rate, above.path * share
            if path >= self.min_p and -unsure >= self.min_sure:
                node = Node(unsure, -places[0], path, token, parent, above.depth + 1, places)
                heappush(heap, node)

    def observe(self, done: Round) -> None:
        self._learn(done.context)
        self._follow(done.context)

    def _learn(self, context: Sequence[int]) -> None:
        """Whether the last draft was right, by what followed: used or not, it teaches."""
        guess, self._guess = self._guess, Guess()
        if not guess.shares:
            return
        followed = context[guess.n_context :]
        taught = zip(guess.shares, guess.draft.tokens, followed, strict=False)
        for (cell, share), token, truth in taught:
            self._trust.learn(cell, share, token == truth)
            if token != truth:
                return

    def _follow(self, context: Sequence[int]) -> None:
        """Make the index end with `context`; where they part, what it knew stays as history.

        Only the last ids it knows are compared: a change before them goes unnoticed as long as
        the length fits, which can cost a good draft but never proposes anything unseen.
        """
        known = self._context
        n, edge = len(known), max(len(known) - self.max_depth, 0)
        if not (n <= len(context) and known[edge:] == list(context[edge:n])):
            n = 0
            while n < min(len(known), len(context)) and known[n] == context[n]:
                n += 1
            del known[n:]
            self._index.begin(known[max(n - self.max_depth, 0) :])
        new = context[n:]
        known += new
        self._index.extend(new)

    def reset(self) -> None:
        """Forget everything seen."""
        self._index.clear()
        self._context = []
        self._trust = Trust()
        self._guess = Guess()

    def close(self) -> None:
        self.reset()


def tally(tokens: list[int], places: list[int]) -> tuple[int, int, int]:
    """The commonest token at these places, how many have it, and how many have any.

    Of equally common ones the one at the earliest listed place, the most recent.
    """
    first = tokens[places[0]]
    seen = [tokens[place] for place in places]
    n_same = seen.count(first)
    if n_same == len(seen) and first != BREAK:
        return first, n_same, n_same
    counts: dict[int, int] = {}
    for token in seen:
        if token != BREAK:
            counts[token] = counts.get(token, 0) + 1
    if not counts:
        return BREAK, 0, 0
    token = max(counts, key=counts.__getitem__)
    return token, counts[token], sum(counts.values())
