"""How much of a phone is used: cores, heat, battery, memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgespec.errors import ModelFileError, UsageError
from edgespec.phone import device
from edgespec.phone.device import Limits, Place, check_fits, fast_threads, limits


@pytest.mark.parametrize(
    ("conditions", "threads", "draft_tokens"),
    [
        ({}, 0, None),
        ({"thermal": 1, "battery": 16}, 0, None),
        ({"thermal": 2}, 2, 4),
        ({"battery": 15}, 2, 4),
        ({"battery": 15, "charging": True}, 0, None),
        ({"saving": True}, 2, 4),
        ({"thermal": 3, "battery": 5}, 1, 0),
        ({"thermal": 6, "charging": True}, 1, 0),
    ],
)
def test_heat_and_an_empty_battery_leave_less(
    conditions: dict[str, Any], threads: int, draft_tokens: int | None
) -> None:
    found = limits(conditions, 4)
    assert (found.threads, found.draft_tokens) == (threads, draft_tokens)
    assert bool(found.why) == (found != Limits())


def test_one_thread_is_always_left() -> None:
    assert limits({"thermal": 2}, 1).threads == 1


@pytest.mark.parametrize("conditions", [{"thermal": "hot"}, {"weather": 3}])
def test_other_conditions_are_refused(conditions: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected thermal, battery, charging, saving"):
        limits(conditions, 4)


@pytest.mark.parametrize(
    ("speeds", "threads"),
    [
        ([1800, 1800, 1800, 1800, 2400, 2400, 2400, 3000], 4),
        ([1800, 1800, 1800, 1800, 1800, 1800, 2400, 2400], 2),
        ([2000, 2000], 3),
        ([], 3),
    ],
)
def test_cores_of_the_slowest_kind_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speeds: list[int], threads: int
) -> None:
    monkeypatch.setattr(device, "n_cores", lambda: 3)
    for i, speed in enumerate(speeds):
        folder = tmp_path / f"cpu{i}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{speed}\n")
    assert fast_threads(tmp_path) == threads


def test_models_larger_than_the_memory_are_refused(tmp_path: Path) -> None:
    target, draft = tmp_path / "target.gguf", tmp_path / "draft.gguf"
    target.write_bytes(b"x" * 3000)
    draft.write_bytes(b"x" * 2000)
    check_fits({"target": target, "drafter": None}, 3000)
    with pytest.raises(ModelFileError, match="target.gguf and draft.gguf take 5.00 kB: expected"):
        check_fits({"target": target, "drafter": draft}, 4999)


def test_the_apps_folders_are_where_libraries_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    Place().settle()
    assert os.environ == {}
    (tmp_path / "libonnxruntime.so").write_bytes(b"")
    Place(str(tmp_path / "files"), str(tmp_path)).settle()
    assert os.environ == {
        "EDGESPEC_HOME": str(tmp_path / "files" / "edgespec"),
        "LLAMA_CPP_LIB_PATH": str(tmp_path),
        "ORT_DYLIB_PATH": str(tmp_path / "libonnxruntime.so"),
    }
