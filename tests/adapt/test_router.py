"""Which topic a prompt is of: hashed features, a router that learns, and what is strange."""

from __future__ import annotations

import numpy as np

from edgespec.adapt.answer import Answer
from edgespec.adapt.examples import Owner
from edgespec.adapt.familiar import AGO, LATEST, YOUNG, Familiar
from edgespec.adapt.features import BUCKETS, SEEN, features
from edgespec.adapt.router import DOUBT, Router, after

FRAME = [1, 7, 7, 3]  # of a template


def prompt(kind: int, rng: np.random.Generator, n: int = 20) -> list[int]:
    """Twenty tokens, most of them of 60 that prompts of a kind are made of, some of any."""
    own, any_ = 1000 * kind + rng.integers(0, 60, n), rng.integers(5000, 9000, n)
    return FRAME + np.where(rng.random(n) < 0.7, own, any_).tolist()


def test_features_are_of_tokens_and_of_neighbours_at_the_end():
    assert len(features([])) == 0
    one = features([4, 5, 6])
    assert one.tolist() == sorted(set(one.tolist())) and len(one) == 5
    assert set(features([4, 5])) < set(one)
    assert set(one) != set(features([6, 5, 4]))
    assert (features([9] * 50 + list(range(SEEN))) == features(range(SEEN))).all()
    assert features(range(10**5, 10**5 + SEEN)).max() < BUCKETS


def test_a_router_learns_two_kinds_of_prompts_within_some_tens_of_answers():
    rng, router, nothing, topics = np.random.default_rng(1), Router(4), np.zeros(2), [0, 2]
    hits = []
    for _ in range(60):
        kind = int(rng.integers(2))
        of = features(prompt(kind, rng))
        law = router.law(of, topics, nothing)
        hits.append(int(law.argmax()) == kind)
        right = rng.binomial(40, [0.5 - 0.2 * kind, 0.3 + 0.2 * kind])  # of each topic's head
        router.learn(of, topics, law, right)
    assert np.mean(hits[-30:]) > 0.9
    assert not router.weights[[1, 3]].any()


def test_heads_that_are_alike_leave_the_router_as_it_is():
    router, of = Router(2), features([1, 2, 3])
    law = router.law(of, [0, 1], np.array([0.3, 0.2]))
    assert 0.8 < law[0] < 1 - DOUBT
    np.testing.assert_allclose(after(law, np.array([9.0, 9.0])), law)
    router.learn(of, [0, 1], law, np.array([9.0, 9.0]))
    assert not router.weights.any()


def test_what_is_sure_is_unlearned_as_soon_as_what_is_not():
    router, of = Router(2), features([1, 2, 3])
    likeness, n = np.array([0.9, 0.1]), 0
    while (law := router.law(of, [0, 1], likeness)).argmax() == 0 and n < 99:
        router.learn(of, [0, 1], law, np.array([5.0, 8.0]))
        n += 1
    assert 4 <= n <= 20


def asked(request: int, kind: int, rng: np.random.Generator) -> Answer:
    """An answer that begins."""
    return Answer(request, features(prompt(kind, rng)), 0, Owner(0, False))


def knows(known: Familiar, kind: int, rng: np.random.Generator) -> bool:
    """Whether a prompt of a kind is like those of topic 0."""
    of = features(prompt(kind, rng))
    return bool(known.likeness(of, [0])[0] > known.expected(of, [0]))


def met(known: Familiar, kind: int, n: int, rng: np.random.Generator, topic: int = 0) -> None:
    """Some prompts of a kind."""
    for _ in range(n):
        of = features(prompt(kind, rng))
        known.meet(of)
        known.add(of, topic)


def test_prompts_of_another_kind_are_strange_and_soon_a_kind():
    rng, known = np.random.default_rng(2), Familiar(4)
    met(known, 0, 30, rng)
    own, other = ([knows(known, kind, rng) for _ in range(50)] for kind in range(2))
    assert np.mean(own) > 0.9 and np.mean(other) < 0.1
    found = [known.are_a_kind(asked(i, 1, rng), [0]) for i in range(20)]
    assert found == [False] * 3 + [True] * 17
    assert len(known.strangers) == LATEST


def test_strangers_that_have_nothing_in_common_are_no_kind():
    rng, known = np.random.default_rng(3), Familiar(4)
    met(known, 0, 30, rng)
    assert not any(known.are_a_kind(asked(kind, kind, rng), [0]) for kind in range(1, 5))


def test_strangers_that_came_long_ago_are_forgotten():
    rng, known = np.random.default_rng(5), Familiar(4)
    met(known, 0, 30, rng)
    assert not any(known.are_a_kind(asked(AGO * i, 1, rng), [0]) for i in range(9))


def test_a_young_topic_takes_what_comes():
    rng, known = np.random.default_rng(4), Familiar(4)
    assert knows(known, 1, rng)
    met(known, 0, YOUNG - 1, rng)
    assert knows(known, 1, rng)
    met(known, 0, 1, rng)
    assert not knows(known, 1, rng)
