"""Files of adapters: whole versions or none, the last three, and clear words about the rest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from test_adapter import trained

from edgespec.adapt.adapter_file import (
    FORMAT,
    AdapterFiles,
    Day,
    Head,
    Saved,
    packed,
    read,
    unpacked,
)
from edgespec.adapt.learned import DAMAGED
from edgespec.errors import ModelFileError
from edgespec.files import PART

DRAFT, TARGET = "d" * 64, "7" * 64
DAYS = {"2026-01-31": Day(3, 768, 1.25, 1.5)}


def adapter(seed=1, rows=(2, 5, 9)):
    """Of float32, as they are in use."""
    return trained(list(rows), dtype=np.float32, seed=seed)


def same(first, second):
    """Whether two adapters are equal in all bits."""
    pairs = zip((first.rows, *first.parameters), (second.rows, *second.parameters), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.fixture
def files(tmp_path):
    """Of one pair, in a folder that is not there yet."""
    return AdapterFiles(tmp_path / "state", DRAFT, TARGET)


def test_what_was_saved_comes_back(files):
    path = files.save(adapter(), DAYS)
    found = files.load()
    assert same(found.adapter, adapter()) and found.head.days == DAYS
    assert (found.head.rank, found.head.n_rows, found.head.n_hidden) == (3, 3, 5)
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_adapter_of_no_rows_comes_back(files):
    files.save(adapter(rows=()), {})
    assert len(files.load().adapter.rows) == 0


def test_three_versions_are_kept_and_the_newest_counts(files):
    for seed in range(12):
        files.save(adapter(seed), DAYS)
    assert [path.name.split(".")[-2] for path in files.versions()] == [
        "00000012",
        "00000011",
        "00000010",
    ]
    assert same(files.load().adapter, adapter(11))
    assert files.remove() == 3 and files.load() is None


def test_versions_stay_within_their_budget(tmp_path):
    small = AdapterFiles(tmp_path, DRAFT, TARGET, budget_bytes=10)
    for seed in range(3):
        small.save(adapter(seed), {})
    assert len(small.versions()) == 1 and same(small.load().adapter, adapter(2))


def test_pairs_do_not_meet(files, tmp_path):
    files.save(adapter(), DAYS)
    assert AdapterFiles(tmp_path / "state", TARGET, DRAFT).load() is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_version_counts_as_none(files, damage, caplog):
    files.save(adapter(1), DAYS)
    path = files.save(adapter(2), DAYS)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(
        {"cut": data[:-9], "flipped": data, "empty": b"", "foreign": b"GGUF" * 9}[damage]
    )
    assert same(files.load().adapter, adapter(1))
    assert len(caplog.records) == 1
    assert "no adapter that can be used" in caplog.text and "starts without it" in caplog.text
    assert len(caplog.records[0].getMessage().splitlines()) == 1
    assert [p for p in path.parent.iterdir() if p.name.endswith(DAMAGED)]
    caplog.clear()
    assert files.load() and not caplog.records


def test_the_file_of_another_pair_is_not_taken(files, tmp_path, caplog):
    path = files.save(adapter(), DAYS)
    other = AdapterFiles(tmp_path / "state", TARGET, DRAFT)
    taken = other.save(adapter(), DAYS)
    taken.write_bytes(path.read_bytes())
    assert other.load() is None and "is of models dddddddd and 77777777" in caplog.text


def test_no_byte_of_a_file_can_change_unseen():
    head = Head(DRAFT, TARGET, 3, 3, 5, DAYS)
    data = packed(Saved(head, adapter()))
    assert unpacked(data).head == head
    for index in range(0, len(data), 7):
        wrong = bytearray(data)
        wrong[index] ^= 4
        with pytest.raises(ValueError, match=r"format|SHA-256"):
            unpacked(bytes(wrong))


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda one: replace(one, head=replace(one.head, rank=4)), "other sizes"),
        (lambda one: replace(one, head=replace(one.head, days={"x": 3})), "mapping"),
        (lambda one: replace(one, head=replace(one.head, days={"x": {"before": "y"}})), "brought"),
        (lambda one: one.adapter.rows.__setitem__(2, 10**9) or one, "rows up to"),
        (lambda one: one.adapter.up.fill(np.nan) or one, "finite"),
        (lambda one: replace(one, adapter=trained([2, 5, 9])), "arrays of"),
    ],
)
def test_a_whole_file_of_wrong_values_is_refused(change, why, tmp_path):
    path = tmp_path / "x.adapter"
    one = Saved(Head(DRAFT, TARGET, 3, 3, 5, {}), adapter())
    path.write_bytes(packed(change(one)))
    with pytest.raises(ModelFileError, match=why):
        read(path)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [(b"", "not a zip"), (b"PK nothing", "not a zip"), ("deflated", "compressed")],
)
def test_arrays_that_are_not_as_they_were_written_are_refused(arrays, why, tmp_path):
    if arrays == "deflated":  # a few bytes might be any size
        data = io.BytesIO()
        np.savez_compressed(data, rows=np.arange(9))
        arrays = data.getvalue()
    line = json.dumps(asdict(Head(DRAFT, TARGET, 3, 3, 5, {}))).encode()
    path = tmp_path / "x.adapter"
    for head in (line, b"[" * 100_000):
        body = head + b"\n" + arrays
        path.write_bytes(FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        with pytest.raises(ModelFileError, match=why if head is line else "no adapter"):
            read(path)


def test_old_parts_are_swept(files):
    path = files.save(adapter(), DAYS)
    old, young = (path.with_name(f"{path.name}.{n}{PART}") for n in ("aaaa", "bbbb"))
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (0, 0))
    files.save(adapter(), DAYS)
    assert young.exists() and not old.exists()


def test_a_head_keeps_the_latest_days(files):
    files.save(adapter(), {f"2026-{n:04}": Day(n) for n in range(500)})
    days = files.load().head.days
    assert len(days) == 366 and min(days) == "2026-0134" and days["2026-0499"] == Day(499)


@pytest.mark.parametrize("n", [12, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["heads", "rows", "prompts"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_who_is_killed_while_saving_leaves_what_is_whole(kind, n, tmp_path):
    """In a process of its own, which has no threads."""
    saver = Path(__file__).with_name("killed_saver.py")
    words = [sys.executable, str(saver), kind, str(tmp_path), str(n)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    n_kills, n_while_writing, n_found = map(int, done.stdout.split())
    assert n_kills == n and n_found > n // 40
    assert kind == "prompts" or n_while_writing >= n // 20  # those are added to the file itself
