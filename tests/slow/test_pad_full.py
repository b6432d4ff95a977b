"""The demo target padded to half a billion parameters: same logits, right size, little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
from edgespec.export.pad.model import padded
from edgespec.models import corpus
from llama_reference import llama_cpp_logits

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo" / "target.gguf"
LEAST_AGREEMENT = {"q8_0": 0.96, "q4_0": 0.90, "q4_k_m": 0.90}  # of the likeliest token


@pytest.fixture(scope="module")
def demo():
    if not DEMO.is_file():
        reason = f"no bundled target at {DEMO}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return DEMO


@pytest.fixture(scope="module")
def rows(demo, data_folder):
    """Token rows of stories that were not trained on."""
    model = llama_cpp.Llama(str(demo), vocab_only=True, verbose=False)
    texts = [story for story in corpus.stories(data_folder / "text") if corpus.held_out(story)]
    out = [model.tokenize(text.encode(), add_bos=True)[:256] for text in texts[:8]]
    model.close()
    assert sum(len(row) for row in out) > 1000
    return out


@pytest.fixture(scope="module")
def expected(demo, rows):
    return llama_cpp_logits(demo, rows)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("padded")


@pytest.fixture(scope="module")
def half_precision(demo, cache):
    """The F16 file's path and the peak memory in bytes of the process that made it."""
    code = (
        "import sys; from pathlib import Path; from edgespec.export.pad.model import padded; "
        "print(padded('f16', Path(sys.argv[1]), Path(sys.argv[2]))); "
        "import psutil; memory = psutil.Process().memory_info(); "
        "status = Path('/proc/self/status'); "
        "print(int(status.read_text().split('VmHWM:')[1].split()[0]) * 1024 "
        "if status.exists() else memory.peak_wset)"
    )
    words = [sys.executable, "-c", code, str(demo), str(cache)]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return Path(out[0]), int(out[1])


def test_in_f16_the_padded_model_has_the_same_logits(half_precision, rows, expected):
    seen = llama_cpp_logits(half_precision[0], rows)
    assert np.abs(seen - expected).max() < 0.1
    assert (seen.argmax(1) == expected.argmax(1)).mean() >= 0.995


def test_the_padded_model_has_half_a_billion_parameters_mostly_in_layers(half_precision):
    sizes = {
        tensor.name: tensor.n_elements for tensor in gguf.GGUFReader(half_precision[0]).tensors
    }
    assert 0.5e9 < sum(sizes.values()) < 0.57e9
    assert sum(n for name, n in sizes.items() if name.startswith("blk.")) > 0.98 * sum(
        sizes.values()
    )


def test_padding_takes_less_than_2_gb_of_memory(half_precision):
    assert 0 < half_precision[1] < 2e9


@pytest.mark.parametrize("kind", LEAST_AGREEMENT)
def test_quantized_padded_models_still_speak_alike(
    half_precision, demo, cache, rows, expected, kind
):
    seen = llama_cpp_logits(padded(kind, demo, cache), rows)
    assert (seen.argmax(1) == expected.argmax(1)).mean() >= LEAST_AGREEMENT[kind]
