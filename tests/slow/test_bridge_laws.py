"""Many more worlds than every day: bridges that claim to keep the target's law, and one that
does not."""

from __future__ import annotations

import statistics

import pytest
from bridge_worlds import KINDS, distance, first_tokens_law, plain_law, worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bridge_omnidraft import errors_of

from edgespec.drafters.bridges.text import TextBridge
from edgespec.drafters.bridges.tli import TliBridge

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("kind", [TliBridge, TextBridge])
@settings(max_examples=400, deadline=None)
@given(st.data(), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_the_law_of_the_first_tokens_is_the_targets(kind, trimmed, data, k, n_rounds, drawn):
    world = data.draw(worlds(trimmed=trimmed))
    bridge = kind(world.mapping, world.cache)
    law = first_tokens_law(world, bridge, k, n_rounds=n_rounds, drawn=drawn)
    assert distance(law, plain_law(world)) < 1e-9


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_three_drafted_tokens_keep_the_law_of_four(world):
    law = first_tokens_law(world, TliBridge(world.mapping, world.cache), 3, 4)
    assert distance(law, plain_law(world, 4)) < 1e-9


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_equation_2_is_off_for_every_kind_of_law(kind, k):
    errors = errors_of(kind, 50, k)
    print(f"{kind} k={k}: mean {statistics.mean(errors):.4f}, most {max(errors):.4f}")
    assert statistics.mean(errors) > 0.005
