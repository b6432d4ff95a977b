"""Grammars (GBNF) as constraints, by llama.cpp's grammar sampler; made of a JSON schema or given.

A state is one sampler: its grammar, and where in it the text stands. The states along the text
are kept, so that a round clones as many as it drafted tokens and reads nothing again.
"""

from __future__ import annotations

import codecs
import ctypes
import logging
import sys
import threading
from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from edgespec.backends.llamacpp.library import POINTER, library
from edgespec.backends.llamacpp.tokenizer import ENDS, SILENT, LlamaCppTokenizer
from edgespec.decode.follow import common_prefix
from edgespec.errors import UsageError
from edgespec.grammar.ending import Ending
from edgespec.grammar.gbnf import Grammar
from edgespec.grammar.schema import gbnf_of
from edgespec.grammar.walk import SECOND
from edgespec.text.detokenizer import utf8
from edgespec.types import Constraint

__all__ = ["LlamaCppConstraint", "constraint_of", "gbnf_of"]

log = logging.getLogger(__name__)
MAX_BYTES, MAX_DEPTH = 1 << 20, 1000  # llama.cpp reads a grammar by recursion, without a limit
MAX_CHOICES = 1000  # it compares them all with each other: then a step takes about 0.1 s
KEPT = 32  # states kept behind the end of the text: more than a draft is long
FEW = 64  # tokens up to which they are checked one by one, without a look at first bytes
Mask = NDArray[np.bool_]


class LlamaCppConstraint:
    """Implements types.Constraint for one grammar over one vocabulary; from any thread.

    An end-of-generation token is allowed where the grammar may end, and changes nothing. A
    control token is not allowed whatever it spells: it would not show in the text.
    """

    def __init__(self, tokenizer: LlamaCppTokenizer, gbnf: str) -> None:
        """Raises: UsageError for a grammar that llama.cpp cannot read."""
        self._states: dict[int, int] = {}  # samplers by the number of ids they have read
        self._path: list[int] = []  # the ids read last
        self._known: dict[int, dict[int, bool]] = {}  # which ids may come after so many
        self._tokenizer, self._lock = tokenizer, threading.Lock()
        lib = library()
        self._free = lib.bind("llama_sampler_free", None)
        self._clone = lib.bind("llama_sampler_clone")
        self._accept = lib.bind("llama_sampler_accept", None, (*POINTER, ctypes.c_int32))
        self._apply = lib.bind("llama_sampler_apply", None, (*POINTER, *POINTER))
        self._room(FEW)
        lib.forget_errors()
        check_gbnf(gbnf)
        texts = (ctypes.c_char_p, ctypes.c_char_p)
        init = lib.bind("llama_sampler_init_grammar", arguments=(*POINTER, *texts))
        root = init(tokenizer.vocab, utf8(gbnf), b"root")
        if root is None:
            why = lib.last_error() or "llama.cpp gave no reason"
            raise UsageError(
                f"the grammar {gbnf.strip()[:40]!r} was refused ({why}): expected GBNF with a rule "
                'named root, such as root ::= "yes" | "no"'
            )
        self._states[0] = root

    def allowed(self, generated: Sequence[int], ids: NDArray[np.integer]) -> Mask:
        """See types.Constraint; nothing may follow ids that break the grammar."""
        with self._lock:
            if not self._states:
                raise UsageError("the grammar is closed: expected an open one; make it again")
            assert self._tokenizer.vocab  # raises once the model is closed
            state = self._after(list(generated))
            if state is None:
                return np.zeros(len(ids), np.bool_)
            if len(ids) == 1:
                return np.array([self._may(len(generated), state, int(ids[0]))])
            return self._check(len(generated), state, np.asarray(ids))

    def close(self) -> None:
        """Free the states; closing twice is harmless."""
        with self._lock:
            for state in self._states.values():
                self._free(state)
            self._states = {}

    def __del__(self) -> None:
        if getattr(self, "_states", None) and not sys.is_finalizing():
            self.close()

    def _after(self, generated: list[int]) -> int | None:
        """The state after these ids; None if the grammar refuses one of them."""
        n_same = common_prefix(self._path, generated, len(generated))
        if n_same < len(self._path):
            del self._path[n_same:]
            for n in [n for n in self._states if n > n_same]:
                self._free(self._states.pop(n))
            self._known = {n: known for n, known in self._known.items() if n <= n_same}
        at = max(self._states)
        state = self._states[at]
        for n in range(at, len(generated)):
            token = generated[n]
            if n >= n_same and not self._may(n, state, token):
                return None
            state = self._states[n + 1] = self._clone(state)
            self._accept(state, token)
            self._path[n:] = [token]
            self._forget(n + 1 - KEPT)
        return state

    def _forget(self, n: int) -> None:
        """Drop the state after n ids, but not the grammar's beginning."""
        if n > 0 and n in self._states:
            self._free(self._states.pop(n))
            self._known.pop(n, None)

    def _may(self, n: int, state: int, token: int) -> bool:
        """Whether one token may follow the n ids of `state`."""
        known = self._known.setdefault(n, {})
        if token not in known:
            known[token] = bool(self._check(n, state, np.array([token]))[0])
        return known[token]

    def _check(self, n: int, state: int, ids: NDArray[np.integer]) -> Mask:
        """Which of `ids` may follow in `state`, the one after n ids of the path."""
        tokenizer = self._tokenizer
        begun = begun_in(b"".join(map(tokenizer.piece, self._path[max(n - 3, 0) : n])))
        legal = legal_after(begun)
        out = (ids >= 0) & (ids < tokenizer.n_vocab)
        if len(ids) > FEW:
            begin = self._begin(state) & legal
            out &= begin[tokenizer.first_bytes[np.where(out, ids, 0)]]
        asked = np.flatnonzero(out)
        out[asked] = self._applied(state, ids[asked])
        for i in np.flatnonzero(out) if len(ids) <= FEW else ():
            token = int(ids[i])
            piece, ends = tokenizer.piece(token), token in tokenizer.stop_tokens
            out[i] = legal[ENDS if ends else piece[0] if piece else SILENT]
        return out

    def _begin(self, state: int) -> Mask:
        """[258] whether a token with this first byte may follow, in the terms of `first_bytes`.

        A token that is one byte stands for all that begin with it: if the grammar refuses it,
        it refuses them. That spares most of the vocabulary where only few characters may follow.
        """
        out = np.ones(SILENT + 1, np.bool_)
        tokens = self._tokenizer.single_bytes
        known = np.flatnonzero(tokens >= 0)
        out[known] = self._applied(state, tokens[known])
        return out

    def _applied(self, state: int, ids: NDArray[np.integer]) -> Mask:
        """What llama.cpp says of `ids`, which it looks up unchecked."""
        n = len(ids)
        if n > len(self._buffer):
            self._room(2 * n)
        buffer, self._candidates.size = self._buffer[:n], n
        buffer["id"], buffer["logit"] = ids, 0.0
        self._apply(state, ctypes.addressof(self._candidates))
        may: Mask = buffer["logit"] == 0
        return may

    def _room(self, n: int) -> None:
        api = library().api
        self._buffer = np.zeros(n, np.dtype(api.llama_token_data))
        data = self._buffer.ctypes.data_as(ctypes.POINTER(api.llama_token_data))
        self._candidates = api.llama_token_data_array(data, n, -1, False)


def constraint_of(tokenizer: LlamaCppTokenizer, gbnf: str, *, n_tokens: int = 0) -> Constraint:
    """The constraint by a grammar in llama.cpp's notation.

    n_tokens: the most that will be generated, within which the text ends; 0 does not see to that.
    Raises: UsageError for a grammar that llama.cpp cannot read.
    """
    inner = LlamaCppConstraint(tokenizer, gbnf)
    if not n_tokens:
        return inner
    try:
        grammar = read(gbnf)
    except (UsageError, RecursionError) as error:  # llama.cpp reads more than we do
        log.warning("an answer by this grammar may be cut by the token limit: %s", error)
        return inner
    widest = max(map(len, grammar.rules.values()))
    if widest > MAX_CHOICES:
        inner.close()
        raise UsageError(
            f"the grammar has a rule of {widest} alternatives: expected at most {MAX_CHOICES}; "
            'write those that begin alike together, as in "a" ("b" | "c")'
        )
    return Ending(inner, grammar, tokenizer, n_tokens)


@lru_cache(4)
def read(gbnf: str) -> Grammar:
    """The grammar, kept for the next answer. Raises: UsageError, RecursionError."""
    return Grammar(gbnf)


def begun_in(text: bytes) -> bytes:
    """The bytes at its end of a character that is not over."""
    return text[codecs.utf_8_decode(text, "replace", False)[1] :]


@cache
def legal_after(begun: bytes) -> Mask:
    """[258] the first bytes, as in `first_bytes`, with which UTF-8 may go on.

    llama.cpp also takes bytes that no text has, and overlong forms of characters.
    """
    out = np.zeros(SILENT + 1, np.bool_)
    if not begun:
        out[:0x80] = out[0xC2:0xF5] = out[ENDS] = True
        return out
    low, high = SECOND.get(begun, (0x80, 0xBF))
    out[low : high + 1] = True
    return out


def check_gbnf(gbnf: str) -> None:
    """Raises: UsageError for a grammar that would crash llama.cpp, or that it takes for none."""
    if not gbnf.strip():
        raise UsageError('the grammar is empty: expected GBNF such as root ::= "yes" | "no"')
    if len(gbnf.encode("utf-8", "replace")) > MAX_BYTES:
        raise UsageError(
            f"the grammar has {len(gbnf)} characters: expected at most {MAX_BYTES}; shorten it"
        )
    depth = deepest = 0
    for letter in gbnf:
        depth += (letter == "(") - (letter == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise UsageError(
            f"the grammar has parentheses {deepest} deep: expected at most {MAX_DEPTH}; write "
            "repetitions as in [a-z]{0,99}"
        )
