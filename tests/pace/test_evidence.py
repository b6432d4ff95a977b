"""What is believed of acceptance by position, and how fast it is forgotten."""

from __future__ import annotations

import pytest

from edgespec.pace.evidence import Evidence, conditional


def test_evidence_leans_on_all_positions_until_it_has_its_own():
    evidence = Evidence(0.8)
    assert evidence.survival((1.0,) * 16) == pytest.approx([0.8, 0.64, 0.512, 0.4096])
    for _ in range(200):
        evidence.fade(0.98)
        evidence.learn((1.0,) * 16, 2, 1)  # first always right, second never
    first, second, *rest = evidence.survival((1.0,) * 16)
    assert first == pytest.approx(1.0, abs=0.05)
    assert second == pytest.approx(0.0, abs=0.05)
    assert len(rest) == 3  # twice the tested depth and one


def test_forgetting_keeps_the_rate_and_some_weight():
    evidence = Evidence(0.5)
    for _ in range(50):
        evidence.learn((1.0,), 1, 0)
    rate = evidence.rate
    evidence.fade(1e-9)
    assert evidence.rate == pytest.approx(rate)
    for _ in range(3):
        evidence.learn((1.0,), 1, 1)
    assert evidence.rate > 0.6


def test_confidence_splits_into_conditional_probabilities():
    assert conditional((0.5, 0.25, 0.25)) == pytest.approx([0.5, 0.5, 1.0])
    assert conditional((0.0, 0.0)) == [1e-3, 1e-3]
