"""ngram_file.py: what was saved comes back whole; anything else is set aside and never used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_maker import vocabulary

from edgespec.adapt.learned import files_of
from edgespec.drafters.bridges.ngram_file import (
    Head,
    files_in,
    load,
    packed,
    path_of,
    read,
    save,
    unpacked,
)
from edgespec.drafters.bridges.ngrams import NgramCache
from edgespec.errors import ModelFileError, UsageError

WORDS = ["ab", "abc", "the", "there", "he", "re", " a", "語"]
DRAFT, TARGET = vocabulary("th", "re"), vocabulary(*WORDS, adds_space=True)
OTHER = vocabulary("th", "er")
HEAD = Head(DRAFT.fingerprint, TARGET.fingerprint, DRAFT.n_vocab, TARGET.n_vocab)
ENTRIES = [((97, 98), 259, 7), ((259, 101), 261, 255), ((259, 101, 260), 262, 1)]
Entries = list[tuple[tuple[int, ...], int, int]]


def cache_of(entries: Entries) -> NgramCache:
    cache = NgramCache()
    for pieces, token, hits in entries:
        cache.learn(pieces, token, hits=hits)
    return cache


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = path_of(tmp_path, DRAFT, TARGET)
    save(cache_of(ENTRIES), path, DRAFT, TARGET)
    return path


def refused(path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """The one warning about a file of which nothing is used and which is set aside."""
    caplog.clear()
    data = path.read_bytes()
    with caplog.at_level(logging.INFO, "edgespec"):
        cache = load(path, DRAFT, TARGET)
    assert (len(cache), path.exists()) == (0, False)
    aside = path.with_name(path.name + ".damaged")
    assert aside.read_bytes() == data
    aside.unlink()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith(f": it is now {aside.name}; drafting starts without n-grams")
    return message


def test_what_was_learned_comes_back(saved: Path) -> None:
    cache = load(saved, DRAFT, TARGET)
    assert list(cache.entries()) == ENTRIES
    assert cache.longest((259, 101, 260), 0) == (3, 262, False)


def test_an_empty_cache_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(NgramCache(), tmp_path / "a", DRAFT, TARGET)
    assert len(load(tmp_path / "a", DRAFT, TARGET)) == 0
    assert not caplog.records
    assert (tmp_path / "a").exists()


IDS = st.integers(0, 2**31 - 2)
PIECES = st.lists(IDS, min_size=2, max_size=8).map(tuple)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.dictionaries(PIECES, st.tuples(IDS, st.integers(1, 255)), max_size=8), st.text())
def test_packing_keeps_everything(known: dict[tuple[int, ...], tuple[int, int]], name: str) -> None:
    entries = [(pieces, *entry) for pieces, entry in known.items()]
    head = Head("d", "t", 2**31 - 1, 2**31 - 1, name, "x", len(entries))
    assert unpacked(packed(head, entries)) == (head, entries)


def test_a_smaller_cache_takes_what_it_can(tmp_path: Path) -> None:
    draft = vocabulary(*(f"{i:03}" for i in range(400)))
    target = vocabulary(*(f"{i:03}." for i in range(400)))
    entries = [((259 + i, 46), 259 + i, 1 + i // 4) for i in range(400)]
    save(cache_of(entries), tmp_path / "a", draft, target)
    cache = load(tmp_path / "a", draft, target, max_bytes=2048)
    assert 20 < len(cache) < 100
    assert set(cache.entries()) < set(entries)


def test_there_may_be_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(load(tmp_path / "a" / "b", DRAFT, TARGET)) == 0
    assert not caplog.records


def test_the_name_of_the_file_says_whose_it_is(tmp_path: Path) -> None:
    names = {
        path_of(tmp_path, *pair) for pair in ((DRAFT, TARGET), (OTHER, TARGET), (DRAFT, OTHER))
    }
    assert len(names) == 3
    name = f"{DRAFT.fingerprint[:12]}-{TARGET.fingerprint[:12]}.bin"
    assert path_of(tmp_path, DRAFT, TARGET) == tmp_path / "ngrams" / name


def test_a_file_cut_at_any_length_is_set_aside(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = saved.read_bytes()
    for n in range(len(data)):
        saved.write_bytes(data[:n])
        refused(saved, caplog)


def test_a_file_with_any_byte_changed_is_set_aside(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, rng = saved.read_bytes(), random.Random(1)
    for at in range(len(data)):
        saved.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        refused(saved, caplog)


def test_another_pairs_file_is_set_aside(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    for pair in ((OTHER, TARGET), (DRAFT, OTHER), (TARGET, DRAFT)):
        save(cache_of([((97, 98), 99, 1)]), saved, *pair)
        assert "is of other tokenizers" in refused(saved, caplog)


def test_another_versions_file_is_set_aside(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = saved.read_bytes().replace(b"n-grams 1\n", b"n-grams 2\n")
    saved.write_bytes(data)
    assert "another version of EdgeSpec wrote it" in refused(saved, caplog)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (((97, 99), 259, 7), r"says that \(97, 99\) spell 259, which they do not"),
        (((97, 98), 256, 7), "which they do not"),
        (((97, 98), TARGET.n_vocab, 7), "an id is none of its vocabulary"),
        (((97, DRAFT.n_vocab), 259, 7), "an id is none of its vocabulary"),
        (((97, -1), 259, 7), "an id is none of its vocabulary"),
        (((97, 98), -1, 7), "an id is none of its vocabulary"),
        (((97, 98), 259, 0), "an entry was never seen"),
        (((97,), 97, 1), "too few or too many pieces"),
        (((97,) * 9, 97, 1), "too few or too many pieces"),
    ],
)
def test_what_cannot_be_is_noticed_behind_a_right_checksum(
    entry: tuple[tuple[int, ...], int, int],
    expected: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "a"
    path.write_bytes(packed(HEAD, [*ENTRIES, entry]))
    message = refused(path, caplog)
    assert re.search(expected, message), message


def test_pieces_of_no_entry_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = packed(HEAD, ENTRIES)[:-32] + bytes(4)
    (tmp_path / "a").write_bytes(data + hashlib.sha256(data).digest())
    assert "too few or too many pieces" in refused(tmp_path / "a", caplog)


def test_a_file_of_another_kind_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").write_bytes(b"GGUF\n\n")
    assert "it does not begin as one" in refused(tmp_path / "a", caplog)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "its head is"),
        (b"[" * 100_000, "its head is"),
        (b"{}", "its head is"),
        (b"\xff", "its head is"),
        (json.dumps(asdict(HEAD) | {"n_entries": -1}).encode(), "its head is"),
        (json.dumps(asdict(HEAD) | {"n_entries": 1.0}).encode(), "its head is"),
        (json.dumps(asdict(HEAD) | {"n_entries": True}).encode(), "its head is"),
        (json.dumps(asdict(HEAD) | {"n_entries": 10**30}).encode(), "entries are missing"),
        (json.dumps(asdict(HEAD) | {"n_entries": 3}).encode(), "entries are missing"),
        (json.dumps(asdict(HEAD) | {"cake": 1}).encode(), "its head is"),
    ],
)
def test_a_head_that_cannot_be_is_noticed_behind_a_right_checksum(
    line: bytes, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = b"edgespec n-grams 1\n" + line + b"\n" + bytes(12)
    (tmp_path / "a").write_bytes(data + hashlib.sha256(data).digest())
    assert f"can be used ({expected}" in refused(tmp_path / "a", caplog)


def test_a_file_far_too_large_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate((1 << 28) + 1)  # sparse: it takes no place
    with caplog.at_level(logging.WARNING, "edgespec"):
        assert len(load(tmp_path / "a", DRAFT, TARGET)) == 0
    assert "is too large for an n-gram cache: it is now a.damaged" in caplog.text


def test_what_cannot_be_read_or_renamed_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    assert len(load(tmp_path / "a", DRAFT, TARGET)) == 0
    assert "a: Is a directory: drafting starts without its n-grams" in caplog.text
    (tmp_path / "b").write_bytes(b"?")
    monkeypatch.setattr("os.replace", failing)
    assert len(load(tmp_path / "b", DRAFT, TARGET)) == 0
    assert "it stays where it is (No space left on device)" in caplog.text


def failing(*_: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_what_was_there(
    saved: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(function, failing)
        with pytest.raises(UsageError, match=r"No space left .*set EDGESPEC_HOME to a folder"):
            save(NgramCache(), saved, DRAFT, TARGET)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/a: .*expected a file to write"):
        save(NgramCache(), tmp_path / "file" / "a", DRAFT, TARGET)


def test_only_the_user_can_read_what_was_learned(saved: Path) -> None:
    assert os.name == "nt" or saved.stat().st_mode & 0o777 == 0o600


def test_names_of_models_are_kept_until_others_are_given(saved: Path) -> None:
    for given_names, kept in ((None, ("", "")), (("d", "t"), ("d", "t")), (None, ("d", "t"))):
        save(NgramCache(), saved, DRAFT, TARGET, names=given_names)
        head, _ = read(saved)
        assert (head.draft_name, head.target_name) == kept


def test_old_parts_are_swept_and_young_ones_are_left(saved: Path) -> None:
    old, young = (saved.with_name(f"{saved.name}.{i}.part") for i in "ab")
    for part in (old, young):
        part.write_bytes(b"")
    os.utime(old, (0, time.time() - 4000))
    save(NgramCache(), saved, DRAFT, TARGET)
    assert (old.exists(), young.exists()) == (False, True)


def test_files_are_found_with_what_is_left_of_them(saved: Path, tmp_path: Path) -> None:
    left = [f"{saved.name}.damaged", f"{saved.name}.x.part"]
    for name in (*left, "other.bin", "other.txt", "other.bin.txt"):
        (saved.parent / name).write_bytes(b"")
    assert [file.name for file in files_of(saved)] == [saved.name, *left]
    assert [file.name for file in files_in(tmp_path)] == [saved.name, *left, "other.bin"]
    assert files_in(tmp_path / "none") == []


def test_reading_a_damaged_file_says_why(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"is no n-gram cache .* \(its checksum is wrong\)"):
        read(saved)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_process_killed_while_saving_leaves_a_whole_cache(tmp_path: Path) -> None:
    n_kills, _, n_found = kill(tmp_path, 5)
    assert n_kills == 5
    assert n_found > 1


def kill(folder: Path, n_kills: int, seed: int = 1) -> list[int]:
    """What ngram_saver.py prints."""
    tests = Path(__file__).resolve().parents[2]
    words = [sys.executable, str(tests / "ngram_saver.py"), str(folder), str(n_kills), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]
