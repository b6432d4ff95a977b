"""Padding: the wide model is the small one, its other weights are real weights without effect."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import namedtuple

import gguf
import hybrid_maker
import numpy as np
import pytest
from edgespec.export.gguf import file as gguf_file
from edgespec.export.gguf import quantize
from edgespec.export.pad import model as pad
from llama_reference import (
    TEMPLATE,
    VOCAB,
    llama_cpp_logits,
    numpy_logits,
    stored,
    value,
    write_llama,
)

from edgespec.errors import BackendError, ModelFileError, UsageError

SIZES = {"n_embd": 512, "n_layers": 5, "n_ff": 512}
TOKENS = list(range(3, 40))
KINDS = {
    "tied": {},
    "untied, grouped heads": {"tied": False, "n_kv_heads": 2},
    "more heads than width": {"n_heads": 6, "n_kv_heads": 3, "head_dim": 32, "n_layers": 3},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("pad") / "small.gguf")


@pytest.fixture(scope="module")
def wide(small):
    path = small.with_name("wide.gguf")
    pad.pad(small, path, **SIZES)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_wide_model_computes_the_same_function(tmp_path, kind):
    small = write_llama(tmp_path / "small.gguf", **KINDS[kind])
    report = pad.pad(small, tmp_path / "wide.gguf", **SIZES)
    expected, seen = numpy_logits(small, TOKENS), numpy_logits(report.path, TOKENS)
    # What is left is the rounding of norm weights and epsilon to float32.
    assert np.abs(seen - expected).max() < 1e-6 * np.abs(expected).max()
    assert report.n_params == sum(t.size for t in stored(report.path).values())


def test_llama_cpp_computes_the_same_from_both(small, wide):
    expected, seen = (llama_cpp_logits(path, [TOKENS, TOKENS[::-1]]) for path in (small, wide))
    assert np.abs(seen - expected).max() < 0.02  # F16 rounding of activations
    assert np.abs(expected).max() > 1


@pytest.mark.slow
def test_a_hybrid_computes_the_same_from_both(tmp_path):
    small = hybrid_maker.make(tmp_path / "small.gguf", "lfm2")
    report = pad.pad(small, tmp_path / "wide.gguf", **SIZES)
    assert [mixer[0] for mixer in report.shape.mixers] == ["c", "a", "a", "c", "c"]
    rows = [TOKENS, TOKENS[::-1]]
    expected, seen = (llama_cpp_logits(path, rows) for path in (small, report.path))
    assert np.abs(seen - expected).max() < 0.02 * np.abs(expected).max()  # F32 weights became F16
    assert report.n_params == sum(t.size for t in stored(report.path).values())


@pytest.mark.slow
def test_a_hybrid_without_its_state_tensor_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delitem(hybrid_maker.RECURRENT["lfm2"], "shortconv.conv.weight")
    small = hybrid_maker.make(tmp_path / "small.gguf", "lfm2")
    with pytest.raises(ModelFileError, match=r"blk.0.shortconv.conv.weight of shape None"):
        pad.pad(small, tmp_path / "wide.gguf", **SIZES)


@pytest.mark.slow
def test_a_trained_model_says_the_same_when_widened(stories260k, tmp_path):
    pad.pad(stories260k, tmp_path / "wide.gguf", **SIZES)
    rows = [[1, *range(3 + 60 * i, 63 + 60 * i)] for i in range(8)]
    expected, seen = (llama_cpp_logits(p, rows) for p in (stories260k, tmp_path / "wide.gguf"))
    assert np.abs(seen - expected).max() < 0.1  # its F32 weights became F16
    assert (seen.argmax(1) == expected.argmax(1)).mean() > 0.98


def test_what_is_added_writes_nothing(wide):
    weights = stored(wide)
    assert not weights["token_embd.weight"][:, 64:].any()
    for layer, real in enumerate([True, False, True, False, False]):
        attention = weights[f"blk.{layer}.attn_output.weight"]
        neurons = weights[f"blk.{layer}.ffn_down.weight"]
        for out, n_columns in ((attention, 64), (neurons, 96)):
            assert (np.count_nonzero(out[:64, :n_columns]) > 0.99 * 64 * n_columns) == real
            assert not out[64:].any()
            assert not out[:, n_columns:].any()
            assert real or not out.any()


def test_what_is_added_is_as_large_as_real_weights(small, wide):
    real, weights = stored(small), stored(wide)
    for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"):
        real_std = real[f"blk.1.{name}.weight"].std()
        for layer in (2, 4):  # the small model's second layer, and one that resembles it
            added = weights[f"blk.{layer}.{name}.weight"][256:]
            assert added.std() == pytest.approx(real_std, rel=0.02)
            assert np.count_nonzero(added) > 0.99 * added.size
            assert np.abs(added).max() < 8 * real_std


@pytest.mark.slow
def test_no_quantization_block_mixes_real_and_random(wide):
    for layer in (0, 2):
        for name, n_rows in {"attn_q": 64, "attn_v": 64, "ffn_gate": 96, "ffn_up": 96}.items():
            weight = stored(wide)[f"blk.{layer}.{name}.weight"]
            assert not weight[:n_rows, 64:256].any()
            assert np.count_nonzero(weight[:n_rows, 256:]) > 0.99 * n_rows * 256
        # Activations share a scale per block too: up to its end nothing random is said.
        assert not stored(wide)[f"blk.{layer}.attn_v.weight"][64:256].any()
        assert not stored(wide)[f"blk.{layer}.ffn_up.weight"][96:256].any()


def test_the_vocabulary_and_the_template_go_along(small, wide):
    keys = [key for key in gguf.GGUFReader(small).fields if key.startswith("tokenizer.")]
    assert len(keys) > 5
    for key in keys:
        assert value(wide, key) == value(small, key)
    assert value(wide, "tokenizer.chat_template") == TEMPLATE
    assert value(wide, "llama.context_length") == 128
    assert len(value(wide, "tokenizer.ggml.tokens")) == len(VOCAB)


def test_the_file_type_and_norms_are_as_llama_cpp_expects(wide):
    assert value(wide, "general.file_type") == gguf.LlamaFileType.MOSTLY_F16
    for tensor in gguf.GGUFReader(wide).tensors:
        assert tensor.tensor_type.name == ("F32" if "norm" in tensor.name else "F16")


def test_rotation_factors_are_kept_as_they_are(tmp_path):
    factors = np.linspace(1, 4, 8, dtype=np.float32)
    small = write_llama(tmp_path / "small.gguf", extra={"rope_freqs.weight": factors})
    pad.pad(small, tmp_path / "wide.gguf", **SIZES)
    assert np.array_equal(stored(tmp_path / "wide.gguf")["rope_freqs.weight"], factors)


def test_the_seed_alone_decides_the_bytes(small, wide, tmp_path):
    pad.pad(small, tmp_path / "same.gguf", **SIZES)
    pad.pad(small, tmp_path / "other.gguf", **SIZES, seed=1)
    assert (tmp_path / "same.gguf").read_bytes() == wide.read_bytes()
    assert (tmp_path / "other.gguf").read_bytes() != wide.read_bytes()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"architecture": "qwen2"}, "architecture 'qwen2': expected 'llama'"),
        ({"metadata": {"llama.expert_count": 4}}, "experts"),
        ({"n_heads": 4, "n_kv_heads": 3}, "4 heads over 3 key heads"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, "blk.0.attn_q.bias"),
        ({"without": "blk.1.ffn_up"}, "blk.1.ffn_up.weight of shape None"),
        ({"extra": {"rope_freqs.weight": np.ones(8, np.int32)}}, "in I32: expected F16 or F32"),
    ],
)
def test_other_models_are_refused_in_one_line(tmp_path, model, message):
    source = write_llama(tmp_path / "small.gguf", **model)
    with pytest.raises(ModelFileError, match=message) as refusal:
        pad.pad(source, tmp_path / "wide.gguf", **SIZES)
    assert "\n" not in str(refusal.value)
    assert os.listdir(tmp_path) == ["small.gguf"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_embd": 500}, "n_embd is 500: .*multiple of 256, try 512"),
        ({"n_embd": 0}, "n_embd is 0: expected at least 64 .*try 256"),
        ({"n_ff": 1}, "n_ff is 1: expected at least 96 .*try 256"),
        ({"n_layers": 1}, "n_layers is 1: expected at least 2, try 2"),
    ],
)
def test_sizes_that_do_not_fit_name_one_that_does(small, tmp_path, sizes, message):
    with pytest.raises(UsageError, match=message):
        pad.pad(small, tmp_path / "wide.gguf", **{**SIZES, **sizes})


@pytest.mark.parametrize("n_bytes", [0, 3, 30, 700, 5000, -1000])
def test_a_damaged_file_is_refused_in_one_line(small, tmp_path, n_bytes):
    (tmp_path / "cut.gguf").write_bytes(small.read_bytes()[:n_bytes])
    with pytest.raises(ModelFileError, match="cut.gguf is not a complete GGUF") as refusal:
        pad.pad(tmp_path / "cut.gguf", tmp_path / "wide.gguf", **SIZES)
    assert "\n" not in str(refusal.value)


def test_a_weight_beyond_f16_is_refused(tmp_path, monkeypatch):
    source = write_llama(tmp_path / "small.gguf", dtype=np.float32)
    data = np.memmap(source, mode="r+", dtype=np.float32, offset=source.stat().st_size - 4)
    data[0] = 1e6
    data.flush()
    del data
    with pytest.raises(ModelFileError, match="blk.1.ffn_down.weight .* F16 cannot hold"):
        pad.pad(source, tmp_path / "wide.gguf", **SIZES)


def test_missing_files_and_folders_are_named(small, tmp_path):
    with pytest.raises(ModelFileError, match="absent.gguf cannot be read"):
        pad.pad(tmp_path / "absent.gguf", tmp_path / "wide.gguf")
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        pad.pad(small, tmp_path / "nowhere" / "wide.gguf", **SIZES)
    with pytest.raises(UsageError, match="is the model to pad"):
        pad.pad(small, small, **SIZES)


def test_a_full_disk_is_seen_before_anything_is_written(small, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=r"has 0.00 GB free, wide.gguf needs 1.\d\d GB"):
        pad.pad(small, tmp_path / "wide.gguf")
    assert os.listdir(tmp_path) == []


def test_an_interrupted_run_leaves_nothing(small, tmp_path, monkeypatch):
    def interrupted(tensor, weights, seed):
        assert list(tmp_path.glob("wide.gguf.*.part"))
        raise KeyboardInterrupt

    monkeypatch.setattr(pad, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pad.pad(small, tmp_path / "wide.gguf", **SIZES)
    assert os.listdir(tmp_path) == []


def test_a_wrongly_stored_tensor_is_noticed(small, tmp_path, monkeypatch):
    def damaged(tensor, weights, seed):
        out = make(tensor, weights, seed)
        if tensor.name == "blk.3.ffn_down.weight":
            out[0, -1] = 1  # a random neuron would be heard
        return out

    make = pad.make
    monkeypatch.setattr(pad, "make", damaged)
    with pytest.raises(BackendError, match="blk.3.ffn_down.weight was not stored as computed"):
        pad.pad(small, tmp_path / "wide.gguf", **SIZES)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", quantize.FILE_TYPES)
def test_quantized_the_added_weights_still_write_nothing(wide, tmp_path, kind):
    quantize.quantize(wide, tmp_path / "small.gguf", kind)
    weights, types = stored(tmp_path / "small.gguf"), set()
    for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors:
        types.add(tensor.tensor_type.name)
    assert types >= {{"q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k_m": "Q4_K"}[kind], "F32"}
    assert weights["blk.0.attn_output.weight"][:64, :64].any()
    assert weights["blk.2.ffn_down.weight"][:64, :96].any()
    assert not weights["blk.0.attn_output.weight"][64:].any()
    assert not weights["blk.0.attn_output.weight"][:, 64:].any()
    assert not weights["blk.2.ffn_down.weight"][:, 96:].any()
    assert not weights["token_embd.weight"][:, 64:].any()
    assert value(tmp_path / "small.gguf", "tokenizer.chat_template") == TEMPLATE


def test_the_quantizer_is_silent_and_its_log_is_kept(wide, tmp_path, caplog, capfd):
    said = []
    with caplog.at_level(logging.DEBUG, logger="edgespec.export.gguf.quantize"):
        quantize.quantize(wide, tmp_path / "q.gguf", "q8_0", progress=lambda *s: said.append(s))
    assert capfd.readouterr() == ("", "")
    assert "blk.0.attn_q.weight" in caplog.text
    assert {what for what, _ in said} == {"quantizing to q8_0"}
    assert [share for _, share in said] == sorted(share for _, share in said)
    assert said[-1][1] == 1


@pytest.mark.slow
def test_what_cannot_be_quantized_is_refused_in_one_line(wide, tmp_path):
    quantize.quantize(wide, tmp_path / "q.gguf", "q8_0")
    (tmp_path / "text.gguf").write_text("no model")
    cases = [
        (tmp_path / "q.gguf", "q4_0", BackendError, "q.gguf could not be quantized to q4_0"),
        (tmp_path / "text.gguf", "q4_0", ModelFileError, "not a complete GGUF"),
        (tmp_path / "absent.gguf", "q4_0", ModelFileError, "cannot be read"),
        (wide, "q5_9", UsageError, "kind is 'q5_9': expected one of q8_0, q4_0, q4_k_m"),
        (wide, "f16", UsageError, "kind is 'f16'"),
    ]
    for source, kind, error, message in cases:
        with pytest.raises(error, match=message) as refusal:
            quantize.quantize(source, tmp_path / "out.gguf", kind)
        assert "\n" not in str(refusal.value)
    assert sorted(os.listdir(tmp_path)) == ["q.gguf", "text.gguf"]


def test_interrupting_the_quantizer_stops_it_and_leaves_nothing(wide, tmp_path, monkeypatch):
    processes = []
    popen = quantize.subprocess.Popen

    def started(*args, **options):
        processes.append(popen(*args, **options))
        return processes[0]

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize.subprocess, "Popen", started)
    monkeypatch.setattr(quantize.log, "debug", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize.quantize(wide, tmp_path / "q.gguf", "q4_k_m")
    assert processes[0].returncode == -9 or os.name == "nt"
    assert os.listdir(tmp_path) == []


@pytest.fixture
def small_recipe(monkeypatch):
    for name, size in SIZES.items():
        monkeypatch.setattr(pad, name.upper(), size)


@pytest.mark.slow
def test_a_padded_model_is_made_once_for_each_source(small, tmp_path, monkeypatch, small_recipe):
    said = []
    path = pad.padded("q8_0", small, tmp_path / "new" / "cache", lambda *s: said.append(s))
    made = sorted(os.listdir(path.parent))
    assert [what for what, share in said if share == 1] == [
        "padding tiny to 0.01 B parameters",
        "quantizing to q8_0",
    ]
    said.clear()
    assert made == sorted([path.name, path.name.replace("q8_0", "f16")])
    assert path.name.startswith("padded-") and path.name.endswith("-512x5x512-r1-q8_0.gguf")
    before = path.stat().st_mtime_ns
    assert pad.padded("q8_0", small, path.parent, lambda *s: said.append(s)) == path
    assert (path.stat().st_mtime_ns, said) == (before, [])
    other = write_llama(tmp_path / "other.gguf", n_layers=1)
    assert pad.padded("f16", other, path.parent) not in (path, path.parent / made[0])


def test_an_unknown_kind_of_padded_model_names_the_known(small, tmp_path):
    with pytest.raises(UsageError, match="'int9': expected f16, q8_0, q4_0, q4_k_m"):
        pad.padded("int9", small, tmp_path)
    with pytest.raises(ModelFileError, match="absent cannot be read"):
        pad.padded("f16", tmp_path / "absent", tmp_path)


def test_two_may_ask_for_a_padded_model_at_once(small, tmp_path, monkeypatch, small_recipe, wide):
    together = threading.Barrier(2, timeout=10)
    write = pad.write

    def write_together(*args):
        together.wait()
        write(*args)

    monkeypatch.setattr(pad, "write", write_together)
    paths = []
    threads = [
        threading.Thread(target=lambda: paths.append(pad.padded("f16", small, tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [paths[0]] * 2
    assert os.listdir(tmp_path) == [paths[0].name]
    assert paths[0].read_bytes() == wide.read_bytes()


def test_leftovers_of_a_crash_are_removed_and_running_work_is_not(tmp_path):
    old, young = (tmp_path / f"m.gguf.{word}.part" for word in ("0ld0ld00", "y0ungy0u"))
    for partial in (old, young):
        partial.write_bytes(b"part")
    long_ago = time.time() - 2 * gguf_file.STALE_S
    os.utime(old, (long_ago, long_ago))
    gguf_file.remove_stale(tmp_path)
    assert os.listdir(tmp_path) == [young.name]
