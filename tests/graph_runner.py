"""Runs a graph that export/onnx/graph.py wrote, once and from an empty cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SLOTS = 64


def session_of(path: Path) -> Any:
    """One thread; silent about inputs that have defaults."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs_of(session: Any, tokens: list[int]) -> dict[str, np.ndarray]:
    """What the graph takes for these tokens and an empty cache of SLOTS."""
    length = len(tokens)
    known = {
        "input_ids": np.array([tokens]),
        "position_ids": np.arange(length)[None],
        "logit_rows": np.arange(length),
        "seqlens_k": np.array([length - 1], np.int32),
        "total_length": np.array(length, np.int32),
        "attention_bias": np.zeros((1, 1, length, length), np.float32),
    }
    feed = {}
    for one in session.get_inputs():
        if one.name.startswith("past_key_values."):
            feed[one.name] = np.zeros((1, one.shape[1], SLOTS, one.shape[3]), np.float32)
        else:
            feed[one.name] = known[one.name]
    return feed


def graph_run(path: Path, tokens: list[int], run_options: Any = None) -> np.ndarray:
    """Logits [T, V]."""
    session = session_of(path)
    return session.run(["logits"], inputs_of(session, tokens), run_options)[0][0]
