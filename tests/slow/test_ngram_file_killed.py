"""A cache saved in a loop by processes that are killed, a hundred times with each seed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_ngram_file import kill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_hundred_kills_never_leave_a_part_of_a_cache(tmp_path: Path, seed: int) -> None:
    n_kills, n_while_writing, n_found = kill(tmp_path, 100, seed)
    assert n_kills == 100
    assert n_while_writing > 5
    assert n_found > 5
