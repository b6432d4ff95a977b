"""The ledger: both sides spell the same bytes whatever the target's ids do."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_maker import GreedyTokenizer, visible, vocabularies, vocabulary, walk

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.drafters.bridges.ledger import WINDOW, Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.errors import TokenizerError
from edgespec.text.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[3]
BOS, EOS, END, WORD = 256, 257, 258, 259  # as `vocabulary` numbers them


@st.composite
def conversations(draw: st.DrawFn, n_vocab: int) -> list[list[int]]:
    """Contexts that grow, are cut back and change, of any of the target's ids."""
    ids = st.lists(st.integers(0, n_vocab - 1), max_size=8)
    context: list[int] = []
    out = []
    for _ in range(draw(st.integers(1, 6))):
        context = context[: draw(st.integers(0, len(context)))] if draw(st.booleans()) else context
        context = context + draw(ids)
        out.append(context)
    return out


def crossed(mapping: Mapping, context: list[int]) -> list[bytes | int]:
    """What the drafter's side must show for a context: its BOS first, in any case."""
    draft, target = mapping.draft, mapping.target
    crossing = set(np.flatnonzero(mapping.preimage >= 0).tolist())
    shown = visible(target, context, crossing)
    shown = [int(mapping.preimage[one]) if isinstance(one, int) else one for one in shown]
    bos = draft.roles.get("bos")
    begins = context[:1] == [target.roles.get("bos")]
    return shown if bos is None or begins else [b"", bos, *shown]


@settings(max_examples=50, deadline=None)
@given(draft=vocabularies(), target=vocabularies(), data=st.data())
def test_both_sides_spell_the_same_whatever_the_target_says(draft, target, data):
    mapping = Mapping(draft, target)
    told: list[tuple[tuple[int, ...], int]] = []
    ledger = Ledger(mapping, on_token=lambda pieces, token: told.append((pieces, token)))
    for context in data.draw(conversations(target.n_vocab)):
        ids = list(ledger.sync(context))
        theirs, ours = ledger.check()
        assert theirs == ours == ledger.spelled
        assert visible(draft, ids, set(range(draft.n_vocab))) == crossed(mapping, context)
        assert all(0 <= token < draft.n_vocab for token in ids)
        fresh = Ledger(mapping)
        fresh.sync(context)
        assert fresh.spelled == ledger.spelled
    for pieces, token in told:
        assert 2 <= len(pieces) <= 8
        assert draft.spelling(pieces) == target.pieces[token]


@settings(max_examples=25, deadline=None)
@given(vocabularies(), vocabularies(), st.text("ab é語\n", max_size=40), st.randoms())
def test_the_ledger_closes_after_every_round_of_a_walk(draft, target, text, rng):
    mapping = Mapping(draft, target)
    walk(mapping, Ledger(mapping), text.encode(), rng)


@pytest.mark.slow
def test_real_vocabularies_close_too(data_folder):
    spm, gpt2 = (
        opened(data_folder / "vocab" / f"ggml-vocab-{name}.gguf") for name in ("llama-spm", "gpt-2")
    )
    foreign = opened(ROOT / "models" / "demo" / "foreign.gguf")
    inputs = (data_folder / "vocab" / "ggml-vocab-gpt-2.gguf.inp").read_bytes()
    texts = inputs.split(b"\n__ggml_vocab_test__\n")
    tales = (data_folder / "text" / "fairytaleqa_stories.txt").read_bytes()
    texts += [tales[at : at + 300] for at in range(0, 60_000, 3_000)]  # cut anywhere
    rng = random.Random(4)
    for pair in ((spm, gpt2), (foreign, spm)):
        mapping = Mapping(*pair)
        ledger = Ledger(mapping)
        for text in texts:
            walk(mapping, ledger, text, rng, n=1)


def opened(path: Path) -> Vocabulary:
    tokenizer = LlamaCppTokenizer.open(path)
    return Vocabulary(tokenizer, tokenizer.n_vocab)


@pytest.mark.parametrize(
    "text", ["the cat sat " * 400, "語" * 2000, " " * 5000, "x" * 5000], ids=lambda t: t[:3]
)
def test_a_grown_context_costs_a_window(text):
    draft, target = vocabulary("the", " cat", "語", " " * 30, "xxx"), vocabulary("語")
    ledger = Ledger(Mapping(draft, target))
    context = target.encode(text.encode())
    ledger.sync(context[:-3])
    draft.tokenizer.texts.clear()
    ids = ledger.sync(context)
    assert sum(len(asked.encode()) for asked in draft.tokenizer.texts) < WINDOW + 40
    assert ids[1:] == draft.encode(text.encode())
    assert (ledger.n_syncs, ledger.n_full) == (2, 1)


def test_the_drafters_ids_are_as_if_the_whole_text_were_spelled_at_once():
    draft, target = (
        vocabulary("believ", "able", "unbel", "é", " a", "  "),
        vocabulary("un", "ie", "ble"),
    )
    ledger = Ledger(Mapping(draft, target))
    text = "it is unbelievable é\n a  unbelieved unbel".encode()
    context = target.encode(text)
    for n in range(len(context) + 1):
        ids = ledger.sync(context[:n])
        assert ids == [BOS, *draft.encode(target.spelling(context[:n]))]


def test_half_a_character_is_spelled_by_bytes_until_it_is_whole():
    draft, target = vocabulary("語"), vocabulary()
    ledger = Ledger(Mapping(draft, target))
    a, b, c = "語".encode()
    assert ledger.sync([BOS, a]) == [BOS, a]
    assert ledger.sync([BOS, a, b]) == [BOS, a, b]
    assert ledger.sync([BOS, a, b, c]) == [BOS, WORD]


@pytest.mark.parametrize(
    ("theirs", "ours", "context", "expected"),
    [  # 0x20 is the space's id, WORD that of " hi"
        (False, False, [BOS, 0x68], [BOS, 0x68]),
        (True, False, [BOS, WORD], [BOS, 0x68, 0x69]),
        (True, False, [BOS, 0x20, WORD], [BOS, WORD]),
        (True, False, [BOS, 0x0A, WORD], [BOS, 0x0A, WORD]),
        (True, False, [BOS, 0x68, END, WORD, WORD], [BOS, 0x68, END, 0x68, 0x69, WORD]),
        (False, True, [BOS, 0x68, 0x69], [BOS, WORD]),
        (False, True, [BOS, 0x0A], [BOS, 0x20, 0x0A]),
        (False, True, [BOS, 0x0A, END], [BOS, 0x20, 0x0A, END]),
        (False, True, [BOS, END, 0x68, 0x69, END], [BOS, END, WORD, END]),
        (True, True, [BOS, WORD, WORD], [BOS, WORD, WORD]),
        (True, True, [BOS, 0x68, END, WORD], [BOS, 0x68, END, WORD]),
    ],
)
def test_a_space_that_one_side_adds_is_no_text(theirs, ours, context, expected):
    draft, target = vocabulary(" hi", adds_space=ours), vocabulary(" hi", adds_space=theirs)
    ledger = Ledger(Mapping(draft, target))
    for n in range(len(context)):
        ledger.sync(context[:n])
    assert ledger.sync(context) == expected
    assert ledger.check() == (ledger.spelled, ledger.spelled)


def test_a_control_token_without_counterpart_ends_a_word_and_spells_nothing():
    draft, target = vocabulary("ab"), vocabulary("ab")
    no_end = Vocabulary(draft.tokenizer, draft.n_vocab)  # its eos is its end of turn
    ledger = Ledger(Mapping(no_end, target))
    assert ledger.sync([BOS, 0x61, EOS, 0x62]) == [BOS, 0x61, 0x62]
    assert ledger.sync([BOS, 0x61, END, 0x62]) == [BOS, 0x61, EOS, 0x62]
    assert ledger.sync([BOS, 0x61, 0x62]) == [BOS, WORD]


def test_a_control_token_leaves_both_sides_at_once():
    ledger = Ledger(Mapping(vocabulary(), vocabulary()))
    for context in ([BOS, *b"a b", END], [BOS, *b"a b", *b" c"], [BOS, END, *b" c"], [BOS, *b" c"]):
        assert ledger.sync(context) == context


def test_the_drafters_bos_comes_first_and_once():
    mapping = Mapping(vocabulary(), vocabulary())
    ledger = Ledger(mapping)
    assert ledger.sync([]) == [BOS]
    assert ledger.sync([BOS]) == [BOS]
    assert ledger.sync([BOS, 0x61, BOS]) == [BOS, 0x61, BOS]
    assert ledger.sync([0x61]) == [BOS, 0x61]


def test_an_anchor_stands_for_the_prompt_in_the_drafters_own_words():
    draft, target = vocabulary("ab", adds_space=True), vocabulary("ab", " a")
    ledger = Ledger(Mapping(draft, target))
    prompt = [BOS, *b"user:"]
    ledger.anchor(prompt, [BOS, *b"Q"])
    assert ledger.sync(prompt) == [BOS, *b"Q"]
    assert ledger.sync([*prompt, 0x61]) == [BOS, *b"Qa"]
    assert ledger.sync([*prompt, 0x61, 0x62]) == [BOS, *b"Q", WORD]  # no space: no text opens here
    assert ledger.spelled == b"ab"
    ledger.anchor(list(prompt), [BOS, *b"Q"])
    assert ledger.sync([*prompt, 0x61, 0x62]) == [BOS, *b"Q", WORD]
    assert ledger.n_full == 1
    ledger.anchor(prompt, [BOS, *b"Q", END])
    assert ledger.sync([*prompt, 0x61]) == [BOS, *b"Q", END, *b" a"]
    assert ledger.sync([BOS, *b"use"]) == [BOS, *b" use"]  # a context that begins otherwise
    assert ledger.sync([*prompt, 0x62]) == [BOS, *b"Q", END, *b" b"]
    ledger.anchor([], [])
    assert ledger.sync([*prompt, 0x62]) == [BOS, *b" user:b"]
    ledger.anchor([0x61], [END])
    assert ledger.sync([BOS, 0x62]) == [BOS, *b" b"]
    assert ledger.sync([0x61, 0x62]) == [END, *b" b"]


def test_a_change_far_back_costs_what_follows_it():
    draft, target = vocabulary(), vocabulary()
    ledger = Ledger(Mapping(draft, target))
    text = b"one two three " * 50
    ledger.sync([BOS, *text])
    draft.tokenizer.texts.clear()
    changed = [BOS, *text[:600], *b"four five"]
    assert ledger.sync(changed) == changed
    assert sum(map(len, draft.tokenizer.texts)) < 30
    assert ledger.sync([*b"other"]) == [BOS, *b"other"]
    assert (ledger.n_syncs, ledger.n_full) == (3, 2)


def told(draft: Vocabulary, target: Vocabulary, contexts: list[list[int]]) -> list[object]:
    """What a ledger tells of these contexts, pieces and token as texts."""
    out: list[object] = []

    def note(pieces: tuple[int, ...], token: int) -> None:
        out.append(([draft.pieces[piece] for piece in pieces], target.pieces[token]))

    ledger = Ledger(Mapping(draft, target), on_token=note)
    for context in contexts:
        ledger.sync(context)
    return out


def test_tokens_of_several_pieces_are_told_once_when_they_are_settled():
    draft, target = vocabulary(" c", "at"), vocabulary(" cat", " dog", "one")
    cat, dog, one = WORD, WORD + 1, WORD + 2
    contexts = [[BOS, one, cat], [BOS, one, cat, dog], [BOS, one, cat, dog, EOS, dog]]
    first = ([b"o", b"n", b"e"], b"one")
    second = ([b" c", b"at"], b" cat")
    third = ([b" ", b"d", b"o", b"g"], b" dog")
    assert told(draft, target, contexts[:1]) == [first]  # more letters may follow " cat"
    assert told(draft, target, contexts[:2]) == [first, second]
    assert told(draft, target, contexts[:2] * 2) == [first, second]  # the same " cat"
    assert told(draft, target, [*contexts[:2], [BOS], contexts[1]]) == [first, second] * 2
    assert told(draft, target, contexts) == [first, second, third]
    assert told(draft, target, contexts[-1:]) == [first, second, third]


def test_tokens_that_are_no_n_grams_are_not_told():
    draft = vocabulary("at", "t ", " o", "ne")
    target = vocabulary("cat", "at", "123456789", "12345678")
    cat, at, nine, eight = range(WORD, WORD + 4)
    assert told(draft, target, [[BOS, 0x63, at, 0x20, 0x63]]) == []  # one piece: an image
    assert told(draft, target, [[BOS, nine, 0x20, 0x63]]) == []  # too long
    assert len(told(draft, target, [[BOS, eight, 0x20, 0x63]])) == 1
    across = vocabulary("tx", "xc")
    assert told(across, target, [[BOS, cat, 0x78, END]]) == []  # ends inside of a piece
    assert told(across, target, [[BOS, 0x78, cat, END]]) == []  # begins inside of one


def test_the_first_token_of_a_run_is_not_told_where_only_one_side_adds_a_space():
    target, draft = vocabulary(" cat", adds_space=True), vocabulary("c", "at")
    assert told(draft, target, [[BOS, WORD, END]]) == []
    draft = vocabulary(" c", "at", adds_space=True)
    assert len(told(draft, target, [[BOS, WORD, END]])) == 1


def few_pieces() -> Vocabulary:
    pieces = [b"a", b"b", b" ", "語".encode(), b"ab"]
    return Vocabulary(GreedyTokenizer(pieces), len(pieces))


def test_what_the_drafter_cannot_spell_is_left_out_of_its_side():
    target = vocabulary("b\x01", "\x01 a")
    ledger = Ledger(Mapping(few_pieces(), target))
    assert ledger.sync([*b"ab"]) == [4]
    assert ledger.sync([*b"a\x01b\xff"]) == [4]
    assert ledger.sync([*b"a\x01b\xff", *"é!".encode()]) == [4]
    assert ledger.sync([*b"a\x01b\xff", *"é!".encode(), *b" a"]) == [4, 2, 0]
    assert (ledger.spelled, ledger.n_lost, ledger.n_full) == (b"ab a", 4, 1)
    assert ledger.sync([*b"a\x01b", 0x61]) == [4, 0]
    assert ledger.sync([*b"ab"]) == [4]
    assert ledger.check() == (b"ab", b"ab")


def test_half_a_character_that_the_drafter_has_whole_is_waited_for():
    few, (a, b, c) = few_pieces(), "語".encode()
    ledger = Ledger(Mapping(few, vocabulary()))
    for half in ([a], [a, b]):
        with pytest.raises(TokenizerError, match="byte 0xe8 has no token"):
            ledger.sync([0x61, *half])
    assert ledger.sync([0x61, a, b, c]) == [0, 3]
    assert ledger.sync([0x61, a, b, EOS, 0x62]) == [0, 1]  # it does not go on


def test_a_token_of_which_a_part_was_left_out_is_not_told():
    target = vocabulary("a b", "a\x01 b")
    assert told(few_pieces(), target, [[WORD, END]]) == [([b"a", b" ", b"b"], b"a b")]
    assert told(few_pieces(), target, [[WORD + 1, END]]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 262), max_size=6), max_size=6))
def test_leaving_out_does_not_depend_on_how_the_context_grew(rounds):
    mapping = Mapping(few_pieces(), vocabulary("語", "b\x01", "é a", "ab"))
    ledger, context = Ledger(mapping), list[int]()
    for new in rounds:
        context = context + new
        seen = []
        for one in (ledger, Ledger(mapping)):
            try:
                seen.append((list(one.sync(context)), one.spelled))
            except TokenizerError:
                seen.append(None)
        assert seen[0] == seen[1]


def test_contexts_may_be_any_sequence():
    ledger = Ledger(Mapping(vocabulary(), vocabulary()))
    assert ledger.sync((BOS, 0x61)) == [BOS, 0x61]
    assert ledger.sync(range(0x61, 0x63)) == [BOS, 0x61, 0x62]
