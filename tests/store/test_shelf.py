"""shelf.py: model files found in the user's own folder, by size, sum and name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgespec.store import hub, pairs, removal, shelf

DATA = b"weights of a model"
SUM = hashlib.sha256(DATA).hexdigest()
PINNED = pairs.ModelEntry("Sub/Tiny.Q4_1.gguf", SUM, repo="maker/tiny", size=len(DATA), pair="tiny")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with one model under a name of its own; nothing is in the hub's cache."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "renamed.gguf").write_bytes(DATA)
    monkeypatch.setenv(shelf.VARIABLE, str(own))
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return own


def test_a_pinned_file_is_found_before_the_hub_is_asked_whatever_its_name(folder: Path) -> None:
    path = folder / "renamed.gguf"
    told: list[str] = []
    found = pairs.file_of(PINNED, Path("unused"), lambda what, share: told.append(what))
    assert found == pairs.bundled(PINNED) == path
    assert told == ["checking renamed.gguf"] * 2
    assert pairs.held(PINNED) == pairs.Held((path,), shelf.VARIABLE)


def test_a_sum_is_computed_again_only_where_the_file_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def sha256_of(path: Path) -> str:
        asked.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(shelf, "sha256_of", sha256_of)
    path = folder / "renamed.gguf"
    for n in (1, 1, 2):
        if n == 2:
            os.utime(path, (1, 1))
        assert shelf.find(PINNED.file, PINNED.size, SUM) == (path,)
        assert len(asked) == n
    path.write_bytes(DATA[::-1])
    assert shelf.find(PINNED.file, PINNED.size, SUM) == ()


def test_a_file_of_that_name_with_other_contents_is_named_and_not_taken(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "renamed.gguf").rename(folder / "tiny.q4_1.gguf")
    (folder / "tiny.q4_1.gguf").write_bytes(DATA[:-1])
    assert pairs.held(PINNED) is None
    assert "tiny.q4_1.gguf is not what the manifest names: looking elsewhere" in caplog.text


def test_what_is_not_pinned_is_known_by_its_name_and_the_size_of_all_parts(folder: Path) -> None:
    parts = [folder / f"big-0000{i}-of-00002.gguf" for i in (1, 2)]
    for part in parts:
        part.write_bytes(DATA)
    name = "big-00001-of-00002.gguf"
    assert shelf.find(name, 2 * len(DATA), "") == tuple(parts)
    assert shelf.find(name, len(DATA), "") == ()
    assert shelf.find("other.gguf", len(DATA), "") == ()


def test_a_model_of_the_users_folder_is_never_removed(folder: Path) -> None:
    pair = pairs.Pair("tiny", "", "", "", PINNED, PINNED)
    assert pairs.is_here(PINNED, Path("unused"))
    assert removal.remove(pair, Path("unused")) == (0, [])
    assert (folder / "renamed.gguf").read_bytes() == DATA


def test_without_the_folder_the_hubs_cache_is_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(shelf.VARIABLE, "")
    assert pairs.held(PINNED) is None
    here = hub.cache.CachedModel("maker/tiny", "Tiny", (folder / "renamed.gguf",))
    monkeypatch.setattr(hub, "held", lambda spec, sha256="": here if sha256 == SUM else None)
    assert pairs.held(PINNED) == pairs.Held(here.paths, "the hub's cache")
