"""Fixtures shared by all tests: where the test data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
def stories260k(data_folder: Path) -> Path:
    """A trained Llama of 260K parameters with a 512-token SentencePiece vocabulary."""
    return data_folder / "models" / "stories260K-f32.gguf"
