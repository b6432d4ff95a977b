"""A generation's rounds as pieces of text, up to a stop string."""

from __future__ import annotations

from collections.abc import Mapping

from edgespec.protocols import Tokenizer
from edgespec.session.turns import PieceStream, Rounds, Run
from edgespec.text.detokenizer import Detokenizer, StopText
from edgespec.text.thoughts import NoThoughts, Part, Thoughts
from edgespec.types import Piece, Step, TokenScore

NO_TAGS: Mapping[int, bytes] = {}


class Spelling:
    """Tokens to pieces of text, a round at a time; a token whose text has to wait is shown with the
    one that ends it. One that spells nothing, as the end token, is shown with none.

    lead: left out where the text begins so. thoughts: of a model that thinks, whose thoughts no
    stop string ends. tags: what its tags are spelled, where they are control tokens, which say
    nothing else. n_read: tokens so far; none is read beyond a stop string.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: StopText,
        lead: str = "",
        *,
        thoughts: Thoughts | None = None,
        tags: Mapping[int, bytes] = NO_TAGS,
    ) -> None:
        self._tokenizer, self._stop, self._tags = tokenizer, stop, tags
        self._apart: Thoughts | NoThoughts = thoughts or NoThoughts()
        self._detokenizer, self._scores = Detokenizer(lead), list[tuple[int, TokenScore]]()
        self._token, self._drafted, self.n_read = -1, False, 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._stop.stopped

    def feed(self, step: Step) -> list[Piece]:
        """What a round adds, up to a stop string."""
        pieces = list[Piece]()
        for i, (token, drafted) in enumerate(
            zip(step.verdict.tokens, step.from_draft, strict=True)
        ):
            if self.stopped:
                break
            self.n_read += 1
            self._token, self._drafted = token, drafted
            spelled = self._tags.get(token) or self._tokenizer.piece(token)
            self._scores += [(token, step.scores[i])] if step.scores and spelled else []
            pieces += self._shown(self._apart.feed(self._detokenizer.feed(spelled)))
            if self._apart.is_between:  # tags and spaces there are nobody's text
                self._scores.clear()
        return pieces

    def rest(self) -> list[Piece]:
        """What waited, when no more tokens come."""
        pieces = self._shown([*self._apart.feed(self._detokenizer.flush()), *self._apart.flush()])
        if rest := self._stop.flush():
            pieces.append(Piece(rest, self._token, self._drafted, tuple(self._scores)))
        return pieces

    def _shown(self, parts: list[Part]) -> list[Piece]:
        pieces = list[Piece]()
        for part, is_thought in parts:
            if text := part if is_thought else self._stop.feed(part):
                scores = tuple(self._scores)
                pieces.append(Piece(text, self._token, self._drafted, scores, is_thought))
                self._scores.clear()
        return pieces


def pieces_of(steps: Rounds, run: Run, spelling: Spelling) -> PieceStream:
    """Pieces with text; run: ended where a stop string is met, its output cut there."""
    for step in steps:
        pieces = spelling.feed(step)
        if spelling.stopped:
            del run.output[spelling.n_read :]  # what the round had beyond it
            run.end("a stop string was met", finish="stop")
        yield from pieces
        if spelling.stopped:
            return
    yield from spelling.rest()
