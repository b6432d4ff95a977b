"""Where no child can open an unknown model first: a mark on the disk tells the next start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.gguf.mark import marked
from edgespec.backends.gguf.tried import is_known, remembered
from edgespec.errors import ModelFileError

DIES = """
import os, sys
from pathlib import Path
from edgespec.backends.gguf.mark import marked
with marked([Path(sys.argv[1])], "map", "1"):
    os._exit(3)
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x")
    return path


@contextmanager
def as_in_an_app() -> Iterator[None]:
    """Without an interpreter to start."""
    with patch.object(sys, "executable", ""):
        yield


def test_a_file_that_ended_the_process_is_refused_once(file: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIES, str(file)], check=False).returncode == 3
    with (
        pytest.raises(ModelFileError, match="ended the app when it was opened the last time"),
        marked([file], "map", "1"),
    ):
        pytest.fail("it was opened")
    with marked([file], "map", "1"):  # memory may have been short, so another try is allowed
        pass
    assert is_known([file], "1")


def test_a_file_that_was_survived_is_known_as_after_a_trial(file: Path) -> None:
    with marked([file], "repack", "1"):
        assert not is_known([file], "1")
    tried = remembered([file], "1")
    assert tried is not None
    assert (tried.ways, tried.timed) == ({"repack": {}}, False)
    with marked([file], "repack", "1"):
        pass
    assert remembered([file], "1") == tried


def test_a_way_that_was_not_survived_yet_is_marked_and_remembered_besides(file: Path) -> None:
    with marked([file], "repack", "1"):
        pass
    assert subprocess.run([sys.executable, "-c", DIES, str(file)], check=False).returncode == 3
    with pytest.raises(ModelFileError, match="the last time"), marked([file], "map", "1"):
        pytest.fail("it was opened")
    with marked([file], "map", "1"):
        pass
    tried = remembered([file], "1")
    assert tried is not None
    assert tried.ways == {"repack": {}, "map": {}}


def test_a_file_that_is_refused_in_good_order_leaves_no_mark(file: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelFileError, match="no GGUF"), marked([file], "map", "1"):
            raise ModelFileError("no GGUF")
    assert not is_known([file], "1")


def test_a_model_runs_a_few_tokens_before_it_is_trusted(stories260k: Path) -> None:
    with as_in_an_app():
        model = open_model(stories260k, ModelOptions(n_threads=1, n_context=96))
        assert model.length == 0
        model.close()
        assert is_known([stories260k], model._lib.version)
        again = open_model(stories260k, ModelOptions(n_threads=1))
        again.close()


def test_where_nothing_can_be_written_a_file_is_opened_all_the_same(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(file / "within-a-file"))
    with marked([file], "map", "1"):
        pass
