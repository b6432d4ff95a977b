"""Colours of code, a line at a time: what of a language each character is."""

from __future__ import annotations

from typing import Any

from edgespec.cli.terminal.inline import CODE, Look

MOST = 2000  # characters of a block, read again for every line (5 ms); then reading starts anew
KINDS = {  # the last one that fits counts
    "Keyword": "keyword",
    "Operator.Word": "keyword",
    "Name.Tag": "keyword",
    "Name.Builtin": "name",
    "Name.Class": "name",
    "Name.Function": "name",
    "Name.Decorator": "name",
    "Literal.Number": "number",
    "Literal.String": "string",
    "Comment": "comment",
}
LOOKS: dict[str, Look] = {word: CODE | {word} for word in KINDS.values()}


class Syntax:
    """The lines of one code block."""

    def __init__(self, lexer: Any) -> None:
        self._lexer, self._text = lexer, ""

    def looks(self, line: str) -> list[Look]:
        """Of each character of the next line."""
        if len(self._text) > MOST:
            self._text = ""
        start, self._text = len(self._text), f"{self._text}{line}\n"
        out = [CODE] * len(line)
        for at, kind, text in self._lexer.get_tokens_unprocessed(self._text):
            look = look_of(str(kind).removeprefix("Token."))
            for i in range(max(at - start, 0), min(at - start + len(text), len(line))):
                out[i] = look
        return out


def syntax_of(fence: str) -> Syntax | None:
    """For the line that opens a block, as in "```python"; None for no language that is known."""
    words = fence.strip().lstrip("`~").split()
    if not words:
        return None
    from pygments.lexers import get_lexer_by_name  # 10 ms, for those who show code
    from pygments.util import ClassNotFound

    try:
        return Syntax(get_lexer_by_name(words[0].strip("{}.").lower()))
    except ClassNotFound:
        return None


def look_of(kind: str) -> Look:
    """How a kind of token looks, as Pygments names it: "Literal.String.Double"."""
    found = CODE
    for prefix, word in KINDS.items():
        if kind == prefix or kind.startswith(prefix + "."):
            found = LOOKS[word]
    return found
