"""A vocabulary as bytes: what each id spells, and ids that spell exactly the bytes asked for.

Whatever the tokenizer (SentencePiece, byte-level BPE), two vocabularies meet here in bytes alone.
Control tokens spell nothing and are known by their roles. Knows one vocabulary and no model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from edgespec.errors import TokenizerError
from edgespec.protocols import Tokenizer

# Put before a text that does not open, for a tokenizer that would add a space to it; control
# characters are parts of longer tokens least often, and a newline is the likeliest neighbour.
GUARDS = ("\n", "\x01", "\x02", "|")
STRAY = re.compile("([\udc80-\udcff]+)")  # bytes that are not UTF-8, as surrogateescape has them
SMALL = 16  # bytes that are no longer halved to save what the tokenizer can do of them


class Vocabulary:
    """The tokens of one model.

    n_vocab: ids the model has; those its tokenizer does not know spell nothing. pieces: bytes of
    every id, b"" for control and unused ones. by_bytes: the id that spells these bytes; of several
    the one the tokenizer would use. roles: ids of "bos", "eos", "end_of_turn" where there are any.
    adds_space: whether the tokenizer puts a space before a text that opens.
    """

    def __init__(
        self, tokenizer: Tokenizer, n_vocab: int, *, end_of_turn: int | None = None
    ) -> None:
        """end_of_turn: what the chat template ends an answer with; the tokenizer's eos if None.

        Raises: TokenizerError for a model whose file has no vocabulary.
        """
        self.tokenizer, self.n_vocab = tokenizer, n_vocab
        self.pieces = _pieces(tokenizer, n_vocab)
        if not any(self.pieces):
            raise TokenizerError(
                f"none of the {n_vocab} tokens spells anything: expected a vocabulary in the "
                "model's file; use another model"
            )
        self._control = frozenset(
            token
            for token, piece in enumerate(self.pieces)
            if not piece and _piece(tokenizer, token, special=True)
        )
        ends = tokenizer.eos if end_of_turn is None else end_of_turn
        named = {"bos": tokenizer.bos, "eos": tokenizer.eos, "end_of_turn": ends}
        self.roles = {
            role: token
            for role, token in named.items()
            if token is not None and 0 <= token < n_vocab
        }
        self.adds_space = self._adds_space()
        self._guards = [_Guard(guard, tokenizer) for guard in GUARDS] if self.adds_space else []
        self.by_bytes = self._by_bytes()
        self._longest = min(max(map(len, self.by_bytes), default=0), 2 * SMALL)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over all pieces, which ids are control tokens, and the roles."""
        digest = hashlib.sha256(f"{self.n_vocab} {sorted(self.roles.items())}".encode())
        digest.update(np.fromiter(map(len, self.pieces), "<i8", self.n_vocab).tobytes())
        digest.update(np.array(sorted(self._control), "<i8").tobytes())
        digest.update(b"".join(self.pieces))
        return digest.hexdigest()

    def is_control(self, token: int) -> bool:
        return token in self._control

    def spelling(self, ids: Iterable[int]) -> bytes:
        """The bytes that ids spell one after the other."""
        return b"".join(map(self.pieces.__getitem__, ids))

    def encode(self, data: bytes, *, start: bool = False) -> list[int]:
        """Ids that spell exactly `data`, which need not be UTF-8; never control tokens.

        start: at the beginning of a text or after a control token. There a vocabulary that adds a
        space does so: the ids spell b" " + data, for any data but b"".
        Raises: TokenizerError if a byte has no token.
        """
        return self._encode(data, start and self.adds_space)

    def _encode(self, data: bytes, opens: bool) -> list[int]:
        if not data:
            return []
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return self._encode_stray(data, opens)
        found = self._by_tokenizer(text, data, opens)
        return self._encode_halves(text, opens) if found is None else found

    def _by_tokenizer(self, text: str, data: bytes, opens: bool) -> list[int] | None:
        """The tokenizer's ids, None where they do not spell `data` (it may normalise)."""
        try:
            if opens or not self.adds_space:
                ids = self.tokenizer.encode(text)
                return ids if self._spells(ids, b" " + data if opens else data) else None
            for guard in self._guards:
                ids = self.tokenizer.encode(guard.text + text)
                n = len(guard.ids)
                if ids[:n] == guard.ids:  # else it has grown together with the text
                    return ids[n:] if self._spells(ids[n:], data) else None
        except TokenizerError:
            pass  # some byte has no token for the tokenizer; perhaps a longer token covers it
        return None

    def _spells(self, ids: list[int], data: bytes) -> bool:
        return max(ids, default=0) < self.n_vocab and self.spelling(ids) == data

    def _encode_stray(self, data: bytes, opens: bool) -> list[int]:
        """Characters by the tokenizer, what is not UTF-8 by longest match."""
        ids: list[int] = []
        for part in STRAY.split(data.decode(errors="surrogateescape")):
            if not part:
                continue
            raw = part.encode(errors="surrogateescape")
            if STRAY.match(part):
                ids += self._longest_match(b" " + raw if opens else raw)
            else:
                ids += self._encode(raw, opens)
            opens = False
        return ids

    def _encode_halves(self, text: str, opens: bool) -> list[int]:
        """Halves, down to what the tokenizer gets wrong: that by longest match."""
        if len(text) <= SMALL:
            data = text.encode()
            return self._longest_match(b" " + data if opens else data)
        middle = text.find(" ", len(text) // 2)
        if not 0 < middle < len(text) - 1:
            middle = len(text) // 2
        first, rest = text[:middle], text[middle:]
        return self._encode(first.encode(), opens) + self._encode(rest.encode(), False)

    def _longest_match(self, data: bytes) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(data):
            for end in range(min(at + self._longest, len(data)), at, -1):
                token = self.by_bytes.get(data[at:end])
                if token is not None:
                    ids.append(token)
                    at = end
                    break
            else:
                raise TokenizerError(
                    f"the byte 0x{data[at]:02x} has no token in this vocabulary: expected tokens "
                    "for all bytes; use another drafter"
                )
        return ids

    def _adds_space(self) -> bool:
        try:
            ids = self.tokenizer.encode("a")
        except TokenizerError:
            return False
        return max(ids, default=0) < self.n_vocab and self.spelling(ids) == b" a"

    def _by_bytes(self) -> dict[bytes, int]:
        found = dict(zip(self.pieces, range(self.n_vocab), strict=True))
        found.pop(b"", None)
        if len(found) == sum(map(bool, self.pieces)):  # as in any byte-level vocabulary
            return found
        found, several = {}, set[bytes]()
        for token, piece in enumerate(self.pieces):
            if piece and found.setdefault(piece, token) != token:
                several.add(piece)
        for piece in several:  # a SentencePiece vocabulary has "A" and "<0x41>"
            try:
                ids = self._by_tokenizer(piece.decode(), piece, False)
            except UnicodeDecodeError:
                continue
            if ids and len(ids) == 1:
                found[piece] = ids[0]
        return found


class _Guard:
    """A text put before another, and its ids at the beginning of a text."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.text = text
        try:
            self.ids = tokenizer.encode(text)
        except TokenizerError:
            self.ids = [-1]  # never what an encoding begins with


def _pieces(tokenizer: Tokenizer, n_vocab: int) -> list[bytes]:
    """What every id spells; where all ids are the tokenizer's, in half the time."""
    try:
        return list(map(tokenizer.piece, range(n_vocab)))
    except TokenizerError:
        return [_piece(tokenizer, token) for token in range(n_vocab)]


def _piece(tokenizer: Tokenizer, token: int, *, special: bool = False) -> bytes:
    try:
        return tokenizer.piece(token, special=special)
    except TokenizerError:
        return b""  # rows of the model beyond its tokenizer
