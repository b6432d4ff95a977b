"""Makes a drafter of another vocabulary propose the target's tokens, and keeps what it learned.

Opens both vocabularies, the mapping between them and the n-gram cache of this pair of tokenizers,
which lies in the state folder and is written back when the drafter is closed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgespec.bridges import Bridge, find_bridge
from edgespec.bridges.ledger import Ledger
from edgespec.bridges.mapping import Mapping
from edgespec.bridges.ngram_file import load, path_of, save
from edgespec.bridges.ngrams import NgramCache
from edgespec.drafters.translated import Translated
from edgespec.errors import EdgeSpecError
from edgespec.protocols import LanguageModel, Tokenizer
from edgespec.text import ChatTemplate, Message, end_of_turn
from edgespec.vocab import Vocabulary

log = logging.getLogger("edgespec")


def vocabulary_of(tokenizer: Tokenizer, n_vocab: int) -> Vocabulary:
    """A tokenizer's tokens as bytes, with the role that its chat template shows."""
    return Vocabulary(tokenizer, n_vocab, end_of_turn=end_of_turn(tokenizer))


class Translation:
    """From one draft model's vocabulary to one target's, by any bridge.

    state: the folder that holds the n-gram caches. names: of drafter and target, kept with theirs.
    """

    def __init__(
        self, draft: Vocabulary, target: Vocabulary, state: Path, names: tuple[str, str]
    ) -> None:
        self.mapping = Mapping(draft, target)
        self.cache = NgramCache()
        self.bridge, self.lossless = "", True  # of the last drafter; when sampling
        self._path, self._names = path_of(state, draft, target), names
        self._ledger: Ledger | None = None
        template = draft.tokenizer.chat_template
        self._template = None if template is None else ChatTemplate(draft.tokenizer)

    def drafter(self, model: LanguageModel, bridge: str, *, keep: bool) -> Translated:
        """A drafter with the n-grams as they were last saved; keep: save what it learns.

        One at a time is in use, and `anchor` speaks to the last one.
        """
        draft, target = self.mapping.draft, self.mapping.target
        cache = self.cache = load(self._path, draft, target)

        def write() -> None:
            try:
                save(cache, self._path, draft, target, names=self._names)
            except (OSError, EdgeSpecError) as error:
                log.warning("the n-grams learned were not saved: %s", error)

        self._ledger = Ledger(self.mapping, on_token=cache.learn)
        strategy: Bridge = find_bridge(bridge)(self.mapping, cache)
        self.bridge, self.lossless = bridge, strategy.lossless
        return Translated(model, self._ledger, strategy, on_close=write if keep else None)

    def anchor(self, messages: Sequence[Message], ids: Sequence[int]) -> None:
        """Let the drafter see a conversation, `ids` to the target, in its own chat format."""
        if self._ledger is None or self._template is None:
            return
        try:
            self._ledger.anchor(ids, self._template.tokens(messages))
        except EdgeSpecError as error:
            log.info("the drafter's chat template does not fit, it reads plain text: %s", error)

    def counts(self) -> dict[str, int | str | bool]:
        """What a record says of the bridge in use; full syncs spelled the whole context."""
        ledger = self._ledger
        return {
            "name": self.bridge,
            "lossless": self.lossless,
            "n_ngrams": len(self.cache),
            "n_syncs": 0 if ledger is None else ledger.n_syncs,
            "n_full_syncs": 0 if ledger is None else ledger.n_full,
        }

    def about(self) -> str:
        """The mapping in a line."""
        n_direct = int((self.mapping.image >= 0).sum())
        return (
            f"{n_direct:,} of the drafter's {self.mapping.draft.n_vocab:,} tokens are tokens of "
            f"the target's {self.mapping.target.n_vocab:,}, {len(self.mapping.splits):,} split "
            f"into several, {len(self.cache):,} n-grams become one"
        )
