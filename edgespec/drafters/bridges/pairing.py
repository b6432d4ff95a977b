"""Makes a drafter of another vocabulary propose the target's tokens.

Puts the parts together for one pair: both vocabularies, the mapping between them, a bridge, and the
n-grams learned for these tokenizers, which lie in the state folder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from edgespec.drafters import teaching
from edgespec.drafters.bridges import Bridge, find_bridge
from edgespec.drafters.bridges.learner import Learner
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.window import MOST
from edgespec.errors import EdgeSpecError
from edgespec.protocols import LanguageModel, Tokenizer
from edgespec.text.template import ChatTemplate, Message, end_of_turn
from edgespec.text.vocabulary import Vocabulary

log = logging.getLogger("edgespec")

COMPARED = 1000  # tokens of all, and as many of the last

Side = tuple[Tokenizer, int]
"""A tokenizer, and of how many tokens the model is."""


def vocabulary_of(tokenizer: Tokenizer, n_vocab: int) -> Vocabulary:
    """A tokenizer's tokens as bytes, with the role that its chat template shows."""
    return Vocabulary(tokenizer, n_vocab, end_of_turn=end_of_turn(tokenizer))


class Translation:
    """From one draft model's vocabulary to one target's, by any bridge.

    draft, target: each side's tokenizer and its number of tokens. state: the folder that holds the
    n-gram caches. names: of drafter and target, kept with theirs. cache: the folder of what can be
    found again.
    """

    def __init__(
        self, draft: Side, target: Side, state: Path, names: tuple[str, str], *, cache: Path
    ) -> None:
        self._draft, self._target = draft, target
        self._state, self._names, self._cache = state, names, cache
        self._warned = False

    @cached_property
    def mapping(self) -> Mapping:
        """Between both vocabularies: 0.2 s for 150,000 tokens, so not before it is asked for.

        Raises: TokenizerError.
        """
        sides = vocabulary_of(*self._draft), vocabulary_of(*self._target)
        return Mapping(*sides, cache=self._cache)

    def drafter(
        self,
        model: LanguageModel,
        bridge: str,
        taught: teaching.Learner | None = None,
        *,
        most_shown: int = MOST,
        ngrams: Learner | None = None,
    ) -> tuple[Translated, Learner]:
        """A drafter with the n-grams as they were last saved, and what saves those it learns.

        What both need of the vocabularies is looked up when the drafter first drafts.
        taught: what else learns from it. most_shown: see `Translated`. ngrams: to be shared with
        drafters that have them already.
        """
        learner = ngrams or Learner(self._sides, self._state, self._names)
        kind = find_bridge(bridge)

        def parts() -> tuple[Ledger, Bridge]:
            mapping = self.mapping
            return Ledger(mapping, on_token=learner), kind(mapping, learner.cache)

        drafter = Translated(model, parts, kind, learner=taught, most_shown=most_shown)
        return drafter, learner

    def _sides(self) -> tuple[Vocabulary, Vocabulary]:
        return self.mapping.draft, self.mapping.target

    def spelled(self, messages: Sequence[Message]) -> list[int]:
        """A conversation in the drafter's own chat format, empty if that does not take it."""
        if self._draft[0].chat_template is None:
            return []
        try:
            return self._template.tokens(messages)
        except EdgeSpecError as error:
            if not self._warned:
                self._warned = True
                log.warning("the drafter reads conversations as plain text: %s", error)
            return []

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self._draft[0], own=True)

    def about(self) -> str:
        """The mapping in a line."""
        mapping = self.mapping
        n_direct = int((mapping.image >= 0).sum())
        return (
            f"{n_direct:,} of the drafter's {mapping.draft.n_vocab:,} tokens are tokens of the "
            f"target's {mapping.target.n_vocab:,}, {len(mapping.splits):,} split into several"
        )


def difference(draft: Side, target: Side) -> str:
    """The first difference between two vocabularies in words, empty if there is none.

    draft, target: each side's tokenizer and its number of tokens. Of large ones only every n-th
    token is compared, and the last ones, where models of a family differ: it takes 5 us a token,
    and a difference that is missed costs acceptance, never the output.
    """
    (one, n_one), (other, n_other) = draft, target
    if n_one != n_other:
        return f"{n_one} tokens, not {n_other}"
    for token in (*range(0, n_one, 1 + n_one // COMPARED), *range(max(n_one - COMPARED, 0), n_one)):
        seen, expected = one.piece(token, special=True), other.piece(token, special=True)
        if seen != expected:
            return f"token {token} is {seen!r}, not {expected!r}"
    return ""
