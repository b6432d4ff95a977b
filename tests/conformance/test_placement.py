"""Target and drafter on different runtimes: the text is the target's own, whoever drafts."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from edgespec.export.npu.export import StaticOptions, export_static
from edgespec.export.onnx.sample import TEXTS
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.export.trim.head import trim
from model_maker import DEMO
from npu_maker import quiet
from onnx_maker import dynamic_folder, exported, quick

from edgespec.session.load import load
from edgespec.session.session import Session
from edgespec.types import Stats

pytestmark = pytest.mark.slow

PROMPTS = (
    "Once upon a time there was a little fox who",
    "One day, Tom and his dog went to the park and",
)
KEPT = np.arange(2048, dtype=np.int32)
OPTIONS = {"threads": 1, "max_tokens": 32, "ctx_size": 200, "device": "cpu"}
# The seed's uniforms are 6e-4 or more from where the next token's share begins; shares move by up
# to 1e-4 from one width to another, and others may fall between.
WAYS = {"greedy": {}, "sampled": {"temperature": 0.8, "seed": 1}}


@cache
def made() -> Path:
    """A folder for this run's models."""
    folder = Path(tempfile.mkdtemp(prefix="edgespec-placement-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def gguf_target() -> Path:
    return DEMO.with_name("target.gguf")


def onnx_target() -> Path:
    return dynamic_folder(gguf_target())


def gguf_drafter() -> Path:
    return DEMO


def onnx_drafter() -> Path:
    return dynamic_folder(DEMO)


def trimmed_gguf() -> Path:
    trim(DEMO, made() / "trimmed.gguf", KEPT)
    return made() / "trimmed.gguf"


def trimmed_onnx() -> Path:
    return exported(DEMO, made() / "trimmed", token_ids=KEPT).path


def static_onnx() -> Path:
    text = "\n\n".join(TEXTS) * 8
    with quick():
        export_static(
            open_gguf_checkpoint(DEMO), made() / "static", StaticOptions(200, 4, "fp32"), text,
            quiet,
        )  # fmt: skip
    return made() / "static"


PLACEMENTS: dict[str, tuple[Callable[[], Path], Callable[[], Path]]] = {
    "onnx-for-gguf": (gguf_target, onnx_drafter),
    "gguf-for-onnx": (onnx_target, gguf_drafter),
    "onnx-for-onnx": (onnx_target, onnx_drafter),
    "static-onnx-for-gguf": (gguf_target, static_onnx),
    "trimmed-gguf-for-onnx": (onnx_target, trimmed_gguf),
    "trimmed-onnx-for-gguf": (gguf_target, trimmed_onnx),
}


@pytest.fixture(scope="module", params=PLACEMENTS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    target, drafter = PLACEMENTS[request.param]
    paths = target(), drafter()
    with quick(), load(*paths, drafter="model", speculative="on", **OPTIONS) as opened:
        yield opened


def said(session: Session, way: str) -> tuple[list[list[int]], list[Stats]]:
    """The tokens that continue each prompt, and what it took."""
    found, stats = [], []
    for prompt in PROMPTS:
        for _ in session.generate(prompt, **WAYS[way]):
            pass
        found.append(list(session.turns.output))
        stats.append(session.stats)
    return found, stats


@cache
def plain(target: Path, way: str) -> list[list[int]]:
    """What the target says by itself."""
    with quick(), load(target, speculative="off", **OPTIONS) as opened:
        return said(opened, way)[0]


@pytest.mark.parametrize("way", WAYS)
def test_the_text_is_the_target_s_own(session: Session, way: str) -> None:
    expected = plain(Path(session.target.info().path), way)
    assert min(map(len, expected)) > 20
    seen, stats = said(session, way)
    assert seen == expected
    assert all(one.n_drafted > one.n_accepted > 0 for one in stats)
    assert sum(one.n_accepted for one in stats) > 8
    if way == "sampled":
        assert seen != plain(Path(session.target.info().path), "greedy")
