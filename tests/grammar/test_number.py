"""Ranges of numbers as grammars: exact, compared with the numbers themselves."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest

from edgespec.grammar.gbnf import Grammar
from edgespec.grammar.number import digits, numbers
from edgespec.grammar.schema import gbnf_of
from edgespec.grammar.walk import Walk


def reads(gbnf: str, texts: list[str]) -> list[str]:
    """Those of the texts that the grammar has."""
    walk = Walk(Grammar(gbnf))
    return [text for text in texts if walk.least(walk.read(walk.start, text.encode())) == 0]


@pytest.mark.parametrize(
    "low, high", [(0, 0), (7, 7), (0, 9), (3, 27), (98, 1004), (199, 200), (15, 62), (250, 871)]
)
def test_ranges_of_integers_are_exact(low, high):
    texts = [str(n) for n in range(1200)]
    assert reads(f"root ::= {digits(low, high)}", texts) == texts[low : high + 1]
    assert not reads(f"root ::= {digits(low, high)}", [f"0{high}"])


@pytest.mark.parametrize(
    "low, high",
    [
        (0, 0),
        (0, 99),
        (-250, 313),
        (-120, -7),
        (105, 120),
        (150, 159),
        (99, 300),
        (-1, 1),
        (40, 350),
    ],
)
def test_ranges_of_decimals_are_exact(low, high):
    """Every decimal of up to two places from -4 to 4, with and without zeros at its end."""
    texts = [f"{n / 100:.{places}f}" for places in (0, 1, 2) for n in range(-400, 401)]
    texts = sorted({text for text in texts if float(text) or text[0] != "-"})
    expected = [text for text in texts if low <= Fraction(text) * 100 <= high]
    assert reads(f"root ::= {numbers(low, high, 2)}", texts) == expected
    assert not reads(f"root ::= {numbers(low, high, 2)}", [".5", "1.", "01", "1.000", "-0", "-0.0"])


@pytest.mark.parametrize(
    "ends, good, bad",
    [
        ({"minimum": 0, "maximum": 1}, ["0", "0.5", "1", "1.00"], ["-0.1", "1.01", "2"]),
        ({"exclusiveMinimum": 0}, ["0.1", "0.00000000000001", "3", "40.5"], ["0", "0.0", "-1"]),
        (
            {"exclusiveMaximum": 5.25},
            ["5.2", "5.2499", "-99.5", "0"],
            ["5.25", "5.250", "5.3", "6"],
        ),
        (
            {"minimum": -0.125, "maximum": -0.1},
            ["-0.1", "-0.125", "-0.11"],
            ["-0.126", "-0.09", "0"],
        ),
        ({"minimum": 1e-20, "maximum": 1}, ["1", "0.5"], ["0", "0.0"]),
        ({"minimum": 0.1, "maximum": 0.1}, ["0.1", "0.100"], ["0.2", "0.11", "0"]),
        (
            {"minimum": 1.5, "maximum": 1000},
            ["1.5", "2", "999.99", "1000.0"],
            ["1", "1.4", "1000.1"],
        ),
    ],
)
def test_ranges_of_a_schema_are_exact(ends, good, bad):
    gbnf = gbnf_of(json.dumps({"type": "number", **ends}))
    assert reads(gbnf, [*good, *bad]) == good
