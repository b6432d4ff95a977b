"""A byte-level BPE vocabulary out of a GGUF file: to encode with, and to write into another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def described(path: Path) -> dict[str, object]:
    """The vocabulary as `network.write_gguf` stores it."""
    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        return reader.get_field(f"tokenizer.{key}").contents()

    return {
        "tokens": value("ggml.tokens"),
        "types": value("ggml.token_type"),
        "merges": value("ggml.merges"),
        "bos": value("ggml.bos_token_id"),
        "eos": value("ggml.eos_token_id"),
        "chat_template": value("chat_template"),
    }


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer that `corpus.train_tokenizer` made, from the file that it was written to."""
    stored: dict[str, Any] = described(path)
    tokens, types = stored["tokens"], stored["types"]
    merges = [tuple(merge.split(" ")) for merge in stored["merges"]]
    ids = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer
