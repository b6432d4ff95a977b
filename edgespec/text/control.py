"""Control tokens in texts: how they are written, and where a text may write them."""

from __future__ import annotations

from edgespec.errors import TokenizerError
from edgespec.protocols import Tokenizer


def encode_rendered(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a rendered template; a BOS that it spells out is not added a second time."""
    opening = spelling(tokenizer, tokenizer.bos)
    if opening and text.startswith(opening):
        text = text[len(opening) :]
    return tokenizer.encode(text, special=True, bos=True)


def spelling(tokenizer: Tokenizer, token: int | None) -> str:
    """How a control token is written, "" for none."""
    if token is None:
        return ""
    return tokenizer.piece(token, special=True).decode("utf-8", "replace")


def token_of(tokenizer: Tokenizer, text: str) -> int | None:
    """The one token that is written so, None if there is none."""
    try:
        ids = tokenizer.encode(text, special=True)
    except TokenizerError:  # a vocabulary that cannot even spell it
        return None
    return ids[0] if len(ids) == 1 and spelling(tokenizer, ids[0]) == text else None
