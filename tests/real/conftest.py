"""The public pairs, open: each once for all tests, with a cache that begins empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgespec

QWEN, SMOL = "qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-smol"
N_CONTEXT = 1024


@pytest.fixture(scope="package")
def home(real_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the tests' own, which both pairs share, and a hub that must not be needed."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(folder))
        patch.setenv("EDGESPEC_REAL_MODELS", str(real_models))
        patch.setenv("EDGESPEC_OFFLINE", "true")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
        yield folder


@pytest.fixture(scope="package", params=[QWEN, SMOL])
def pair(home: Path, request: pytest.FixtureRequest) -> str:
    """The name of either pair; pytest runs all tests of one before those of the next."""
    return str(request.param)


@pytest.fixture(scope="package")
def session(pair: str) -> Iterator[edgespec.Session]:
    """A pair, found by its name and open."""
    with edgespec.load(pair=pair, ctx_size=N_CONTEXT, max_tokens=20) as opened:
        yield opened
