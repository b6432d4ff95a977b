"""Every ordered pair of five real vocabularies: mappings, ledgers, bytes, over many documents."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import thorough
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_maker import vocabularies, walk

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.text.vocabulary import Vocabulary

NAMES = ("gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")
PAIRS = list(itertools.permutations(NAMES, 2))
N_DOCUMENTS, N_BYTES = thorough.of(2_000, 700), 250


@pytest.fixture(scope="module")
def sides(data_folder: Path) -> dict[str, Vocabulary]:
    found = {}
    for name in NAMES:
        tokenizer = LlamaCppTokenizer.open(data_folder / "vocab" / f"ggml-vocab-{name}.gguf")
        found[name] = Vocabulary(tokenizer, tokenizer.n_vocab)
    return found


@pytest.fixture(scope="module", params=PAIRS, ids="-to-".join)
def mapping(request: pytest.FixtureRequest, sides: dict[str, Vocabulary]) -> Mapping:
    ours, theirs = request.param
    return Mapping(sides[ours], sides[theirs])


@pytest.fixture(scope="module")
def texts(data_folder: Path) -> list[bytes]:
    """Every reference input, whole, and the first 250 bytes of many documents.

    Documents are cut to keep the 20 pairs within minutes; a cut can go through a character.
    """
    inputs: set[bytes] = set()
    for path in sorted((data_folder / "vocab").glob("*.inp")):
        inputs |= set(path.read_bytes().split(b"\n__ggml_vocab_test__\n"))
    assert len(inputs) > 40
    documents: list[bytes] = []
    for name, separator in (
        ("tinystories.txt", b"<|endoftext|>"),
        ("fairytaleqa_stories.txt", b"<|endoftext|>"),
        ("sgd_dialogues.txt", b"\n\n"),
    ):
        whole = (data_folder / "text" / name).read_bytes().split(separator)
        documents += [text.strip()[:N_BYTES] for text in whole if text.strip()]
    documents = random.Random(0).sample(documents, N_DOCUMENTS)
    return sorted(inputs) + documents


@pytest.mark.slow
def test_ledgers_close_after_random_cuts(mapping, texts):
    draft, target = mapping.draft, mapping.target
    n_told = 0

    def check(pieces: tuple[int, ...], token: int) -> None:
        nonlocal n_told
        n_told += 1
        assert 2 <= len(pieces) <= 8
        assert draft.spelling(pieces) == target.pieces[token]

    ledger = Ledger(mapping, on_token=check)
    rng = random.Random(0)
    for text in texts:
        walk(mapping, ledger, text, rng, n=1)
    assert ledger.n_syncs > 10 * N_DOCUMENTS
    assert ledger.n_full < 2 * len(texts)  # the first of a text, and where a cut left nothing
    assert n_told > 0 or set(draft.by_bytes) == set(target.by_bytes)


@pytest.mark.slow
def test_images_and_splits_spell_the_same(mapping):
    draft, target = mapping.draft, mapping.target
    tokens = np.flatnonzero(mapping.image >= 0)
    assert (mapping.preimage[mapping.image[tokens]] == tokens).all()
    assert len(tokens) == np.count_nonzero(mapping.preimage >= 0) > 15_000
    for token in tokens.tolist():
        assert draft.pieces[token] == target.pieces[mapping.image[token]]
    assert mapping.image[draft.roles["end_of_turn"]] == target.roles["end_of_turn"]
    assert mapping.splits == sorted(set(mapping.splits))
    for token, parts in zip(mapping.split_ids.tolist(), mapping.splits, strict=True):
        assert mapping.image[token] < 0
        assert 2 <= len(parts) <= 8
        assert target.spelling(parts) == draft.pieces[token]


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@given(vocabularies(), vocabularies(), st.text("ab é語\n", max_size=40), st.randoms())
def test_made_up_vocabularies_close_too(draft, target, text, rng):
    mapping = Mapping(draft, target)
    walk(mapping, Ledger(mapping), text.encode(), rng)
