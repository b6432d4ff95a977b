"""The tokenizer that lies in an exported model's folder, of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgespec.errors import ModelFileError

if TYPE_CHECKING:
    from edgespec.backends.hf_tokenizer import HfTokenizer
    from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer

GGUF, HF = "vocabulary.gguf", "tokenizer.json"


def open_tokenizer(folder: Path, name: str, *, n_vocab: int = 0) -> LlamaCppTokenizer | HfTokenizer:
    """The tokenizer `name` in `folder`; its library is imported here.

    n_vocab: ids that the model's logits are for, if known: tokenizer.json may have fewer.
    Raises: ModelFileError, UsageError if the library is not installed.
    """
    if name == GGUF:
        from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer

        if not (folder / name).is_file():
            raise ModelFileError(f"{folder} has no {name}: expected its tokenizer; export it again")
        return LlamaCppTokenizer.open(folder / name)
    if name == HF:
        from edgespec.backends.hf_tokenizer import HfTokenizer

        return HfTokenizer(folder, n_vocab)
    raise ModelFileError(
        f"{folder} names the tokenizer {name!r}: expected {GGUF} or {HF}; export it again"
    )
