"""A target's language: conversations and texts to ids, and its rounds to pieces of text.

Knows a tokenizer and the configuration; nothing of models, drafters or who runs the rounds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from edgespec.config import Config
from edgespec.protocols import Tokenizer
from edgespec.session import opening
from edgespec.session.call import thoughts
from edgespec.session.pieces import Spelling, pieces_of
from edgespec.session.prompt import Prompt
from edgespec.session.turns import PieceStream, Rounds, Run
from edgespec.text.control import encode_rendered, token_of
from edgespec.text.detokenizer import StopText
from edgespec.text.template import ENABLE, ChatTemplate, Message
from edgespec.text.thoughts import CLOSE, OPEN, Thoughts

log = logging.getLogger("edgespec")


class Speech:
    """Reads and writes text with `tokenizer`, as `config` says."""

    def __init__(self, tokenizer: Tokenizer, config: Config) -> None:
        self.tokenizer, self._config, self._has_said = tokenizer, config, False

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template: the target's, or the configured one."""
        return ChatTemplate(self.tokenizer, self._config.chat_template)

    def prompt(self, messages: Sequence[Message], more: Mapping[str, Any] | None = None) -> Prompt:
        """A conversation, up to where its answer begins.

        A drafter of another vocabulary will read it in its own chat format. more: what the chat
        template is told besides, by default the configured choice of thoughts.
        """
        template, more = self.template, thoughts(self._config) if more is None else more
        if more.get(ENABLE) is not None and not template.asks:
            self._say_no_choice(more[ENABLE])
        ids = tuple(template.tokens(messages, more=more))
        end = b"".join(map(self.token_bytes, ids[-8:])).decode("utf-8", "replace")
        is_open = template.thinks and end.rstrip().endswith(OPEN)
        return Prompt(ids, tuple(messages), template.lead, template.thinks, is_open)

    def _say_no_choice(self, wanted: object) -> None:
        if not self._has_said:
            self._has_said = True
            log.warning(
                "think = %s: the model's chat template has no switch for thoughts, so it does as "
                "it was taught", "on" if wanted else "off",
            )  # fmt: skip

    def encode(self, prompt: str) -> list[int]:
        """Ids of a raw prompt, with the model's own opening once. Raises: TokenizerError."""
        return encode_rendered(self.tokenizer, prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, control tokens left out."""
        pieces = b"".join(self.tokenizer.piece(token) for token in tokens)
        return pieces.decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """What a token spells, control tokens included."""
        return self.tokenizer.piece(token, special=True)

    def pieces(self, steps: Rounds, run: Run, ids: Sequence[int], config: Config) -> PieceStream:
        """The text of a generation after `ids`, up to one of the stop strings of `config`.

        run: as of pieces.pieces_of. Raises: UsageError for a stop string that is none.
        """
        return pieces_of(steps, run, self.spelling(ids, config))

    def spelling(self, ids: Sequence[int], config: Config) -> Spelling:
        """What spells a generation after `ids`. Raises: UsageError for a bad stop string."""
        stop = StopText(config.stop)
        if not isinstance(ids, Prompt):
            return Spelling(self.tokenizer, stop)
        # Where a grammar rules and does not know the tag, thoughts that were begun never end.
        is_open = ids.is_open and CLOSE in (opening.grammar_of(config) or CLOSE)
        apart = Thoughts(is_open=is_open) if ids.thinks else None
        tags = self._tags if ids.thinks else {}
        return Spelling(self.tokenizer, stop, ids.lead, thoughts=apart, tags=tags)

    @cached_property
    def _tags(self) -> dict[int, bytes]:
        """How the tags of thoughts are spelled, by their tokens."""
        found = ((token_of(self.tokenizer, tag), tag.encode()) for tag in (OPEN, CLOSE))
        return {token: tag for token, tag in found if token is not None}
