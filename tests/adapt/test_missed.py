"""Which rows a trimmed head should grow: the tokens that are said most often, within a budget."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from edgespec.adapt.missed import FADING, FORMAT, Missed
from edgespec.adapt.seal import sealed

OWN = np.arange(10)


def missed(tmp_path: Path, budget: int = 2) -> Missed:
    return Missed(OWN, 32, budget=budget, path=tmp_path / "pair.rows")


def test_what_is_said_is_held_and_the_least_said_goes(tmp_path: Path) -> None:
    one = missed(tmp_path)
    assert one.said(3) == (None, None)  # a row of its own
    assert one.said(-1) == one.said(32) == (None, None)
    assert one.said(20) == (20, None)
    assert one.said(20) == (None, None)
    assert one.said(21) == (21, None)
    assert one.said(22) == (None, None)  # said as often as 21, which has the place
    assert one.said(22) == (22, 21)
    assert one.held == {20, 22}


def test_counts_fade(tmp_path: Path) -> None:
    one = missed(tmp_path)
    for _ in range(FADING):
        one.said(20)
        one.said(21)
    assert one.held == {20, 21}
    for _ in range(FADING + 1):  # more would be needed if nothing faded
        one.said(25)
    assert 25 in one.held


def test_rows_are_kept_and_known_again(tmp_path: Path) -> None:
    one = missed(tmp_path)
    for token in (20, 21, 20, 22, 21):
        one.said(token)
    one.save(at_least=6)
    assert not one.path.exists()
    one.save()
    assert stat.S_IMODE(one.path.stat().st_mode) == 0o600
    other = missed(tmp_path)
    assert other.held == {20, 21}
    assert other.said(22) == (None, None)
    assert other.said(22) == (22, 20)  # 20 and 21 were said twice each, 22 now three times
    assert missed(tmp_path, budget=1).held == {20}
    assert Missed(np.arange(21), 21, budget=2, path=one.path).held == set()


def rows(**changes: object) -> bytes:
    """A file of this pair's."""
    data = {"pair": "pair", "counts": {}, "held": []}
    return sealed(FORMAT, json.dumps(data | changes).encode())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not of this format"),
        (sealed(b"other ", b"{}"), "not of this format"),
        (
            b'{"format": "edgespec missed rows 1", "pair": "pair", "counts": {}, "held": []}',
            "not of",
        ),
        (rows().replace(b"[]", b"[1]"), "SHA-256 is another"),
        (rows()[:-1], "SHA-256 is another"),
        (sealed(FORMAT, b"{}"), "pair"),
        (sealed(FORMAT, b"[]"), "indices"),
        (rows(pair="other"), "rows of 'other', another pair"),
        (rows(counts={"20": -1}), "counts that are none"),
        (rows(counts={"20": 10**400}), "too large"),
        (rows(counts={"x": 1}), "invalid literal"),
        (rows(counts=[]), "items"),
        (sealed(FORMAT, rows().partition(b"\n")[2].replace(b"[]", b"[1e999]")), "infinity"),
        (sealed(FORMAT, b"[" * 100_000), ""),
    ],
)
def test_a_file_that_does_not_check_is_set_aside(
    data: bytes, why: str, tmp_path: Path, caplog
) -> None:
    (tmp_path / "pair.rows").write_bytes(data)
    assert missed(tmp_path).held == set()
    (line,) = caplog.messages
    assert why in line and line.endswith("missing rows are counted anew")
    assert [file.name for file in tmp_path.iterdir()] == ["pair.rows.damaged"]
    missed(tmp_path)
    assert len(caplog.records) == 1


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    one = Missed(OWN, 32, budget=2, path=tmp_path / "file" / "pair.rows")
    for _ in range(3):
        one.said(20)
        one.save()
    (line,) = [line for line in caplog.messages if "are not stored" in line]  # said once
    assert "expected a file to write" in line
