"""Between tokens and text: pieces of UTF-8, stop strings.

Knows nothing of models, vocabularies or sampling.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from edgespec.errors import TokenizerError, UsageError


class Detokenizer:
    """Bytes of tokens to text, a character at a time: what is incomplete waits for its rest.

    lead: left out where the text begins with it.
    """

    def __init__(self, lead: str = "") -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lead = lead

    def feed(self, piece: bytes) -> str:
        """The text that `piece` completes, perhaps none."""
        text = self._decoder.decode(piece)
        if text and self._lead:
            text, self._lead = text.removeprefix(self._lead), ""
        return text

    def flush(self) -> str:
        """What is left when no more bytes come: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)


class StopText:
    """Lets text through up to the first stop string; a possible beginning of one waits.

    stopped: whether a stop string was seen; nothing comes out after it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UsageError("--stop is '': expected a text of at least one character")
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text that can be shown now."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        cut = len(text) - self._overhang(text)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _overhang(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for n in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stops):
                return n
        return 0


def utf8(text: str) -> bytes:
    """The text's bytes. Raises: TokenizerError for text that is not Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text has the lone surrogate {text[error.start]!r} at {error.start}: "
            "expected Unicode; read it as UTF-8"
        ) from error
