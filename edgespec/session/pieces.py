"""A generation's rounds as pieces of text, up to a stop string."""

from __future__ import annotations

from edgespec.protocols import Tokenizer
from edgespec.session.turns import PieceStream, Rounds, Run
from edgespec.text.detokenizer import Detokenizer, StopText
from edgespec.types import Piece, TokenScore


def pieces_of(
    steps: Rounds, run: Run, tokenizer: Tokenizer, stop: StopText, lead: str = ""
) -> PieceStream:
    """Pieces with text; a token whose text has to wait is shown with the one that ends it.

    run: ended where a stop string is met, its output cut there. lead: left out where it begins so.
    """
    detokenizer, scores = Detokenizer(lead), list[tuple[int, TokenScore]]()
    token, drafted, n_read = -1, False, 0
    for step in steps:
        emitted = step.verdict.tokens
        for i, (token, drafted) in enumerate(zip(emitted, step.from_draft, strict=True)):
            n_read += 1
            scores += [(token, step.scores[i])] if step.scores else []
            text = stop.feed(detokenizer.feed(tokenizer.piece(token)))
            if stop.stopped:
                del run.output[n_read:]  # what the round had beyond it
                run.end("a stop string was met", finish="stop")
            if text:
                yield Piece(text, token, drafted, tuple(scores))
                scores = []
            if stop.stopped:
                return
    rest = stop.feed(detokenizer.flush()) + stop.flush()
    if rest:
        yield Piece(rest, token, drafted, tuple(scores))
