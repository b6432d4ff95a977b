"""The tokenizer of a GGUF file, by llama.cpp's own code: text to ids and back, by bytes.

A vocabulary-only file is opened with `LlamaCppTokenizer.open`; a model's tokenizer shares the
model's handle and keeps it alive.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterable, Iterator, Set
from functools import cached_property
from itertools import compress, repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgespec.backends.gguf.check import check_vocabulary
from edgespec.backends.llamacpp.interrupts import held_interrupts
from edgespec.backends.llamacpp.library import library
from edgespec.errors import ModelFileError, TokenizerError
from edgespec.text.detokenizer import utf8

T = TypeVar("T")
NO_VOCABULARY, SENTENCEPIECE = 0, 1  # LLAMA_VOCAB_TYPE_NONE, _SPM
MAX_TEXT_BYTES = 1 << 30
SPACE = "\u2581"  # how a SentencePiece vocabulary writes one
BYTE = re.compile("<0x([0-9A-F]{2})>")
PIECE_BYTES = 64  # room for the bytes of nearly every token
MANY = 4096  # tokens asked for one by one, 10 ms, before all are read
# Bytes that are in no UTF-8, then control characters: in a token of its own, or in none.
NO_TEXT = bytes([*range(0xF5, 0x100), 0xC0, 0xC1, *range(1, 9), *range(14, 32)])
BYTES_WITHIN = 1024  # first ids, among which all vocabularies have their single bytes
ENDS, SILENT = 256, 257  # in first_bytes, beyond the bytes


class Weights:
    """Owner of one llama_model; freed by close(), or when the last user is gone."""

    def __init__(self, path: Path, params: Any) -> None:
        self.handle: Any = None
        self._pid = os.getpid()
        lib = library()
        self._free = lib.api.llama_model_free
        lib.forget_errors()
        name = os.fsencode(path) if sys.platform != "win32" else str(path).encode()
        with held_interrupts():
            self.handle = lib.api.llama_model_load_from_file(name, params)
        if not self.handle:
            why = lib.last_error() or "llama.cpp gave no reason"
            raise ModelFileError(
                f"{path.name} was refused ({why}): expected a model that llama.cpp knows; "
                "fetch the file again or update llama-cpp-python"
            )

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle and os.getpid() == self._pid:  # a forked child's belongs to its parent
            self._free(handle)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.close()


class Ends(Set[int]):
    """The tokens of a vocabulary that end a text, asked of llama.cpp one by one.

    To look at 150,000 of them takes 45 ms, and an answer needs to know of its own alone.
    """

    def __init__(self, tokenizer: LlamaCppTokenizer) -> None:
        self._tokenizer, self._is_end = tokenizer, library().is_end
        self._known: dict[int, bool] = {}

    def __contains__(self, token: object) -> bool:
        if not isinstance(token, (int, np.integer)) or not 0 <= token < self._tokenizer.n_vocab:
            return False
        known = self._known.get(int(token))
        if known is None:
            known = self._known[int(token)] = self._is_end(self._tokenizer.vocab, int(token))
        return known

    def __iter__(self) -> Iterator[int]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @cached_property
    def _all(self) -> tuple[int, ...]:
        ids = range(self._tokenizer.n_vocab)
        vocab = self._tokenizer.vocab
        return tuple(compress(ids, map(self._is_end, repeat(vocab), ids)))  # no loop of ours

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> Set[T]:
        return frozenset(it)  # what & and | of two sets give


class LlamaCppTokenizer:
    """Implements protocols.Tokenizer. bos is None if the vocabulary has none or wants none."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._api = library().api
        self._to_piece = library().to_piece
        self._vocab = self._api.llama_model_get_vocab(weights.handle)
        self.n_vocab = int(self._api.llama_vocab_n_tokens(self._vocab))
        self._has_text = self._api.llama_vocab_type(self._vocab) != NO_VOCABULARY
        adds_bos = self._has_text and self._api.llama_vocab_get_add_bos(self._vocab)
        self.bos = self._token("llama_vocab_bos") if adds_bos else None
        self.eos = self._token("llama_vocab_eos")
        self._pieces: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})

    @classmethod
    def open(cls, path: Path) -> LlamaCppTokenizer:
        """The tokenizer of the GGUF file at `path`, with or without weights.

        Raises: ModelFileError.
        """
        check_vocabulary(path)
        params = library().api.llama_model_default_params()
        params.vocab_only = True
        return cls(Weights(path, params))

    @property
    def vocab(self) -> Any:
        """llama.cpp's pointer, good while the model is open. Raises: TokenizerError if closed."""
        self._check_text()
        return self._vocab

    @cached_property
    def first_bytes(self) -> NDArray[np.int16]:
        """[V] first byte of each token; ENDS if it ends the text, SILENT if it spells nothing."""
        pieces = (self.piece(token) for token in range(self.n_vocab))
        out = np.array([piece[0] if piece else SILENT for piece in pieces], np.int16)
        out[list(self.stop_tokens)] = ENDS
        return out

    @cached_property
    def spelled(self) -> tuple[bytes, NDArray[np.int64]]:
        """The bytes of all tokens in a row, and [V] where each token's end."""
        pieces = [self.piece(token) for token in range(self.n_vocab)]
        return b"".join(pieces), np.cumsum([len(piece) for piece in pieces])

    @cached_property
    def spellings(self) -> frozenset[bytes]:
        """What single tokens spell that do not end a text."""
        ids, ends = range(self.n_vocab), frozenset(self.stop_tokens)
        return frozenset(self.piece(token) for token in ids if token not in ends)

    @cached_property
    def single_bytes(self) -> NDArray[np.int32]:
        """[256] a token that is this byte and no more, -1 where there is none."""
        out, ends = np.full(256, -1, np.int32), frozenset(self.stop_tokens)
        for token in range(self.n_vocab):
            piece = self.piece(token)
            if len(piece) == 1 and token not in ends:
                out[piece[0]] = token
        return out

    @cached_property
    def chat_template(self) -> str | None:
        """Jinja source from the metadata, None if there is none."""
        source = self._api.llama_model_chat_template(self._handle(), None)
        return None if source is None else source.decode("utf-8", "replace")

    @cached_property
    def bos_text(self) -> str:
        """What a chat template writes as bos_token, also where no text begins with it by itself."""
        token = self._token("llama_vocab_bos") if self._has_text else None
        if token is None or self.piece(token):  # an ordinary one where the file names none
            return ""
        return self.piece(token, special=True).decode("utf-8", "replace")

    @cached_property
    def stop_tokens(self) -> Set[int]:
        """Every end-of-generation token: eos, eot, eom and their like."""
        if not self._has_text:
            return frozenset()
        self._handle()
        return Ends(self)

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Ids of `text`; special: spellings of control tokens become those tokens.

        bos: begin with the begin-of-text token, if the vocabulary wants one.
        Raises: TokenizerError for text that is not Unicode or a model without vocabulary.
        """
        self._check_text()
        raw = utf8(text)
        if len(raw) > MAX_TEXT_BYTES:
            raise TokenizerError(f"the text has {len(raw)} bytes: expected at most 1 GiB; split it")
        written = self._can_write(text)
        found = self._tokenize(raw, special, len(raw) + 2) if written else None
        if found is None:
            raise TokenizerError(
                f"the text {text[:40]!r} cannot be written in this vocabulary: expected tokens "
                "for all of its bytes; use another model"
            )
        return [self.bos, *found] if bos and self.bos is not None else found

    def framed(self, text: str) -> list[int]:
        """Ids of `text` within whatever the vocabulary begins and ends texts with ([CLS], [SEP]).

        Raises: as `encode`.
        """
        own = self.encode(text)
        raw = utf8(text)
        return self._tokenize(raw, False, len(own) + 8, framed=True) or own

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes one token stands for; control tokens give b"" unless `special`."""
        known = self._pieces[special]
        piece = known.get(token)
        if piece is None:
            if len(known) == MANY:
                self._read_pieces(special)
            piece = known[token] = self._piece(token, special)
        return piece

    def _read_pieces(self, special: bool) -> None:
        """Learn the bytes of all tokens in one call, with a byte between them that none contains.

        151,936 tokens take 30 ms, asked for one by one 400. Nothing where that is not possible.
        """
        known, every = self._pieces[special], range(self.n_vocab)
        bytes_of = {self._piece(i, False): i for i in every[:BYTES_WITHIN]}
        byte = next((b for b in (bytes([b]) for b in NO_TEXT) if b in bytes_of), None)
        if byte is None:
            return
        between = bytes_of[byte]
        ids = np.full(2 * self.n_vocab + 1, between, np.int32)
        ids[1::2] = every
        ids[1 + 2 * between] = self.n_vocab - 1  # any other: this one is known
        at, n = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)), ids.size
        detokenize, end = self._api.llama_detokenize, (False, special)
        size = -detokenize(self._vocab, at, n, None, 0, *end) - 1
        buffer = ctypes.create_string_buffer(size)
        # Without room for the last byte it does not come to removing spaces before commas.
        detokenize(self._vocab, at, n, buffer, size, *end)
        pieces = buffer.raw.split(byte)[1:]
        if len(pieces) == self.n_vocab:
            pieces[between] = byte
            known.update(enumerate(pieces))

    def text(self, token: int) -> str:
        """The token as the vocabulary spells it, "▁the" for a SentencePiece one."""
        self._check_token(token)
        raw = self._api.llama_vocab_get_text(self._vocab, token)
        return (raw or b"").decode("utf-8", "replace")

    def close(self) -> None:
        """Free the vocabulary, and the model it belongs to; closing twice is harmless."""
        self._weights.close()

    def _can_write(self, text: str) -> bool:
        """Whether llama.cpp has tokens for a text; without, a SentencePiece one ends the process.

        Characters are checked one by one, though a longer token might cover what they lack.
        """
        if not self._missing:
            return True
        words, missing = self._words, self._missing
        return all(
            char in words or missing.isdisjoint(char.encode())
            for char in {SPACE, *text.replace(" ", SPACE)}
        )

    @cached_property
    def _missing(self) -> frozenset[int]:
        """Bytes without a token, where characters without one are written as bytes."""
        if self._api.llama_vocab_type(self._vocab) != SENTENCEPIECE:
            return frozenset()
        missing = set(range(256))
        for token in range(self.n_vocab):  # they come early in all vocabularies that have them
            byte = BYTE.fullmatch(self.text(token))
            missing -= {int(byte[1], 16)} if byte else set()
            if not missing:
                break
        return frozenset(missing)

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(map(self.text, range(self.n_vocab)))

    def _tokenize(
        self, raw: bytes, special: bool, room: int, *, framed: bool = False
    ) -> list[int] | None:
        for _ in range(2):  # the second time with the room that the first asked for
            ids = (ctypes.c_int32 * room)()
            n = self._api.llama_tokenize(self._vocab, raw, len(raw), ids, room, framed, special)
            if n >= 0:
                return ids[:n]
            room = -n
        return None

    def _piece(self, token: int, special: bool) -> bytes:
        if not (self._weights.handle and self._has_text and 0 <= token < self.n_vocab):
            self._check_token(token)
        room = PIECE_BYTES
        for _ in range(2):  # the second time with the room that the first asked for
            buffer = ctypes.create_string_buffer(room)  # its own: another thread may ask meanwhile
            n = self._to_piece(self._vocab, token, buffer, room, 0, special)
            if n >= 0:
                return buffer.raw[:n]
            room = -n
        raise TokenizerError(f"token {token} has no bytes: expected a token of this vocabulary")

    def _token(self, function: str) -> int | None:
        token = int(getattr(self._api, function)(self._vocab))
        return token if 0 <= token < self.n_vocab else None

    def _check_token(self, token: int) -> None:
        self._check_text()
        if not 0 <= token < self.n_vocab:
            raise TokenizerError(f"token {token} is unknown: expected 0 to {self.n_vocab - 1}")

    def _check_text(self) -> None:
        self._handle()
        if not self._has_text:
            raise TokenizerError(
                "the model has no vocabulary: expected one in its file; "
                "name the vocabulary it was cut from"
            )

    def _handle(self) -> Any:
        if not self._weights.handle:
            raise TokenizerError("the model is closed: expected an open one; open it again")
        return self._weights.handle
