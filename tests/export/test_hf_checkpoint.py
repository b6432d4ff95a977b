"""Hugging Face checkpoints: the same logits as the same weights in a GGUF, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgespec.export.onnx.graph import GraphOptions, rotation, write_graph
from edgespec.export.read.hf import open_hf
from edgespec.export.read.hf_config import HfConfig, decoder_of
from graph_runner import graph_run
from hf_maker import CLASSES, GEMMAS, Sizes, llama_of, random_tensors, write_checkpoint
from llama_reference import numpy_logits, write_llama

from edgespec.errors import ModelFileError

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# inv_freq by transformers 5.23 for LLAMA3, rope_theta 500 and a head_dim of 16.
FREQUENCIES = [
    1.0,
    0.4598632752895355,
    0.09761662781238556,
    0.01215615589171648,
    0.005590170156210661,
    0.0025707141030579805,
    0.0011821769876405597,
    0.0005436398205347359,
]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_logits_are_those_of_the_same_weights_in_a_gguf(
    tmp_path: Path, shards: int, tied: bool
) -> None:
    source = write_llama(tmp_path / "a.gguf", n_kv_heads=2, tied=tied)
    checkpoint = open_hf(llama_of(source, tmp_path / "hf", shards=shards))
    write_graph(checkpoint, tmp_path / "model.onnx", GraphOptions(precision="fp32"))
    tokens = [1, 5, 90, 7, 7, 31, 2, 64]
    difference = graph_run(tmp_path / "model.onnx", tokens) - numpy_logits(source, tokens)
    assert np.abs(difference).max() < 1e-5


@pytest.mark.parametrize("kind", CLASSES)
def test_every_architecture_opens_with_its_sizes(tmp_path: Path, kind: str) -> None:
    checkpoint = open_hf(write_checkpoint(tmp_path, kind, tied=kind in GEMMAS))
    decoder = checkpoint.decoder
    assert (decoder.architecture, decoder.n_embd, decoder.head_dim) == (kind, 64, 16)
    assert (decoder.n_heads, decoder.n_kv_heads, decoder.n_ff) == (4, 2, 96)
    assert (decoder.n_vocab, decoder.n_layers, decoder.n_context) == (96, 2, 256)
    assert not decoder.rope_interleaved
    assert decoder.embedding_scale == (8.0 if kind in GEMMAS else 1.0)
    assert checkpoint.head.shape == (96, 64)
    assert ("output.weight" in checkpoint.tensors) == (kind not in GEMMAS)
    for name in checkpoint.tensors:
        assert checkpoint[name].floats().shape == checkpoint[name].shape


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_norms_of_a_gemma_are_stored_less_one(tmp_path: Path, kind: str) -> None:
    given = random_tensors(kind, Sizes(), tied=True)
    checkpoint = open_hf(write_checkpoint(tmp_path, kind, tied=True))
    added = 1 if kind == "gemma3" else 0
    for own, theirs in [
        ("output_norm.weight", "model.norm.weight"),
        ("blk.1.attn_norm.weight", "model.layers.1.input_layernorm.weight"),
    ]:
        assert np.array_equal(checkpoint[own].floats(), given[theirs] + np.float32(added))
    if kind == "gemma3":
        name = "model.layers.0.self_attn.q_norm.weight"
        assert np.array_equal(checkpoint["blk.0.attn_q_norm.weight"].floats(), given[name] + 1)
    assert np.array_equal(
        checkpoint["blk.1.ffn_up.weight"].floats(), given["model.layers.1.mlp.up_proj.weight"]
    )


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values_of_every_float_type_are_read_exactly(tmp_path: Path, dtype: str) -> None:
    given = random_tensors("llama", Sizes(), tied=False)
    checkpoint = open_hf(write_checkpoint(tmp_path, dtype=dtype, shards=2))
    for own, theirs in [
        ("output.weight", "lm_head.weight"),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
    ]:
        expected = given[theirs]
        if dtype == "BF16":
            expected = (expected.view(np.uint32) & 0xFFFF0000).view(np.float32)
        elif dtype == "F16":
            expected = expected.astype(np.float16).astype(np.float32)
        assert np.array_equal(checkpoint[own].floats(), expected)
    matrix = checkpoint["output.weight"]
    assert matrix.kind == dtype
    some = np.array([5, 90, 5])
    assert np.array_equal(matrix.rows(some).floats(), matrix.floats()[some])
    assert checkpoint["blk.0.attn_norm.weight"].kind == "F32"


@pytest.mark.parametrize("version", [4, 5])
def test_llama_3_frequencies_are_those_of_transformers(tmp_path: Path, version: int) -> None:
    stated: dict[str, object] = {"rope_theta": 500.0, "rope_scaling": LLAMA3}
    if version == 5:
        stated = {"rope_theta": None, "rope_parameters": LLAMA3 | {"rope_theta": 500.0}}
    decoder = open_hf(write_checkpoint(tmp_path, changed=stated)).decoder
    cos, sin = rotation(decoder, 2)
    assert np.allclose(np.arctan2(sin[1], cos[1]), FREQUENCIES, rtol=1e-6)


def test_rotary_angles_of_other_models(tmp_path: Path) -> None:
    def decoder(kind: str, **changed: object) -> Any:
        return decoder_of(HfConfig(write_checkpoint(tmp_path, kind, changed=changed)))

    assert decoder("qwen2", rope_scaling={"type": "linear", "factor": 4}).rope_scale == 0.25
    long = {"type": "longrope", "short_factor": [1.5] * 6, "long_factor": [9.0] * 6}
    phi = decoder("phi3", rope_scaling=long, partial_rotary_factor=0.75)
    assert (phi.rope_dim, phi.rope_factors) == (12, (1.5,) * 6)
    both = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    assert decoder("gemma3", rope_parameters=both, rope_theta=None).rope_base == 1e6


def test_a_head_that_is_tied_and_stored_is_left_out(tmp_path: Path) -> None:
    given = random_tensors("llama", Sizes(), tied=False)
    checkpoint = open_hf(write_checkpoint(tmp_path, tied=True, tensors=given))
    assert np.array_equal(checkpoint.head.floats(), given["model.embed_tokens.weight"])


def test_the_vocabulary_of_a_checkpoint_is_its_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny")
    checkpoint = open_hf(folder)
    assert (checkpoint.path, checkpoint.vocabulary, checkpoint.name) == (folder, folder, "tiny")


YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    ("kind", "changed", "line"),
    [
        ("llama", {"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM': expected one of L"),
        ("llama", {"architectures": None}, "says architecture None: expected one of Llama"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantized by 'gptq'"),
        ("qwen2", {"quantization_config": {"quant_method": "awq"}}, "by 'awq': expected F32"),
        ("llama", {"rope_scaling": YARN}, "'yarn': expected default or linear or llama3"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu': expected silu"),
        ("llama", {"sliding_window": 128}, "sliding_window = 128: expected null"),
        ("llama", {"hidden_size": None}, "hidden_size = None: expected a positive number"),
        ("llama", {"num_hidden_layers": 0}, "num_hidden_layers = 0: expected a positive"),
        ("llama", {"num_hidden_layers": "2"}, "num_hidden_layers = '2': expected a positive"),
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads = 3: expected a divisor of 4"),
        ("llama", {"rms_norm_eps": None}, "rms_norm_eps = None: expected a positive number"),
        ("llama", {"num_hidden_layers": 3}, r"has no blk.2.\w+.weight: expected the weights"),
        ("llama", {"num_hidden_layers": 1}, "has the tensor model.layers.1.*: expected those of"),
        ("llama", {"intermediate_size": 90}, r"shape \[\d+, \d+\]: expected \[\d+, \d+\] by conf"),
        ("llama", {"architectures": ["Qwen2ForCausalLM"]}, "has no blk.0.attn_q.bias: expected"),
        ("qwen3", {"architectures": ["LlamaForCausalLM"]}, "_norm.*: expected "),
        ("phi3", {"rope_scaling": {"type": "longrope"}}, "short_factor = None: expected 8 numbers"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    tmp_path: Path, kind: str, changed: dict[str, object], line: str
) -> None:
    folder = write_checkpoint(tmp_path, kind, changed=changed)
    with pytest.raises(ModelFileError, match=line) as caught:
        open_hf(folder)
    assert "\n" not in str(caught.value)


def removed(folder: Path, name: str) -> None:
    (folder / name).unlink()


def cut(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-5])


def emptied(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def renamed(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "pytorch_model.bin")


SECOND = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("shards", "damage", "name", "line"),
    [
        (3, removed, SECOND, f"lacks {SECOND}: expected all 3 shards .* fetch the missing ones"),
        (3, cut, SECOND, rf"{SECOND} has \d+ bytes of \d+: expected a complete safetensors file"),
        (1, emptied, "model.safetensors", "has 0 bytes and no whole header: expected a complete"),
        (3, removed, INDEX, f"no model.safetensors and no {INDEX}: expected one of them"),
        (1, removed, "model.safetensors", "no model.safetensors and no .*fetch all files"),
        (1, renamed, "model.safetensors", "pytorch_model.bin only: expected .* save_pretrained"),
        (1, removed, "config.json", "has no config.json: expected a Hugging Face checkpoint"),
        (1, emptied, "config.json", "config.json is not JSON"),
        (3, emptied, INDEX, "index.json is not JSON"),
    ],
)
def test_damaged_folders_are_refused(
    tmp_path: Path, shards: int, damage: Any, name: str, line: str
) -> None:
    folder = write_checkpoint(tmp_path, shards=shards)
    damage(folder, name)
    with pytest.raises(ModelFileError, match=line) as caught:
        open_hf(folder)
    assert "\n" not in str(caught.value)


def test_indexes_that_lie_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, shards=2)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    name = next(iter(index["weight_map"]))
    for place, line in [
        ("../other.safetensors", r"names '\.\./other.safetensors': expected files beside it"),
        ("model-00002-of-00002.safetensors", f"lacks the tensor {name}: expected what"),
    ]:
        index["weight_map"][name] = place
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
        with pytest.raises(ModelFileError, match=line):
            open_hf(folder)
    (folder / INDEX).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelFileError, match="has no weight_map: fetch it again"):
        open_hf(folder)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}, "x in I8: expected F32, F16, BF16"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}, r"has 4 bytes for x \[4\] in F32"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "has a damaged entry 'x'"),
        ({"shape": [1]}, "has a damaged entry 'x'"),
        (7, "has a damaged entry 'x'"),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, entry: object, line: str) -> None:
    folder = write_checkpoint(tmp_path)
    header = json.dumps({"x": entry}).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(ModelFileError, match=line):
        open_hf(folder)


def test_an_adapter_in_place_of_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="is a LoRA adapter: name it as `edgespec export lora"):
        open_hf(tmp_path)
    with pytest.raises(ModelFileError, match="is no folder: expected one with config.json"):
        open_hf(tmp_path / "adapter_config.json")
