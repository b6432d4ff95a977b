"""The real model builder, with the Python that EDGESPEC_BUILDER_PYTHON names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from edgespec.export.onnx.builder import write_built
from edgespec.export.onnx.graph import GraphOptions
from edgespec.export.read.hf import open_hf
from edgespec.export.read.hf_reference import logits
from hf_maker import GEMMAS, Sizes, write_checkpoint, write_tokenizer

SLOTS = 128
TOKENS = [int(t) for t in np.arange(60) * 7 % 512]
WINDOWED = {"sliding_window": 16, "query_pre_attn_scalar": 32}
KINDS = {
    "gemma2": WINDOWED | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3": WINDOWED | {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    "phi3": {"sliding_window": None, "original_max_position_embeddings": 256},
    "smollm3": {},
}


class Graph:
    """A built graph with its caches in one place."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.caches = {
            one.name: onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros((1, one.shape[1], SLOTS, one.shape[3]), np.float32)
            )
            for one in self.session.get_inputs()
            if one.name.startswith("past_key_values.")
        }

    def read(self, tokens: list[int], past: int) -> np.ndarray:
        """Logits [T, V] of tokens behind `past` others."""
        binding = self.session.io_binding()
        binding.bind_cpu_input("input_ids", np.array([tokens]))
        binding.bind_cpu_input("attention_mask", np.ones((1, past + len(tokens)), np.int64))
        binding.bind_output("logits")
        for name, value in self.caches.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_built_graphs_say_what_the_checkpoint_says(
    kind: str, tmp_path: Path, stories260k: Path
) -> None:
    python = os.environ.get("EDGESPEC_BUILDER_PYTHON")
    if not python:
        pytest.skip("EDGESPEC_BUILDER_PYTHON names no Python with onnxruntime-genai")
    # n_ff off the vocabulary's size: the builder takes any matrix of as many rows for the head.
    sizes = Sizes(n_embd=128, n_layers=6, head_dim=32, n_ff=320, n_vocab=512)
    config = {"bos_token_id": 1, "eos_token_id": 2} | KINDS[kind]
    folder = tmp_path / "hf"
    write_checkpoint(folder, kind, sizes=sizes, tied=kind in GEMMAS, changed=config)
    write_tokenizer(
        folder, stories260k, eos_token="</s>", tokenizer_class="PreTrainedTokenizerFast"
    )
    write_built(open_hf(folder), tmp_path / "model.onnx", GraphOptions("fp32"), Path(python))
    (expected,) = logits(folder, [TOKENS])
    graph = Graph(tmp_path / "model.onnx")
    tolerance = 0.02 if kind in GEMMAS else 1e-4  # the builder rounds a Gemma's embedding scale
    assert np.abs(graph.read(TOKENS, 0) - expected).max() < tolerance
    graph.read([9, 8, 7, 6, 5], 40)  # and taken back, by reading over it
    for start in range(40, 60, 5):
        rows = graph.read(TOKENS[start : start + 5], start)
        assert np.abs(rows - expected[start : start + 5]).max() < tolerance
