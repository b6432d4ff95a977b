"""The networks that train the bundled models compute what llama.cpp computes from their files."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from edgespec.models.hybrid import hybrid, write_hybrid  # noqa: E402
from edgespec.models.network import network_of  # noqa: E402
from edgespec.models.train import BUNDLED, HYBRID_SHAPE  # noqa: E402
from edgespec.models.vocabulary import described, tokenizer_of  # noqa: E402

pytestmark = pytest.mark.slow
TEXT = "<|begin|><|user|>Tell me a story.<|end|><|assistant|>Once upon a time, a fox lost her kite."


def llama_cpp_logits(path: Path, ids: list[int]) -> np.ndarray:
    options = ModelOptions(n_context=256, n_threads=1, device="cpu")
    with closing(LlamaCppModel(path, options, loading="map")) as model:
        return model.forward(ids).copy()


def torch_logits(network: object, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return network(torch.tensor([ids]))[0].numpy()


def test_the_vocabulary_comes_back_from_the_file() -> None:
    options = ModelOptions(n_context=64, n_threads=1, device="cpu")
    with closing(LlamaCppModel(BUNDLED, options, loading="map")) as model:
        ids = list(model.tokenizer.encode(TEXT, special=True))
    assert tokenizer_of(BUNDLED).encode(TEXT).ids == ids
    assert len(ids) == 20


def test_the_bundled_target_comes_back_from_its_file() -> None:
    ids = tokenizer_of(BUNDLED).encode(TEXT).ids
    seen = torch_logits(network_of(BUNDLED).eval(), ids)
    assert np.abs(seen - llama_cpp_logits(BUNDLED, ids)).max() < 0.05  # F16 activations
    assert np.ptp(seen) > 5


def test_a_hybrid_is_written_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = hybrid(HYBRID_SHAPE).eval(), tmp_path / "hybrid.gguf"
    for weight in network.parameters():
        if weight.ndim != 2:  # norms and kernels, which begin alike
            weight.data += 0.1 * torch.randn_like(weight)
    write_hybrid(network, described(BUNDLED), path, "tiny")
    ids = tokenizer_of(BUNDLED).encode(TEXT).ids
    seen = torch_logits(network, ids)
    assert np.abs(seen - llama_cpp_logits(path, ids)).max() < 0.02
    assert np.ptp(seen) > 1
