"""Acceptance of drafted tokens, learned one by one."""

from __future__ import annotations

import random
from math import exp

import pytest

from edgespec.pace.head import AcceptanceHead, features, log_odds
from edgespec.pace.source import (
    Prices,
    Source,
    best_drafted,
    best_to_come,
    best_with,
    goes_on,
    outcomes,
)


def logistic(x: float) -> float:
    return 1 / (1 + exp(-x))


def taught(head: AcceptanceHead, n: int, p, seed: int = 0) -> AcceptanceHead:
    rng = random.Random(seed)
    for _ in range(n):
        z = rng.uniform(-3, 3)
        head.learn(0, z, rng.random() < p(z))
    return head


def test_confidence_that_promises_too_much_is_corrected():
    head, seen = AcceptanceHead(0.0, 1.0), list[list[float]]()
    for seed in range(40):
        taught(head, 100, lambda z: logistic(0.4 * z - 0.5), seed)
        seen.append([head.p(0, z) for z in (-3, -1, 0, 1, 3)])
    for z, found in zip((-3, -1, 0, 1, 3), zip(*seen[10:], strict=True), strict=True):
        assert sum(found) / 30 == pytest.approx(logistic(0.4 * z - 0.5), abs=0.06)


@pytest.mark.parametrize("before, after", [(0.8, 0.1), (0.1, 0.8)])
def test_a_change_is_noticed_within_20_tokens(before: float, after: float):
    head = taught(AcceptanceHead(0.5, 0.0), 400, lambda z: before)
    assert head.p(0) == pytest.approx(before, abs=0.12)
    taught(head, 20, lambda z: after, seed=1)
    assert head.p(0) == pytest.approx(after, abs=0.25)


def test_a_chance_teaches_what_as_many_tokens_would():
    one = taught(AcceptanceHead(0.5, 0.0), 400, lambda z: 0.3)
    other = AcceptanceHead(0.5, 0.0)
    for _ in range(400):
        other.learn(0, 0.0, 0.3)
    assert other.p(0) == pytest.approx(0.3, abs=0.02)
    assert one.p(0) == pytest.approx(other.p(0), abs=0.1)


def test_chances_are_believed_sooner_than_as_many_draws():
    """Once it was seen how little they vary: 0.2 about their mean where draws do by 0.45."""
    rng, seen = random.Random(0), AcceptanceHead(0.5, 0.0)
    drawn = [AcceptanceHead(0.5, 0.0) for _ in range(200)]
    for _ in range(12):
        seen.learn(0, 0.0, 0.2)
        for head in drawn:
            head.learn(0, 0.0, rng.random() < 0.2)
    assert seen.p(0) < sum(head.p(0) for head in drawn) / len(drawn) - 0.03


def test_chances_that_are_all_or_nothing_count_no_more_than_draws():
    """Where most are 0 and the others 0.95 the mean is learned, not that of the others."""
    rng, head = random.Random(0), AcceptanceHead(0.5, 0.0)
    seen = list[float]()
    for i in range(2000):
        head.learn(0, 0.0, 0.95 if rng.random() < 0.3 else 0.0)
        seen += [head.p(0)] if i >= 200 else []
    assert sum(seen) / len(seen) == pytest.approx(0.285, abs=0.04)


def test_positions_differ_once_they_were_seen_to():
    head, rng = AcceptanceHead(0.5, 0.0), random.Random(0)
    for _ in range(600):
        head.learn(0, 0.0, rng.random() < 0.8)
        head.learn(1, 0.0, rng.random() < 0.5)
    assert head.p(0) - head.p(1) > 0.15
    assert head.p(1) < head.p(7) < head.p(0)  # never seen: what all have in common


def test_after_a_long_text_another_begins_nearer_to_the_long_run():
    head = taught(AcceptanceHead(0.5, 0.0), 500, lambda z: 0.7)
    taught(head, 30, lambda z: 0.1)
    low = head.p(0)
    head.renew(1)
    assert head.p(0) == pytest.approx(low, abs=0.01)
    head.renew(64)
    assert low + 0.05 < head.p(0) < 0.7


def test_what_was_learned_is_saved_but_for_the_present_text():
    head = taught(AcceptanceHead(0.5, 0.3), 500, lambda z: 0.7)
    other = AcceptanceHead(0.0, 0.0)
    other.load(head.saved())
    assert other.p(0, 1.0) == pytest.approx(head.p(0, 1.0), abs=0.1)
    assert other.saved() == head.saved()
    for damaged in ({}, {"bias": 1}, {"bias": "x", "slope": 0, "own": []}, {"bias": 0, "slope": 0,
                    "own": [99.0] * 16}):  # fmt: skip
        with pytest.raises((KeyError, ValueError, TypeError)):
            other.load(damaged)


def test_confidences_are_read_token_by_token():
    assert features((0.5, 0.25, 0.25)) == pytest.approx([0.0, 0.0, log_odds(1.0)])
    assert features((0.0, 0.0)) == [-4.0, -4.0]


def test_a_draft_is_judged_by_its_confidence_and_what_comes_by_the_last():
    source = Source()
    rng = random.Random(0)
    for _ in range(800):  # sure tokens come in runs, and are right
        sure = rng.random() < 0.5
        said = (0.9, 0.81) if sure else (0.4, 0.16)
        hits = next((i for i in range(2) if rng.random() > (0.9 if sure else 0.3)), 2)
        source.learn(said, outcomes(min(hits + 1, 2), hits))
    assert source.survival((0.9,))[0] > 0.8 > 0.45 > source.survival((0.4,))[0]
    sure, unsure = (next(source.to_come(said, 1)) for said in ((0.9,), (0.4,)))
    assert sure > unsure  # a sure token is followed by another
    assert next(source.to_come((), 3)) == pytest.approx(0.6, abs=0.15)
    assert source.grown((0.9,)) == source.survival((0.9,))
    assert source.grown((0.9, 0.5)) == source.survival((0.9, 0.5))
    assert source.grown((0.4, 0.2, 0.1, 0.1)) == source.survival((0.4, 0.2, 0.1, 0.1))
    assert len(list(source.to_come((0.9,) * 4, 4))) == 1  # five is twice the two tested, and one


def test_a_second_is_worth_the_tokens_decoding_gives_in_it():
    costs = (1.0, 1.2, 2.0)
    assert best_drafted((0.8, 0.64), Prices(costs, 1.0)) == pytest.approx((1, 0.6, 0.8))
    assert best_drafted((0.8, 0.64), Prices(costs, 5.0))[0] == 0
    assert best_to_come((0.8, 0.8), Prices(costs, 1.0, 0.1)) == pytest.approx((1, 0.5, 0.8))
    assert best_to_come((0.8, 0.8), Prices(costs, 1.0, 0.7)) == pytest.approx((1, -0.1, 0.8))


def test_a_draft_goes_on_to_the_next_cheap_step():
    costs = (1.0, 1.1, 3.0, 3.0, 1.3)  # verifying 5 is cheaper than verifying 3
    survival, chances = (0.9,), (0.9, 0.9, 0.9)
    assert goes_on(survival, chances, Prices(costs, 1.0, 0.05))
    assert not goes_on(survival, chances[:2], Prices(costs, 1.0, 0.05))
    assert not goes_on(survival, chances, Prices(costs, 1.0, 1.0))


def test_a_width_that_holds_all_that_is_drafted_may_be_a_loss():
    prices = Prices((1.0, 2.0, 2.1, 4.0), 1.0, 0.1)
    assert best_with([0.2], [], prices) == (1, pytest.approx(0.2 - 1.0), 0.2)
    width, worth, expected = best_with([0.9], [0.9, 0.1], prices)
    assert width == 2
    assert expected == pytest.approx(0.9 + 0.81)
    assert worth == pytest.approx(expected - 1.1 - 0.1)  # one more is still to be drafted


def test_what_is_verified_whole_goes_on_from_a_width_that_is_a_loss():
    """Four tokens take less than three: two that are drawn already are worth a third."""
    prices = Prices((1.0, 1.53, 2.10, 1.62), 1.0, 0.02)
    assert not goes_on([0.4, 0.1], [0.5], prices)  # nothing of it would be verified
    assert goes_on([0.4, 0.1], [0.5], prices, whole=True)


def test_survival_of_another_draft_is_not_taken_for_this_ones():
    source = Source()
    for _ in range(2):
        for said in ((0.9, 0.9), (0.9, 0.9, 0.5), (0.2, 0.2), (0.2, 0.2, 0.1), (0.2, 0.2, 0.1)):
            assert source.grown(said) == source.survival(said)
