"""The tokenizer of a Hugging Face folder (tokenizer.json), by the `tokenizers` library, in bytes.

Reads what stands beside it too: tokenizer_config.json, chat_template.jinja, generation_config.json,
config.json. Knows byte-level vocabularies and SentencePiece-like ones. The library is imported
when a tokenizer is opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from edgespec.errors import ModelFileError, TokenizerError, UsageError
from edgespec.text.detokenizer import utf8

FILE = "tokenizer.json"
# What an exported model takes along besides FILE, where it exists.
COMPANIONS = (
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "config.json",
)
# End a turn wherever a vocabulary has them as added tokens, whatever its configuration says.
END_OF_TURN = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "</s>",
    "<｜end▁of▁sentence｜>",
)
# Many tokenizer.json do not mark these as special; a text that spells one must not become it.
CONTROL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused\d*>|<start_of_turn>|<pad>|<mask>", re.DOTALL)
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "▁"
MAX_TEXT_BYTES = 1 << 28


class HfTokenizer:
    """Implements protocols.Tokenizer. bos is None if the vocabulary has none or wants none.

    n_vocab counts the ids a model's logits are for: at least those of the vocabulary.
    """

    def __init__(self, folder: Path, n_vocab: int = 0) -> None:
        """Raises: ModelFileError, UsageError if the library is not installed."""
        self._folder = folder
        self._lock = Lock()
        self._library = _opened(folder)
        self._config = read_object(folder / "tokenizer_config.json")
        added = self._library.get_added_tokens_decoder()
        self._control = {t for t, one in added.items() if one.special or _is_control(one.content)}
        self._literal: dict[int, bytes] = {t: one.content.encode() for t, one in added.items()}
        # Makes them special for the library as well, which skips specials when told to.
        self._library.add_special_tokens([added[token].content for token in self._control])
        self._spelling = _Spelling.of(self._library, folder)
        vocabulary = self._library.get_vocab()
        self._n_spelled = max(vocabulary.values(), default=-1) + 1
        self._absent = self._spelling.absent(vocabulary)
        self._models_own = read_object(folder / "config.json")
        self.n_vocab = n_vocab or self._stated_size()
        self.bos = self._named("bos_token") if self._wants_bos() else None
        stated = self._named("bos_token")
        self.bos_text = "" if stated is None else self.piece(stated, special=True).decode()
        self.eos = self._named("eos_token")
        if self.eos is None:
            self.eos = next(iter(self._stated_ends()), None)

    @cached_property
    def chat_template(self) -> str | None:
        """Jinja source: chat_template.jinja, else what the configuration holds; None for none."""
        path = self._folder / "chat_template.jinja"
        if path.is_file():
            return _read(path).decode("utf-8", "replace")
        found = self._config.get("chat_template")
        if found is None:
            found = read_object(self._folder / "chat_template.json").get("chat_template")
        if isinstance(found, list):  # several by name
            named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
            found = named.get("default")
        return found if isinstance(found, str) else None

    @cached_property
    def stop_tokens(self) -> Set[int]:
        """Every end-of-generation token: eos, those the configurations list, ends of turns."""
        ends = {self._library.token_to_id(text) for text in END_OF_TURN} & self._control
        ends |= set(self._stated_ends())
        return frozenset(ends if self.eos is None else ends | {self.eos})

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Ids of `text`; special: spellings of control tokens become those tokens.

        bos: begin with the begin-of-text token, if the vocabulary wants one.
        Raises: TokenizerError for text that is not Unicode or has bytes without a token.
        """
        raw = utf8(text)
        if self._absent and not self._absent.isdisjoint(raw):
            raise TokenizerError(
                f"the text {text[:40]!r} cannot be written in this vocabulary: expected tokens "
                "for all of its bytes; use another model"
            )
        with self._lock:  # the switch belongs to the library's object, not to the call
            self._library.encode_special_tokens = not special
            found = self._library.encode(text, add_special_tokens=False).ids
        return [self.bos, *found] if bos and self.bos is not None else list(found)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes one token stands for; control tokens give b"" unless `special`."""
        if token in self._control and not special:
            return b""
        if token in self._literal:
            return self._literal[token]
        return self._spelling.bytes(self.text(token))

    def text(self, token: int) -> str:
        """The token as the vocabulary spells it, "▁the" for a SentencePiece one; "" for a gap."""
        if not 0 <= token < self.n_vocab:
            raise TokenizerError(f"token {token} is unknown: expected 0 to {self.n_vocab - 1}")
        return self._library.id_to_token(token) or ""

    def close(self) -> None:
        """Nothing to free: the library's object goes with this one."""

    def _stated_size(self) -> int:
        """config.json's vocab_size: embeddings are often padded beyond the last token."""
        stated = _text_part(self._models_own).get("vocab_size")
        return max(self._n_spelled, stated if isinstance(stated, int) else 0)

    def _stated_ends(self) -> list[int]:
        """The end tokens of generation_config.json and config.json. Raises: ModelFileError."""
        generation = read_object(self._folder / "generation_config.json")
        ends: list[int] = []
        for source in (generation, self._models_own, _text_part(self._models_own)):
            stated = source.get("eos_token_id")
            stated = stated if isinstance(stated, list) else [] if stated is None else [stated]
            for token in stated:
                if not isinstance(token, int) or not 0 <= token < self.n_vocab:
                    raise ModelFileError(
                        f"{self._folder} says eos_token_id = {token!r}: expected 0 to "
                        f"{self.n_vocab - 1}; fetch the model's files again"
                    )
                ends.append(token)
        return ends

    def _named(self, key: str) -> int | None:
        """The id of the token that tokenizer_config.json calls `key`, None if it names none."""
        named = self._config.get(key)
        if isinstance(named, dict):
            named = named.get("content")
        return self._library.token_to_id(named) if isinstance(named, str) else None

    def _wants_bos(self) -> bool:
        stated = self._config.get("add_bos_token")
        if isinstance(stated, bool):
            return stated
        first = self._library.encode("", add_special_tokens=True).ids[:1]
        return bool(first) and first[0] == self._named("bos_token")


class _Spelling:
    """How a vocabulary writes bytes: byte-level, a letter for each; or SentencePiece-like."""

    def __init__(self, letters: dict[str, int] | None, byte_fallback: bool) -> None:
        self._letters, self._byte_fallback = letters, byte_fallback

    @classmethod
    def of(cls, library: Any, folder: Path) -> _Spelling:
        """As the decoder says. Raises: ModelFileError for another kind."""
        parts = [] if library.decoder is None else list(_steps(library.decoder.__getstate__()))
        if library.decoder is None and library.pre_tokenizer is not None:
            parts = list(_steps(library.pre_tokenizer.__getstate__()))
        kinds = {part.get("type") for part in parts}
        if "ByteLevel" in kinds:
            return cls(_byte_letters(), False)
        if "Metaspace" in kinds or any(part.get("pattern") == {"String": SPACE} for part in parts):
            return cls(None, "ByteFallback" in kinds)
        seen = ", ".join(sorted(str(kind) for kind in kinds)) or "none"
        raise ModelFileError(
            f"{folder / FILE} has the decoder {seen}: expected a byte-level or "
            "SentencePiece vocabulary; choose another model"
        )

    def bytes(self, text: str) -> bytes:
        """What a normal token spelled `text` stands for."""
        if self._letters is not None:
            if all(letter in self._letters for letter in text):
                return bytes(self._letters[letter] for letter in text)
            return text.encode()
        byte = BYTE.fullmatch(text) if self._byte_fallback else None
        return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode()

    def absent(self, vocabulary: dict[str, int]) -> frozenset[int]:
        """Bytes that no token can write; the library drops them without a word."""
        if self._letters is None:
            return frozenset()
        never = {0xC0, 0xC1, *range(0xF5, 0x100)}  # in no UTF-8 text
        missing = {byte for letter, byte in self._letters.items() if letter not in vocabulary}
        return frozenset(missing - never)


def _byte_letters() -> dict[str, int]:
    """The letter that byte-level vocabularies write for each byte, reversed.

    Visible Latin-1 characters stand for themselves, the others follow from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {chr(byte): byte for byte in visible}
    return letters | {chr(0x100 + at): byte for at, byte in enumerate(hidden)}


def _is_control(text: str) -> bool:
    return text in END_OF_TURN or CONTROL.fullmatch(text) is not None


def _steps(state: bytes) -> Iterator[dict[str, Any]]:
    """The steps of one of the library's parts, sequences taken apart."""
    waiting = [json.loads(state)]
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            yield step
            waiting += step.get("decoders") or step.get("pretokenizers") or []


def _opened(folder: Path) -> Any:
    """The library's object. Raises: ModelFileError, UsageError."""
    path = folder / FILE
    if not path.is_file():
        only = "only tokenizer.model" if (folder / "tokenizer.model").is_file() else "no tokenizer"
        raise ModelFileError(
            f"{folder} has {only}: expected tokenizer.json; fetch it, or let transformers' "
            "AutoTokenizer write it with save_pretrained"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError(
            f"{path} needs the tokenizers package, which is not installed: "
            "type `pip install tokenizers`"
        ) from error
    try:
        library = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelFileError(
            f"{path} is not a tokenizer ({error}): expected a complete tokenizer.json; "
            "fetch it again, or update the tokenizers package"
        ) from error
    library.no_padding()
    library.no_truncation()
    return library


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a config.json."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file, {} without the file. Raises: ModelFileError."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not JSON ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} is a {type(found).__name__}: expected an object")
    return found


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ModelFileError(f"{path} has over {MAX_TEXT_BYTES >> 20} MiB: expected a text")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error})") from error
