"""Examples: slots give the losses of whole rows; a ring in bounded memory; what is held out."""

from __future__ import annotations

import numpy as np
import pytest
from head_pair import HeadPair, taught

from edgespec.adapt.adapter import fresh
from edgespec.adapt.corrected import corrected
from edgespec.adapt.examples import Examples, is_held_out, slots
from edgespec.adapt.labels import Labels, labels
from edgespec.adapt.losses import LOSSES
from edgespec.errors import ShapeError, UsageError

PAIR = HeadPair()


def judged():
    """Hidden states, the drafter's logits and labels of all sorts, over columns of the head."""
    m, kept, rng = 8, 16, np.random.default_rng(4)
    hidden = PAIR.hidden(m, rng)
    found = PAIR.labels(hidden, rng, kept=kept)
    found.ids[0], found.probs[0] = -1, 0
    piece = np.full(m, -1)
    piece[[0, 1, 2]] = [found.drafted[0], found.ids[1, 3], 150]
    return (
        hidden,
        PAIR.drafted(hidden),
        Labels(found.ids, found.probs, piece, found.drafted, found.accepted),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_top", [0, 10, 500])
def test_slots_give_the_loss_of_whole_rows(name, n_top):
    _, logits, given = judged()
    kept = slots(logits, given, n_top=n_top)
    whole, few = LOSSES[name](logits, given), LOSSES[name](kept.base, kept.labels)
    assert np.allclose(few.loss, whole.loss, rtol=1e-4, atol=1e-5)
    at = kept.columns >= 0
    assert np.allclose(
        few.dz[:, :-1][at], np.take_along_axis(whole.dz, kept.columns, 1)[at], atol=1e-5
    )


def test_no_column_has_two_slots_and_the_slots_make_a_law():
    kept = slots(*judged()[1:], n_top=30)
    for line in kept.columns:
        used = line[line >= 0].tolist()
        assert len(used) == len(set(used)) >= 31
    assert np.exp(kept.base).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_where_only_slots_are_held_a_correction_is_exact():
    rng = np.random.default_rng(2)
    hidden = PAIR.hidden(1, rng)
    logits, given = PAIR.drafted(hidden), PAIR.labels(hidden, rng, kept=16)
    kept = slots(logits, given, n_top=40)
    adapter = fresh(kept.columns[kept.columns >= 0], PAIR.d, rank=4)
    adapter.up += 0.3
    examples = Examples(PAIR.d, kept=16, n_top=40)
    examples.add(0, hidden, logits, given)
    batch = examples.sample(1, np.random.default_rng(0))
    few = LOSSES["reverse-kl"](corrected(adapter, batch).z, batch.labels)
    adapter.correct(logits[0], hidden[0])
    whole = LOSSES["reverse-kl"](logits, given)
    assert few.loss == pytest.approx(whole.loss, rel=5e-3)


def test_memory_stays_within_its_budget_and_the_oldest_leave():
    examples = taught(PAIR, n_requests=30, budget_bytes=100_000)
    assert 90_000 < examples.n_bytes <= 100_000 and len(examples) < 30 * 32
    n_before = len(examples)
    seen = examples.sample(10_000, np.random.default_rng(0)).request
    assert min(seen) > 20 and max(seen) == 29 and len(examples) == n_before


def test_what_is_held_out_comes_in_the_order_of_the_text():
    examples = taught(PAIR, n_requests=30, budget_bytes=400_000, held_out=2)
    held = examples.held_out().request
    assert len(examples) % 32 and len(set(held)) > 3  # the ring is full and ends within a request
    assert (np.diff(held) >= 0).all()


def test_what_was_labelled_later_comes_in_its_place():
    hidden, logits, given = judged()
    examples = Examples(PAIR.d, kept=16, n_top=8, held_out=1)
    for request, place in ((1, 4), (0, 20), (1, 0), (0, 12)):  # left for later, then labelled
        examples.add(request, hidden[:1] + place, logits[:1], labels_of(given, 1), place=place)
    for batch in (examples.held_out(), examples.newest(4)):
        assert batch.request.tolist() == [0, 0, 1, 1]
        added = batch.hidden[:, 0] - hidden[0, 0]
        np.testing.assert_allclose(added, [12, 20, 0, 4], atol=0.02)
    assert examples.newest(2).request.tolist() == [0, 1]


def labels_of(given, m):
    parts = (given.ids, given.probs, given.piece, given.drafted, given.accepted)
    return Labels(*(part[:m] for part in parts))


def test_whole_requests_are_held_out():
    examples = taught(PAIR, n_requests=16, held_out=4)
    learned = set(examples.sample(10_000, np.random.default_rng(0)).request.tolist())
    held = examples.held_out().request.tolist()
    assert set(held) == {3, 7, 11, 15} and learned == set(range(16)) - set(held)
    assert held == sorted(held) and len(held) == 4 * 32


def test_eight_of_the_first_sixteen_are_held_out_then_every_eighth():
    held = [n for n in range(48) if is_held_out(n)]
    assert held == [1, 3, 5, 7, 9, 11, 13, 15, 23, 31, 39, 47]


def test_what_comes_back_is_what_was_added():
    hidden, logits, given = judged()
    examples = Examples(PAIR.d, kept=20, n_top=8)
    examples.add(5, hidden, logits, given)
    found = examples.sample(100, np.random.default_rng(0))
    order = np.argsort([np.abs(hidden - h).sum(axis=1).argmin() for h in found.hidden])
    assert np.allclose(found.hidden[order], hidden, atol=1e-2)
    columns = found.columns[order]
    assert np.array_equal(columns[:, :16], given.ids)
    assert np.array_equal(found.labels.probs[order][:, :16], given.probs)
    for slot, column in ((found.labels.piece, given.piece), (found.labels.drafted, given.drafted)):
        at = np.take_along_axis(columns, slot[order][:, None], 1)[:, 0]
        assert np.array_equal(np.where(slot[order] < 0, -1, at), column)
    assert np.array_equal(found.labels.accepted[order], given.accepted)


def test_samples_follow_from_their_seed():
    examples = taught(PAIR, n_requests=4)
    first, again = (examples.sample(9, np.random.default_rng(3)).base for _ in range(2))
    assert np.array_equal(first, again)


def test_no_examples_give_an_empty_batch():
    examples = Examples(4)
    assert len(examples) == len(examples.held_out()) == 0
    assert len(examples.sample(8, np.random.default_rng(0))) == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="10 bytes for examples: expected"):
        Examples(8, budget_bytes=10)
    with pytest.raises(ShapeError, match=r"expected at most 2 columns and \[1, 8\]"):
        given = labels(np.zeros((1, 3), int), np.zeros((1, 3)))
        Examples(8, kept=2).add(0, np.zeros((1, 8)), np.zeros((1, 9)), given)
    with pytest.raises(ShapeError, match=r"\(2, 9\): expected \[1, V\]"):
        slots(np.zeros((2, 9)), labels(np.zeros((1, 3), int), np.zeros((1, 3))))
