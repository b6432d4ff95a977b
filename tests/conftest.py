"""Fixtures shared by all tests: where the test data lies, a tiny model, where to export to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from model_maker import make

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Give each worker of pytest-xdist one core, and so its models one thread.

    Models of two threads on two cores that others use too spend their time waiting for each other.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Texts, prompts and vocabularies (EDGESPEC_TEST_DATA, default ../shared/data)."""
    folder = Path(os.environ.get("EDGESPEC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        reason = f"no test data at {folder}: set EDGESPEC_TEST_DATA"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def real_models() -> Path:
    """Public models as GGUF files (EDGESPEC_REAL_MODELS), due where they can be fetched."""
    folder = os.environ.get("EDGESPEC_REAL_MODELS", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"no public models at {folder or 'any place'}: set EDGESPEC_REAL_MODELS"
    if os.environ.get("CI") and (ROOT.parent / "shared" / "real_models" / "fetch").exists():
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def stories260k(data_folder: Path) -> Path:
    """A trained Llama of 260K parameters with a 512-token SentencePiece vocabulary."""
    return data_folder / "models" / "stories260K-f32.gguf"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, stories260k: Path) -> Path:
    """A random Llama with 512 tokens, which is exported in 0.1 s."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    return make(path, kind="F32", vocabulary=stories260k)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder's name to export to, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "model"
