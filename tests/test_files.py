"""files.py: hashes that names of cached files and manifests depend on, texts, whole writes."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from edgespec.errors import UsageError
from edgespec.files import PIECE, model_name, sha256_of, text_of, write_whole


def test_the_hash_is_that_of_all_bytes_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"abc")
    second.write_bytes(bytes(range(256)) * (PIECE // 256) + b"end")  # more than one piece
    assert sha256_of(first) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    whole = first.read_bytes() + second.read_bytes()
    assert sha256_of(first, second) == hashlib.sha256(whole).hexdigest()
    assert sha256_of(second, first) != sha256_of(first, second)


def test_a_text_is_read_without_its_mark_and_from_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a").write_bytes("\ufeffü\r\n".encode())
    assert text_of("~/a") == "ü\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [(None, "-f {}: No such file or directory: expected a text file"),
     (b"ab\xff", "-f {}: not UTF-8 at byte 2: expected a text file")],
)  # fmt: skip
def test_a_text_that_cannot_be_read_is_one_line(
    data: bytes | None, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "a"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(UsageError, match=re.escape(expected.format(file))):
        text_of(file, "-f")


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file.name)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [file, link]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_a_new_file_is_its_owners_unless_told(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_whole(tmp_path / "a", b"mine")
        write_whole(tmp_path / "b", b"ours", mode=0o666)
    finally:
        os.umask(mask)
    assert [one.stat().st_mode & 0o777 for one in sorted(tmp_path.iterdir())] == [0o600, 0o644]


def test_a_folder_of_ours_is_made_and_one_that_cannot_be_says_what_to_set(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b", b"new", ours=True)
    assert (tmp_path / "a" / "b").read_bytes() == b"new"
    with pytest.raises(UsageError, match="expected a file to write; set EDGESPEC_HOME"):
        write_whole(tmp_path / "a" / "b" / "c", b"new", ours=True)


def test_what_is_no_ordinary_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for one in (pipe, tmp_path):
        with pytest.raises(UsageError, match="not an ordinary file: expected a file to write"):
            write_whole(one, b"new")
    assert pipe.is_fifo()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_whole(file, b"new")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("models/llama-3.2-3b", "llama-3.2-3b"),
        ("a/q.gguf", "q"),
        ("u/Q2.5-GGUF", "Q2.5-GGUF"),
    ],
)
def test_a_models_name_keeps_its_points(given: str, name: str) -> None:
    assert model_name(given) == name
