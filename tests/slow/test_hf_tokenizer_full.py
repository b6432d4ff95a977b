"""Large vocabularies: a Hugging Face tokenizer against llama.cpp's over long texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hf_maker import write_tokenizer

from edgespec.backends.hf_tokenizer import HfTokenizer
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "llama-spm"])
def test_large_vocabularies_agree_with_llama_cpp(
    name: str, data_folder: Path, tmp_path: Path
) -> None:
    source = data_folder / "vocab" / f"ggml-vocab-{name}.gguf"
    own, reference = HfTokenizer(write_tokenizer(tmp_path, source)), LlamaCppTokenizer.open(source)
    assert (own.n_vocab, own.bos) == (reference.n_vocab, reference.bos)
    assert own.stop_tokens == reference.stop_tokens
    for special in (False, True):
        pieces = [own.piece(token, special=special) for token in range(own.n_vocab)]
        assert pieces == [reference.piece(token, special=special) for token in range(own.n_vocab)]
    for path in sorted((data_folder / "text").glob("*.txt")):
        text = path.read_text(encoding="utf-8")[:1_000_000]
        assert own.encode(text) == reference.encode(text), path.name
    for text in source.with_suffix(".gguf.inp").read_text("utf-8").split("__ggml_vocab_test__"):
        assert own.encode(text) == reference.encode(text), text
