"""A generation's rounds as pieces of text, up to a stop string."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgespec.protocols import Tokenizer
from edgespec.session.turns import PieceStream, Rounds, Run
from edgespec.text.detokenizer import Detokenizer, StopText
from edgespec.text.thoughts import NoThoughts, Part, Thoughts
from edgespec.types import Piece, TokenScore

NO_TAGS: Mapping[int, bytes] = {}


def pieces_of(
    steps: Rounds,
    run: Run,
    tokenizer: Tokenizer,
    stop: StopText,
    lead: str = "",
    *,
    thoughts: Thoughts | None = None,
    tags: Mapping[int, bytes] = NO_TAGS,
) -> PieceStream:
    """Pieces with text; a token whose text has to wait is shown with the one that ends it.

    run: ended where a stop string is met, its output cut there. lead: left out where it begins so.
    thoughts: of a model that thinks, whose thoughts no stop string ends. tags: what its tags are
    spelled, where they are control tokens, which say nothing else.
    """
    apart: Thoughts | NoThoughts = thoughts or NoThoughts()
    detokenizer, scores = Detokenizer(lead), list[tuple[int, TokenScore]]()
    token, drafted, n_read = -1, False, 0

    def shown(parts: list[Part], token: int, drafted: bool) -> Iterator[Piece]:
        for part, is_thought in parts:
            if text := part if is_thought else stop.feed(part):
                yield Piece(text, token, drafted, tuple(scores), is_thought)
                scores.clear()

    for step in steps:
        emitted = step.verdict.tokens
        for i, (token, drafted) in enumerate(zip(emitted, step.from_draft, strict=True)):
            n_read += 1
            scores += [(token, step.scores[i])] if step.scores else []
            spelled = tags.get(token) or tokenizer.piece(token)
            pieces = list(shown(apart.feed(detokenizer.feed(spelled)), token, drafted))
            if stop.stopped:
                del run.output[n_read:]  # what the round had beyond it
                run.end("a stop string was met", finish="stop")
            yield from pieces
            if stop.stopped:
                return
    yield from shown([*apart.feed(detokenizer.flush()), *apart.flush()], token, drafted)
    if rest := stop.flush():
        yield Piece(rest, token, drafted, tuple(scores))
