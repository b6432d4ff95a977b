"""Split tokens kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from vocab_maker import vocabulary

from edgespec.drafters.bridges import split_file
from edgespec.drafters.bridges.mapping import Mapping

SPLITS = {3: (1, 2), 4: (1, 2, 3, 4, 5, 6, 7, 8)}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    split_file.save(SPLITS, tmp_path / "s.npy")
    assert split_file.load(tmp_path / "s.npy", 5, 9) == SPLITS


@pytest.mark.parametrize(("n_draft", "n_target"), [(4, 9), (5, 8)])
def test_ids_beyond_a_vocabulary_are_not_loaded(
    tmp_path: Path, n_draft: int, n_target: int
) -> None:
    split_file.save(SPLITS, tmp_path / "s.npy")
    assert split_file.load(tmp_path / "s.npy", n_draft, n_target) is None


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    split_file.save(SPLITS, tmp_path / "s.npy")
    (tmp_path / "s.npy").write_bytes((tmp_path / "s.npy").read_bytes()[:-9])
    assert split_file.load(tmp_path / "s.npy", 5, 9) is None


def test_a_mapping_reads_its_splits_where_they_were_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = vocabulary("abcd", "xy"), vocabulary("bc")
    found = Mapping(*sides, cache=tmp_path).splits
    assert found == Mapping(*sides).splits
    monkeypatch.setattr(Mapping, "_found_splits", lambda _: pytest.fail("found again"))
    assert Mapping(*sides, cache=tmp_path).splits == found
