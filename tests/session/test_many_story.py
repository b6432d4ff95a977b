"""Why an answer beside others is not drafted for: what is said is what decides."""

from __future__ import annotations

import re

import pytest

from edgespec.pace.goodput import MARGIN, widths
from edgespec.session.many.story import CrowdCosts, too_dear

LENGTHS = (1, 2, 3, 4)
DEAR = [1e-3 * (1 + 0.5 * n) for n in range(40)]


def said(n: int, rate: float, *, n_other: int = 0, step_s: float = 0.0, most: int = 40) -> str:
    prices = CrowdCosts(DEAR, n, n_other, (step_s, n * step_s), MARGIN)
    return too_dear(prices, rate, LENGTHS, most)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            said(1, 0.4),
            "drafting paused: verifying 2 tokens costs 1.5x one token here, acceptance 0.40 would "
            "need 0.53",
        ),
        (
            said(4, 0.9, n_other=2, step_s=1e-4),
            "drafting paused: verifying 2 tokens of each of 4 answers beside prompts that are read "
            "costs 1.6x one of each here and drafting them 0.1x, acceptance 0.90 may pay again, so "
            "it is tried again soon",
        ),
        (
            said(2, 0.7, step_s=1e-3),
            "drafting paused: verifying 2 tokens of one of 2 answers costs 1.3x one of each here "
            "and drafting them 0.7x, acceptance 0.70 would not pay even at 1.00",
        ),
    ],
)
def test_the_line_is_short_and_says_what_drafts_cost(line: str, expected: str) -> None:
    assert line == expected


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_acceptance_that_it_asks_for_is_where_drafting_begins(n: int) -> None:
    (need,) = re.findall("need ([0-9.]+)", said(n, 0.0))
    for a, begins in ((float(need) + 0.02, True), (float(need) - 0.02, False)):
        found = widths([[a, a**2, a**3, a**4]] * n, DEAR)
        assert any(found.ks) == begins
