"""Which rows a trimmed head keeps, and how many: rankings, sizes, coverage and the budget."""

from __future__ import annotations

import numpy as np
import pytest
from edgespec.export.trim import budget
from edgespec.export.trim import rows as trim_rows
from edgespec.export.trim.pair import PairRun, mbsu
from edgespec.export.trim.rows import Ranking, count, rank
from model_maker import DEMO

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.errors import UsageError
from edgespec.pace.cost import CostTable


@pytest.fixture(scope="module")
def tokenizer(stories260k):
    opened = LlamaCppTokenizer.open(stories260k)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def demo_tokenizer():
    opened = LlamaCppTokenizer.open(DEMO)
    yield opened
    opened.close()


# Which rows


def test_control_byte_digit_and_white_tokens_are_always_kept(demo_tokenizer):
    ranking = rank(demo_tokenizer, np.zeros(4096, np.int64))
    kept = ranking.ids(ranking.n_forced)
    pieces = {demo_tokenizer.piece(token) for token in kept.tolist()}
    assert {bytes([byte]) for byte in range(256)} <= pieces
    assert {str(digit).encode() for digit in range(10)} <= pieces
    assert set(range(5)) <= set(kept.tolist())  # the control tokens
    assert demo_tokenizer.stop_tokens <= set(kept.tolist())
    rest = [p for p in pieces if len(p) > 1]
    assert rest
    assert all(not p.strip() or p.strip().isdigit() for p in rest)


def test_byte_tokens_of_a_sentence_piece_vocabulary_are_always_kept(tokenizer):
    ranking = rank(tokenizer, np.zeros(512, np.int64))
    assert set(range(259)) <= set(ranking.order[: ranking.n_forced].tolist())


@pytest.mark.parametrize(
    ("piece", "spelling", "kept"),
    [
        (b"", b"<|im_start|>", True),
        (b"", b"<unused42>", False),
        (b"<unused42>", b"<unused42>", False),
        (b"", b"", False),
        (b"a", b"a", True),
        (b"\xe2", b"\xe2", True),
        (b"\xe2\x80", b"\xe2\x80", False),
        (b"2024", b"2024", True),
        (b" 7", b" 7", True),
        (b"7th", b"7th", False),
        (b"\n\n\n", b"\n\n\n", True),
        ("\u3000".encode(), b"", True),
        (b" the", b" the", False),
    ],
)
def test_what_is_always_kept(piece, spelling, kept):
    assert trim_rows.always_kept(piece, spelling) is kept


def test_more_used_tokens_stay_longer_and_of_equals_the_lower_id(tokenizer):
    free = rank(tokenizer, np.zeros(512, np.int64)).order[349:].tolist()
    assert free == sorted(free)
    often, seldom, other = free[50], free[20], free[30]
    counts = np.zeros(512, np.int64)
    counts[[often, seldom, other]] = 7, 3, 3
    ranking = rank(tokenizer, counts)
    assert ranking.n_forced == 349
    found = ranking.order[349:].tolist()
    assert found[:3] == [often, seldom, other]
    assert found[3:] == sorted(set(free) - {often, seldom, other})
    assert sorted(ranking.order.tolist()) == list(range(512))


def test_tokens_are_counted_as_the_vocabulary_writes_the_text(tokenizer):
    texts = ["Once upon a time", "a time"]
    expected = np.zeros(512, np.int64)
    for text in texts:
        for token in tokenizer.encode(text):
            expected[token] += 1
    assert count(tokenizer, texts, 512).tolist() == expected.tolist()
    assert expected.sum() > 5


class Letters:
    """A vocabulary of words that cannot write every byte; its last token is a control token."""

    bos = None
    stop_tokens = frozenset({0})

    def __init__(self, *words: bytes) -> None:
        self.words = (b"", *words, b"")

    def piece(self, token, *, special=False):
        names = {0: b"<end>", len(self.words) - 1: b"<extra>"}
        return names.get(token, self.words[token]) if special else self.words[token]

    @property
    def n(self):
        return len(self.words)


def test_what_the_target_cannot_write_goes_first_however_often_counted():
    drafter = Letters(b"cats", b"dogs", b"ab", b"zebra", b"cat")
    target = Letters(b"cat", b"s", b"ab", b"d", b"ogs")
    counts = np.array([0, 1, 1, 5, 100, 1, 9])
    ranking = rank(drafter, counts, target=(target, target.n))
    # Named alike: the control tokens. Then by counts; of "cats", "dogs" and "cat", all counted
    # once, the target's own comes first. It has no z.
    assert ranking.order.tolist() == [6, 0, 3, 5, 1, 2, 4]
    assert rank(drafter, counts).order.tolist()[2] == 4


def test_a_control_token_that_the_target_has_not_is_not_kept_for_it():
    drafter, target = Letters(b"ab", b"ba"), Letters(b"ab", b"ba")
    target.piece = lambda token, special=False: target.words[token] or b"<end>" * special
    ranking = rank(drafter, np.zeros(4, np.int64), target=(target, 4))
    assert ranking.order.tolist() == [0, 1, 2, 3]
    assert ranking.n_forced == 1


def test_ends_and_the_beginning_are_kept_whatever_they_look_like():
    words = Letters(b"ab", b"ba", b"cc")
    words.stop_tokens, words.bos = frozenset({2}), 3
    ranking = rank(words, np.zeros(5, np.int64), target=(Letters(), 2))
    assert set(ranking.order[: ranking.n_forced].tolist()) == {0, 2, 3, 4}


@pytest.mark.parametrize(
    ("piece", "expected"),
    [(b"abab", True), (b"abc", False), (b"cab", False), (b"aab", True), (b"b", False)],
)
def test_a_piece_is_writable_if_it_is_a_row_of_the_targets(piece, expected):
    assert trim_rows.writable(piece, {b"a", b"ab"}, 2) is expected


# How many


def ranking_of(counts, n_forced=0):
    counts = np.asarray(counts)
    return Ranking(np.argsort(-counts, kind="stable").astype(np.int32), n_forced, counts)


@pytest.mark.parametrize(
    ("n_vocab", "k", "size"),
    [(4096, 1000, 1024), (4096, 1024, 1024), (4096, 1, 32), (50257, 16384, 16401), (40, 35, 40),
     (50257, 50257, 50257), (50257, 50250, 50257)],
)  # fmt: skip
def test_as_many_rows_are_left_over_for_kernels_as_in_the_whole_head(n_vocab, k, size):
    found = ranking_of(np.zeros(n_vocab, int)).size(k)
    assert found == size
    assert (n_vocab - found) % trim_rows.GROUP == 0


def test_coverage_takes_the_fewest_rows_that_reach_it():
    counts = np.zeros(320, int)
    counts[:100] = 10
    ranking = ranking_of(counts)
    assert ranking.size_covering(0.32) == 32
    assert ranking.size_covering(0.321) == 64
    assert ranking.size_covering(1.0) == 128
    assert ranking.coverage(32, counts) == pytest.approx(0.32)
    assert ranking_of(counts, n_forced=70).size_covering(0.01) == 96


@pytest.mark.parametrize("k", [0, -1, 321, 9])
def test_a_size_that_cannot_be_is_refused(k):
    with pytest.raises(UsageError, match=rf"--keep is {k}: expected"):
        ranking_of(np.zeros(320, int), n_forced=10).size(k)


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_coverage_that_cannot_be_is_refused(share):
    with pytest.raises(UsageError, match=r"--coverage is .*: expected over 0, at most 1"):
        ranking_of([1, 2]).size_covering(share)


COSTS = CostTable(tuple(1.0 + 0.1 * n for n in range(9)))


def test_expected_speed_is_that_of_the_best_draft_length():
    # Two drafted at 0.2 s with acceptance 0.5: 1.75 tokens in 0.4 + 1.2 s.
    speed, length = budget.tokens_per_s(0.5, 0.2, COSTS)
    by_length = [sum(0.5**i for i in range(k + 1)) / (0.2 * k + 1 + 0.1 * k) for k in range(9)]
    assert speed == pytest.approx(max(by_length))
    assert length == by_length.index(max(by_length))
    assert budget.tokens_per_s(0.0, 0.2, COSTS) == (1.0, 0)


def test_the_budget_weighs_speed_against_coverage():
    steps = {4096: 0.30, 2048: 0.16, 1024: 0.09, 512: 0.06}
    covered = {4096: 1.0, 2048: 0.98, 1024: 0.93, 512: 0.5}
    found = [budget.candidate(k, steps[k], covered[k], 0.8, COSTS) for k in steps]
    assert budget.best(found).n_kept == 1024
    flat = [budget.candidate(k, 1.0, covered[k], 0.1, COSTS) for k in steps]
    assert budget.best(flat).n_kept == 4096  # drafting never pays: nothing is given up


def test_sizes_are_halved_down_to_what_is_always_kept():
    assert budget.sizes_to_try(343, 4096) == [4096, 2048, 1024, 512]
    assert budget.sizes_to_try(2000, 128256) == [128256, 64128, 32064, 16032, 8016, 4008, 2004]
    assert budget.sizes_to_try(400, 512) == [512]


def test_memory_bound_speed_up_is_tau_over_c_gamma_plus_1():
    run = PairRun(1, n_tokens=300, n_rounds=100, n_tested=250, n_accepted=200, outputs=())
    assert mbsu(run, 0.1, 5) == pytest.approx(3 / 1.5)
