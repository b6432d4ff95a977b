"""What a checkpoint says by our numpy forward is what llama.cpp says of the same weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from edgespec.export.read.checkpoint import Checkpoint
from edgespec.export.read.hf import open_hf
from edgespec.export.read.hf_reference import logits
from hf_maker import GEMMAS, Sizes, interleaved, write_checkpoint
from llama_reference import VOCAB, llama_cpp_logits

TOKENS = [1, 5, 90, 7, 7, 31, 2, 64, 12, 80, 33, 4, 5, 90, 61, 3, 11, 45, 9, 70]
WINDOW = 8
TINY = {"query_pre_attn_scalar": 16, "sliding_window": WINDOW}
# Layers enough that each kind of them occurs: with and without window, with and without rotation.
KINDS = {
    "llama": (2, {}),
    "qwen2": (2, {}),
    "qwen3": (2, {}),
    "phi3": (2, {"sliding_window": None}),
    "smollm3": (4, {}),
    "gemma2": (2, TINY | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3": (6, TINY | {"rope_theta": 50.0, "rope_local_base_freq": 10000.0}),
}


def gguf_of(checkpoint: Checkpoint, path: Path, metadata: dict[str, object]) -> Path:
    """The checkpoint as a GGUF of F32."""
    decoder = checkpoint.decoder
    writer = gguf.GGUFWriter(str(path), decoder.architecture)
    writer.add_name("tiny")
    writer.add_context_length(decoder.n_context)
    writer.add_embedding_length(decoder.n_embd)
    writer.add_block_count(decoder.n_layers)
    writer.add_feed_forward_length(decoder.n_ff)
    writer.add_head_count(decoder.n_heads)
    writer.add_head_count_kv(decoder.n_kv_heads)
    writer.add_key_length(decoder.head_dim)
    writer.add_value_length(decoder.head_dim)
    writer.add_rope_dimension_count(decoder.rope_dim)
    writer.add_rope_freq_base(decoder.rope_base)
    writer.add_layer_norm_rms_eps(decoder.rms_eps)
    writer.add_sliding_window(int(str(metadata.get("sliding_window") or 4096)))
    if decoder.architecture == "gemma2":
        writer.add_attn_logit_softcapping(float(str(metadata["attn_logit_softcapping"])))
        writer.add_final_logit_softcapping(float(str(metadata["final_logit_softcapping"])))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *VOCAB[3:]])
    writer.add_token_scores([-float(i) for i in range(len(VOCAB))])
    writer.add_token_types([2, 3, 3] + [1] * (len(VOCAB) - 3))
    for name in checkpoint.tensors:
        values = checkpoint[name].floats()
        pairs = name.endswith(("attn_q.weight", "attn_k.weight"))
        if pairs and decoder.architecture in ("llama", "smollm3"):
            values = interleaved(values, decoder.head_dim)
        writer.add_tensor(name, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_llama_cpp(tmp_path: Path, kind: str) -> None:
    n_layers, changed = KINDS[kind]
    sizes, tied = Sizes(n_layers=n_layers), kind in GEMMAS
    folder = write_checkpoint(tmp_path / "hf", kind, sizes=sizes, tied=tied, changed=changed)
    path = gguf_of(open_hf(folder), tmp_path / "a.gguf", changed)
    seen = logits(folder, [TOKENS, TOKENS[:3]])
    expected = llama_cpp_logits(path, [TOKENS, TOKENS[:3]])
    # llama.cpp keeps keys and values in 16 bits.
    assert np.abs(np.concatenate(seen) - expected).max() < 0.02
    assert np.ptp(expected) > 4


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("gemma3", {"sliding_window": WINDOW + 1}),
        ("gemma3", {"rope_local_base_freq": 50.0}),
        ("gemma2", {"attn_logit_softcapping": 6.0}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}),
        ("llama", {"rope_theta": 500.0}),
    ],
)
def test_every_setting_changes_the_logits(
    tmp_path: Path, kind: str, changed: dict[str, object]
) -> None:
    n_layers, before = KINDS[kind]
    rows = []
    for name, config in (("a", before), ("b", before | changed)):
        folder = tmp_path / name
        sizes, tied = Sizes(n_layers=n_layers), kind in GEMMAS
        write_checkpoint(folder, kind, sizes=sizes, tied=tied, changed=config)
        rows += logits(folder, [TOKENS])
    assert np.abs(rows[0] - rows[1]).max() > 0.02
