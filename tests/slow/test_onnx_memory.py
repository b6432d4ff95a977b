"""Memory of ONNX models over many tokens."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from model_maker import DEMO
from npu_maker import static_folder
from onnx_maker import dynamic_folder, opened

from edgespec.backends.onnx.model import OnnxModel

pytestmark = pytest.mark.slow
N_TOKENS = 10_000


def grown_by(model: OnnxModel, n_tokens: int) -> int:
    """Bytes that reading so many tokens takes for good: prompts, drafts, and trees if it can."""
    process, rng, seen, before = psutil.Process(), np.random.default_rng(5), 0, 0
    while seen < 1.2 * n_tokens:
        if before == 0 and seen > 0.2 * n_tokens:
            before = process.memory_info().rss
        if model.length > model.n_context - 40:
            model.truncate(int(rng.integers(20)))
        tokens = rng.integers(3, 500, int(rng.integers(1, 12))).tolist()
        if seen % 3 == 0:
            model.extend(tokens)
        elif seen % 3 == 1 and model.capabilities.n_leaves != 1:
            model.forward(tokens, [-1] * len(tokens))
            model.keep([int(rng.integers(len(tokens)))])
        else:
            model.forward(tokens)
            model.keep(range(int(rng.integers(len(tokens) + 1))))
        seen += len(tokens)
    return process.memory_info().rss - before


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_memory_stays_flat_over_ten_thousand_tokens(kind: str, data_folder: Path) -> None:
    folder = dynamic_folder(DEMO) if kind == "dynamic" else static_folder(data_folder)
    with closing(opened(folder)) as model:
        assert grown_by(model, N_TOKENS) < 4e6
