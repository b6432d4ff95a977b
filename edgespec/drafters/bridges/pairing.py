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
from edgespec.drafters.bridges.ngram_file import path_of
from edgespec.drafters.bridges.translated import Translated
from edgespec.drafters.window import MOST
from edgespec.errors import EdgeSpecError
from edgespec.protocols import LanguageModel, Tokenizer
from edgespec.text.template import ChatTemplate, Message, end_of_turn
from edgespec.text.vocabulary import Vocabulary

log = logging.getLogger("edgespec")


def vocabulary_of(tokenizer: Tokenizer, n_vocab: int) -> Vocabulary:
    """A tokenizer's tokens as bytes, with the role that its chat template shows."""
    return Vocabulary(tokenizer, n_vocab, end_of_turn=end_of_turn(tokenizer))


class Translation:
    """From one draft model's vocabulary to one target's, by any bridge.

    state: the folder that holds the n-gram caches. names: of drafter and target, kept with theirs.
    cache: the folder of what can be found again.
    """

    def __init__(
        self,
        draft: Vocabulary,
        target: Vocabulary,
        state: Path,
        names: tuple[str, str],
        *,
        cache: Path,
    ) -> None:
        self.mapping = Mapping(draft, target, cache=cache)
        self._path, self._names = path_of(state, draft, target), names
        self._warned = False

    def drafter(
        self,
        model: LanguageModel,
        bridge: str,
        taught: teaching.Learner | None = None,
        *,
        most_shown: int = MOST,
    ) -> tuple[Translated, Learner]:
        """A drafter with the n-grams as they were last saved, and what saves those it learns.

        taught: what else learns from it. most_shown: see `Translated`.
        """
        mapping = self.mapping
        learner = Learner(self._path, mapping.draft, mapping.target, self._names)
        ledger = Ledger(mapping, on_token=learner)
        strategy: Bridge = find_bridge(bridge)(mapping, learner.cache)
        drafter = Translated(model, ledger, strategy, learner=taught, most_shown=most_shown)
        return drafter, learner

    def spelled(self, messages: Sequence[Message]) -> list[int]:
        """A conversation in the drafter's own chat format, empty if that does not take it."""
        if self.mapping.draft.tokenizer.chat_template is None:
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
        return ChatTemplate(self.mapping.draft.tokenizer, own=True)

    def about(self) -> str:
        """The mapping in a line."""
        mapping = self.mapping
        n_direct = int((mapping.image >= 0).sum())
        return (
            f"{n_direct:,} of the drafter's {mapping.draft.n_vocab:,} tokens are tokens of the "
            f"target's {mapping.target.n_vocab:,}, {len(mapping.splits):,} split into several"
        )


def difference(draft: tuple[Tokenizer, int], target: tuple[Tokenizer, int]) -> str:
    """The first difference between two vocabularies in words, empty if there is none.

    draft, target: each side's tokenizer and its number of tokens. Of large ones only every n-th
    token is compared: it takes 2.5 us a token, and a difference that is missed costs acceptance,
    never the output.
    """
    (one, n_one), (other, n_other) = draft, target
    if n_one != n_other:
        return f"{n_one} tokens, not {n_other}"
    for token in range(0, n_one, 1 + n_one // 40_000):
        seen, expected = one.piece(token, special=True), other.piece(token, special=True)
        if seen != expected:
            return f"token {token} is {seen!r}, not {expected!r}"
    return ""
