"""Control tokens in texts: how they are written, and who may write them.

The markup of a chat template may, and so may a raw prompt. What a message spells of them is text:
MARK breaks it up before the template sees it, so that whatever the template makes of the message,
its markup and what others wrote stay apart. Knows one tokenizer and no template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from edgespec.errors import TokenizerError
from edgespec.protocols import Tokenizer

MARK = "\ufdd0"  # a noncharacter, which texts do not have; where one does, it is doubled


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


def control_in(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """The control tokens among `ids` as they are written, the longest first."""
    silent = (token for token in set(ids) if not tokenizer.piece(token))
    return sorted(
        {spelling(tokenizer, token) for token in silent} - {""}, key=lambda s: (-len(s), s)
    )


def marked(said: Any, control: list[str]) -> Any:
    """A message, or a part of one, in which MARK breaks up what it spells of `control`."""
    if isinstance(said, dict):
        return {key: one if key == "role" else marked(one, control) for key, one in said.items()}
    if isinstance(said, list):
        return [marked(one, control) for one in said]
    if not isinstance(said, str) or not any(one in said for one in control):
        return said
    begins = f"(?={'|'.join(map(re.escape, control))})."  # a letter of it, as they may overlap
    return re.sub(begins, rf"\g<0>{MARK}", said.replace(MARK, 2 * MARK), flags=re.DOTALL)


def encode_rendered(tokenizer: Tokenizer, text: str, control: list[str] | None = None) -> list[int]:
    """Ids of a raw prompt or a rendered template; a BOS that it spells is not added a second time.

    control: of a text with marks, what is written without them: it becomes control tokens. What
    stands between two of them, a mark in it, is encoded as text; all else as it is without marks.
    """
    opening = spelling(tokenizer, tokenizer.bos)
    text = text.removeprefix(opening)
    if control is None:
        return tokenizer.encode(text, special=True, bos=True)
    ids = [] if tokenizer.bos is None else [tokenizer.bos]
    parts = ["", *re.split(f"({'|'.join(map(re.escape, control))})", text), ""]
    markup = ""
    for before, said, after in zip(parts[:-1:2], parts[1::2], parts[2::2], strict=True):
        if MARK in said:
            ids += tokenizer.encode(markup, special=True)
            ids += _between(tokenizer, before, re.sub(f"{MARK}({MARK}?)", r"\1", said), after)
            markup = after
        else:
            markup += said + after
    return ids + tokenizer.encode(markup, special=True)


def _between(tokenizer: Tokenizer, before: str, said: str, after: str) -> list[int]:
    """Ids of a text that stands between these control tokens, "" for none, and becomes none."""

    def alike(one: str, other: str) -> bool:
        return tokenizer.encode(one, special=True) == tokenizer.encode(other, special=True)

    if before and alike(f"{before}\n\nx", f"{before}x"):  # it swallows white space, as Phi-3's do
        said = said.lstrip()
    if after and alike(f"x\n\n{after}", f"x{after}"):
        said = said.rstrip()
    if before and tokenizer.encode(f"{before}x", special=True)[1:] != tokenizer.encode("x"):
        # A space is added where a text begins, and not here: a line before it takes that.
        opening, ids = tokenizer.encode("\n"), tokenizer.encode("\n" + said)
        if ids[: len(opening)] == opening:
            return ids[len(opening) :]
    return tokenizer.encode(said)
