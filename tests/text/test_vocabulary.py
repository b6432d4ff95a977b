"""Vocabularies as bytes: what is asked for is what is spelled, whatever the tokenizer does."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hf_maker import write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_maker import GreedyTokenizer, vocabularies, vocabulary

from edgespec.backends.hf_tokenizer import HfTokenizer
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.errors import TokenizerError
from edgespec.text.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
HALF, REST = "語".encode()[:2], "語".encode()[2:]


@pytest.fixture(scope="module", params=["llama-spm", "gpt-2", "demo", "stories"])
def real(request: pytest.FixtureRequest) -> Vocabulary:
    if request.param == "demo":
        path = DEMO / "foreign.gguf"
    elif request.param == "stories":
        path = request.getfixturevalue("stories260k")
    else:
        folder = request.getfixturevalue("data_folder")
        path = folder / "vocab" / f"ggml-vocab-{request.param}.gguf"
    return opened(path)


@pytest.fixture(scope="module")
def spm(data_folder: Path) -> Vocabulary:
    return opened(data_folder / "vocab" / "ggml-vocab-llama-spm.gguf")


def opened(path: Path) -> Vocabulary:
    tokenizer = LlamaCppTokenizer.open(path)
    return Vocabulary(tokenizer, tokenizer.n_vocab)


def check_spelling(side: Vocabulary, data: bytes) -> None:
    """`data` comes back in the middle of a text and at its start."""
    for start in (False, True):
        ids = side.encode(data, start=start)
        added = b" " if start and side.adds_space and data else b""
        assert side.spelling(ids) == added + data
        assert not any(map(side.is_control, ids))
        assert all(0 <= token < side.n_vocab for token in ids)


@settings(max_examples=60, deadline=None)
@given(vocabularies(), st.text("ab é語\n", max_size=20), st.integers(0, 9), st.integers(0, 40))
def test_any_bytes_are_spelled_exactly(side, text, at, n):
    check_spelling(side, text.encode()[at : at + n])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
def test_real_vocabularies_spell_any_bytes(real, data):
    check_spelling(real, data)


@pytest.mark.slow
def test_the_reference_inputs_are_spelled_as_the_tokenizer_does(real, data_folder):
    inputs = (data_folder / "vocab" / "ggml-vocab-gpt-2.gguf.inp").read_text("utf-8")
    texts = inputs.split("\n__ggml_vocab_test__\n")
    assert len(texts) > 40
    for text in texts:
        check_spelling(real, text.encode())
        ids = real.tokenizer.encode(text)
        if real.spelling(ids)[real.adds_space :] == text.encode():
            assert real.encode(text.encode(), start=True) == ids


def test_the_first_space_is_known_by_what_the_tokenizer_does(spm, stories260k):
    assert spm.adds_space
    assert opened(stories260k).adds_space
    assert not opened(DEMO / "foreign.gguf").adds_space
    assert vocabulary(adds_space=True).adds_space
    assert not vocabulary().adds_space


def test_a_sentencepiece_vocabulary_spells_the_middle_of_a_text(stories260k):
    side = opened(stories260k)
    assert side.pieces[side.encode(b"a")[0]] == b"a"
    assert side.pieces[side.encode(b"a", start=True)[0]] == b" a"
    assert side.encode(b"a b") == side.encode(b"xa b")[1:]


def test_an_end_of_text_is_spelled_by_letters(spm):
    assert spm.is_control(2)
    assert not spm.is_control(3)
    assert spm.pieces[2] == b""
    assert [spm.pieces[i] for i in spm.encode(b"</s>")] == [b"</", b"s", b">"]


def test_of_two_tokens_for_the_same_bytes_the_tokenizers_own_counts(spm):
    text = spm.tokenizer.text
    assert text(spm.by_bytes[b"A"]) == "A"  # not <0x41>, which comes first
    assert text(spm.by_bytes[b" "]) == "▁"
    assert text(spm.by_bytes[b"\n"]) == "<0x0A>"
    assert text(spm.by_bytes[b"\xe8"]) == "<0xE8>"
    for piece, token in spm.by_bytes.items():
        assert spm.pieces[token] == piece
    assert set(spm.by_bytes) == set(spm.pieces) - {b""}


def test_half_a_character_is_spelled_by_the_longest_tokens_there_are():
    side = vocabulary("a語", HALF, REST + b"b")
    whole, half, rest = 259, 260, 261
    assert side.encode("a語b".encode()) == [whole, 0x62]
    assert side.encode(b"a" + HALF) == [0x61, half]
    assert side.encode(REST + b"ba") == [*REST, *b"ba"]  # what is UTF-8 is the tokenizer's matter
    assert side.encode(HALF + b"\xff" + b"a", start=True) == [half, 0xFF, 0x61]
    assert vocabulary(HALF, adds_space=True).encode(HALF, start=True) == [0x20, 259]
    assert rest not in side.encode(REST + b"ba")


def test_what_a_tokenizer_normalises_away_is_spelled_all_the_same():
    side = vocabulary("café", " no", normalise=lambda text: unicodedata.normalize("NFC", text))
    cafe, no = 259, 260
    data = ("cafe\u0301" + " no" * 40).encode()
    assert cafe in side.tokenizer.encode(data.decode())
    assert side.spelling(side.encode(data)) == data
    assert side.encode(data).count(no) > 35  # only what it gets wrong is not the tokenizer's
    drops = vocabulary(normalise=lambda text: text.replace("x", ""), adds_space=True)
    check_spelling(drops, b"axb" * 30)
    check_spelling(drops, b"x")


def test_a_guard_that_grows_together_with_the_text_is_replaced():
    side = vocabulary("\na", " a", adds_space=True)
    assert side.encode(b"ab") == [*b"ab"]
    assert side.encode(b" ab") == [260, 0x62]
    long = "a" * 40  # more than the longest match tries
    assert vocabulary("\na", long, adds_space=True).encode(long.encode()) == [260]
    assert vocabulary("\na", "\x01a", "\x02a", "|a", adds_space=True).encode(b"ab") == [*b"ab"]


def test_a_byte_without_token_is_an_error_that_names_it():
    side = Vocabulary(GreedyTokenizer([b"a", b"\xff\xfe"]), 2)
    assert side.encode(b"a\xff\xfea") == [0, 1, 0]
    for data in (b"ab", b"a\x80", "aé".encode()):
        with pytest.raises(TokenizerError, match=r"byte 0x\w\w has no token.*use another drafter"):
            side.encode(data)


def test_a_model_may_have_more_or_fewer_rows_than_its_tokenizer():
    tokenizer = GreedyTokenizer([b"a", b"b", b"ab"])
    more, fewer = Vocabulary(tokenizer, 5), Vocabulary(tokenizer, 2)
    assert more.pieces == [b"a", b"b", b"ab", b"", b""]
    assert more.encode(b"ab") == [2]
    assert fewer.encode(b"ab") == [0, 1]


def test_a_model_without_vocabulary_is_refused():
    with pytest.raises(TokenizerError, match=r"none of the 3 tokens.*use another model"):
        Vocabulary(GreedyTokenizer([b"", b"", b""]), 3)


def test_roles_are_those_the_vocabulary_has():
    tokenizer = GreedyTokenizer([b"a", b"", b""], control={1: "<s>", 2: "</s>"}, bos=1, eos=2)
    assert Vocabulary(tokenizer, 3).roles == {"bos": 1, "eos": 2, "end_of_turn": 2}
    assert Vocabulary(tokenizer, 3, end_of_turn=1).roles["end_of_turn"] == 1
    assert Vocabulary(tokenizer, 2).roles == {"bos": 1}
    assert Vocabulary(GreedyTokenizer([b"a"]), 1).roles == {}


def test_the_fingerprint_tells_vocabularies_apart():
    def fingerprint(*pieces: bytes, n: int = 4, turn: int | None = None, **options: object) -> str:
        return Vocabulary(GreedyTokenizer(pieces, **options), n, end_of_turn=turn).fingerprint

    end = {3: "</s>"}
    same = fingerprint(b"ab", b"c", b"", b"", control=end)
    assert same == fingerprint(b"ab", b"c", b"", b"", control=end)
    others = [
        fingerprint(b"a", b"bc", b"", b"", control=end),
        fingerprint(b"c", b"ab", b"", b"", control=end),
        fingerprint(b"ab", b"c", b"", b""),
        fingerprint(b"ab", b"c", b"", b"", control={2: "</s>"}),
        fingerprint(b"ab", b"c", b"", b"", control=end, n=5),
        fingerprint(b"ab", b"c", b"", b"", control=end, eos=3),
        fingerprint(b"ab", b"c", b"", b"", control=end, turn=3),
    ]
    assert len({same, *others}) == len(others) + 1
    assert len(same) == 64


def test_both_libraries_give_one_vocabulary(stories260k, tmp_path):
    own = opened(stories260k)
    other = Vocabulary(HfTokenizer(write_tokenizer(tmp_path, stories260k)), own.n_vocab)
    assert other.fingerprint == own.fingerprint
    assert (other.adds_space, other.by_bytes) == (own.adds_space, own.by_bytes)
    for data in (b"once upon", b" once", "語é ".encode(), HALF + b"x"):
        for start in (False, True):
            assert other.encode(data, start=start) == own.encode(data, start=start)
