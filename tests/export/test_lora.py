"""An exported adapter makes llama.cpp and ONNX Runtime say what the merged model says."""

from __future__ import annotations

import ctypes
import json
import math
import shutil
from contextlib import closing
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import onnxruntime
import pytest
from edgespec.export.align.gguf_lora import open_gguf_lora
from edgespec.export.lora import Adapted, Lora, export, halved, open_lora, write_gguf
from edgespec.export.onnx.export import export as export_onnx
from edgespec.export.onnx.graph import GraphOptions, write_graph
from edgespec.export.read.checkpoint import Checkpoint
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.export.read.hf import open_hf
from graph_runner import graph_run, inputs_of, session_of
from hf_maker import hf_name, interleaved, write_adapter
from llama_reference import numpy_logits, write_llama

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.llamacpp.library import library
from edgespec.cli import main
from edgespec.errors import EdgeSpecError, ModelFileError, UsageError
from edgespec.store import pairs

HEAD_DIM, TOKENS = 16, [1, 5, 90, 7, 7, 31, 2, 64]
HALVED = 3e-3  # of the largest logit: what an adapter in F16 may be off
SHAPES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
}
MODULES = {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in SHAPES.items()}
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in F32, as a GGUF."""
    return write_llama(
        tmp_path_factory.mktemp("base") / "base.gguf", n_kv_heads=2, dtype=np.float32
    )


def merged(base: Path, path: Path, added: dict[str, np.ndarray]) -> Path:
    """The base with what an adapter adds, by Hugging Face's names and order of rows."""
    shutil.copyfile(base, path)
    for tensor in gguf.GGUFReader(path, "r+").tensors:
        module = hf_name(tensor.name).removesuffix(".weight")
        if module in added:
            more = added[module]
            if module.endswith(("q_proj", "k_proj")):
                more = interleaved(more, HEAD_DIM)
            tensor.data[...] += more
    return path


def llama_cpp_adapted(path: Path, adapter: Path) -> np.ndarray:
    """Logits [T, V] of TOKENS by llama.cpp with an adapter on; the cache in F32."""
    library()  # routes llama.cpp's log to Python's
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    loaded = llama_cpp.llama_adapter_lora_init(model, str(adapter).encode())
    assert loaded, "llama.cpp refuses the adapter"
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = 64
    options.type_k = options.type_v = 0  # F32, and attention in F32 as well
    options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.n_threads = options.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, options)
    adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded)
    scales = (ctypes.c_float * 1)(1.0)
    assert llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales) == 0
    batch = llama_cpp.llama_batch_init(64, 0, 1)
    batch.n_tokens = len(TOKENS)
    for i, token in enumerate(TOKENS):
        batch.token[i], batch.pos[i], batch.logits[i] = token, i, 1
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
    assert llama_cpp.llama_decode(context, batch) == 0
    size = (len(TOKENS) * 96,)
    out = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), size).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return out.reshape(len(TOKENS), 96)


def write_merged(
    base: Path, tmp_path: Path, scales: dict[str, float], **given: object
) -> tuple[Path, np.ndarray]:
    """An adapter's folder, and float64 logits of the base merged with it by hand."""
    folder = tmp_path / "adapter"
    added = write_adapter(folder, MODULES, **given)  # type: ignore[arg-type]
    whole = {module: more * scales.get(module, scales[""]) for module, more in added.items()}
    return folder, numpy_logits(merged(base, tmp_path / "merged.gguf", whole), TOKENS)


# The adapter's configuration, and the scale of each module by hand.
CONFIGURATIONS = {
    "plain": ({}, {"": 1.5}),
    "rank-stabilized": ({"use_rslora": True}, {"": 3.0}),
    "patterns": (
        {
            "ranks": {Q: 2},
            "rank_pattern": {"layers.0.self_attn.q_proj": 2},
            "alpha_pattern": {r"model.layers.\d.mlp.up_proj": 2.0},
        },
        {"": 1.5, Q: 3.0, **{f"model.layers.{i}.mlp.up_proj": 0.5 for i in range(2)}},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_llama_cpp_with_the_adapter_says_what_the_merged_model_says(
    base: Path, tmp_path: Path, name: str
) -> None:
    config, scales = CONFIGURATIONS[name]
    folder, expected = write_merged(base, tmp_path, scales, **config)
    (path,) = export(folder, open_gguf_checkpoint(base), tmp_path / "out", kinds=("gguf",))
    seen = llama_cpp_adapted(base, path)
    assert np.abs(seen - expected).max() < HALVED * np.abs(expected).max()
    assert np.abs(seen - numpy_logits(base, TOKENS)).max() > 1
    words = ["export", str(tmp_path / "inside.gguf"), "--merge", "--merged", "f16"]
    assert main(["adapt", *words, "--lora-draft", str(path), "-md", str(base)]) == 0
    off = np.abs(numpy_logits(tmp_path / "inside.gguf", TOKENS) - expected).max()
    assert off < 0.003 * np.abs(expected).max()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_onnx_runtime_with_the_adapter_says_what_the_merged_model_says(
    base: Path, tmp_path: Path, name: str
) -> None:
    config, scales = CONFIGURATIONS[name]
    folder, expected = write_merged(base, tmp_path, scales, **config)
    checkpoint = open_gguf_checkpoint(base)
    (path,) = export(folder, checkpoint, tmp_path / "out", kinds=("onnx",))
    graph = tmp_path / "model.onnx"
    write_graph(checkpoint, graph, GraphOptions("fp32", lora=True))
    assert np.abs(adapted_run(graph, path) - expected).max() < 1e-4


def adapted_run(graph: Path, adapter: Path) -> np.ndarray:
    """Logits [T, V] of TOKENS by ONNX Runtime with an adapter active."""
    loaded, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
    loaded.Load(str(adapter))
    options.add_active_adapter(loaded)
    return graph_run(graph, TOKENS, options)


def test_parameters_can_be_bound_where_active_adapters_count_for_nothing(
    base: Path, tmp_path: Path
) -> None:
    folder, expected = write_merged(base, tmp_path, {"": 1.5})
    checkpoint = open_gguf_checkpoint(base)
    (path,) = export(folder, checkpoint, tmp_path / "out", kinds=("onnx",))
    write_graph(checkpoint, tmp_path / "model.onnx", GraphOptions("fp32", lora=True))
    session = session_of(tmp_path / "model.onnx")
    binding = session.io_binding()
    for name, values in inputs_of(session, TOKENS).items():
        binding.bind_cpu_input(name, values)
    adapter = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
    for name, value in adapter.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    names = [output.name for output in session.get_outputs()]
    logits = binding.copy_outputs_to_cpu()[names.index("logits")][0]
    assert np.abs(logits - expected).max() < 1e-4


def test_a_graph_for_adapters_says_the_same_without_one(base: Path, tmp_path: Path) -> None:
    checkpoint = open_gguf_checkpoint(base)
    for name, with_inputs in (("plain", False), ("lora", True)):
        write_graph(checkpoint, tmp_path / f"{name}.onnx", GraphOptions("fp32", lora=with_inputs))
    plain, other = (graph_run(tmp_path / f"{n}.onnx", TOKENS) for n in ("plain", "lora"))
    assert np.abs(plain - other).max() < 1e-5


def test_parameters_are_the_inputs_of_the_graph(base: Path, tmp_path: Path) -> None:
    checkpoint = open_gguf_checkpoint(base)
    write_adapter(tmp_path / "adapter", MODULES)
    (path,) = export(
        tmp_path / "adapter", checkpoint, tmp_path / "out", kinds=("onnx",), precision="fp16"
    )
    graph = tmp_path / "model.onnx"
    write_graph(checkpoint, graph, GraphOptions("fp16", lora=True))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {i.name: i for i in session.get_overridable_initializers()}
    adapter = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
    assert set(adapter) == set(inputs)
    assert len(adapter) == 28
    for name, value in adapter.items():
        assert inputs[name].type == value.data_type() == "tensor(float16)"


def test_a_checkpoint_of_hugging_face_is_a_base_too(base: Path, tmp_path: Path) -> None:
    from hf_maker import llama_of

    folder, expected = write_merged(base, tmp_path, {"": 1.5})
    checkpoint = open_hf(llama_of(base, tmp_path / "hf"))
    gguf_path, onnx_path = export(folder, checkpoint, tmp_path / "out")
    off = np.abs(llama_cpp_adapted(base, gguf_path) - expected).max()
    assert off < HALVED * np.abs(expected).max()
    write_graph(checkpoint, tmp_path / "model.onnx", GraphOptions("fp32", lora=True))
    assert np.abs(adapted_run(tmp_path / "model.onnx", onnx_path) - expected).max() < 1e-4


def test_a_gguf_adapter_is_in_f16_and_reads_back_so(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "mine", MODULES)
    checkpoint = open_gguf_checkpoint(base)
    (path,) = export(tmp_path / "mine", checkpoint, tmp_path / "out", kinds=("gguf",))
    assert {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors} == {"F16"}
    given, found = open_lora(tmp_path / "mine", checkpoint), open_gguf_lora(path, checkpoint)
    assert set(found.matrices) == set(given.matrices)
    for name, one in given.matrices.items():
        other = found.matrices[name]
        close = {"rtol": 2**-10, "atol": 2**-24}
        assert np.allclose(other.a, one.a, **close)
        assert np.allclose(other.scale * other.b, one.scale * one.b, **close)


def test_an_adapter_in_8_bits_reads_back_so_and_needs_whole_blocks(
    base: Path, tmp_path: Path
) -> None:
    checkpoint, draw = open_gguf_checkpoint(base), np.random.default_rng(0).standard_normal
    name = "blk.0.ffn_gate"
    n_out, n_in = checkpoint.tensors[f"{name}.weight"].shape
    one = Adapted(draw((32, n_in), np.float32), draw((n_out, 32), np.float32), 0.5)
    write_gguf(Lora(base, checkpoint.decoder, {name: one}), tmp_path / "8.gguf", in_8_bits=True)
    assert {one.tensor_type.name for one in gguf.GGUFReader(tmp_path / "8.gguf").tensors} == {
        "Q8_0"
    }
    found = open_gguf_lora(tmp_path / "8.gguf", checkpoint).matrices[name]
    assert np.abs(found.a - one.a).max() < 0.02 * np.abs(one.a).max()
    assert np.abs(found.scale * found.b - 0.5 * one.b).max() < 0.01 * np.abs(one.b).max()
    small = Adapted(one.a[:16], one.b[:, :16], 1.0)
    with pytest.raises(UsageError, match=r"rank 16: expected a multiple of 32 .* --lora 32"):
        write_gguf(Lora(base, checkpoint.decoder, {name: small}), tmp_path / "s", in_8_bits=True)
    assert not (tmp_path / "s").exists()


def test_what_f16_has_no_room_for_stays_in_f32() -> None:
    assert halved(np.float32([[1, -7e4]])).dtype == np.float32
    assert halved(np.float32([[1, -6e4]])).dtype == np.float16


def test_metadata_say_what_the_file_is(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "mine", {Q: (64, 64)})
    (path,) = export(
        tmp_path / "mine", open_gguf_checkpoint(base), tmp_path / "out", kinds=("gguf",)
    )
    reader = gguf.GGUFReader(path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.type"] == "adapter"
    assert said["general.architecture"] == "llama"
    assert said["adapter.type"] == "lora"
    assert said["adapter.lora.alpha"] == 6.0
    assert [t.name for t in reader.tensors] == [
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_q.weight.lora_b",
    ]


def test_the_command_writes_both_files(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(tmp_path / "mine", MODULES)
    words = ["export", "lora", str(tmp_path / "mine"), "--base", str(base)]
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / f"out{end}") for end in (".gguf", ".onnx_adapter")]
    assert all(Path(path).stat().st_size > 1000 for path in printed)
    assert main([*words[:-1], str(tmp_path / "none.gguf")]) == 2
    assert "none.gguf is not there: expected a GGUF" in capsys.readouterr().err
    words[-1] = str(tmp_path / "mine")
    assert main(words) == 2
    assert "is a LoRA adapter: name it as" in capsys.readouterr().err


def opened(base: Path, folder: Path, **given: object) -> Checkpoint:
    write_adapter(folder, {Q: (64, 64)}, **given)  # type: ignore[arg-type]
    return open_gguf_checkpoint(base)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"use_dora": True}, r"has a DoRA adapter \(use_dora\): expected a plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, r"has whole modules .* \(modules_to_save\)"),
        ({"bias": "all"}, "says bias = 'all': expected 'none'"),
        ({"peft_type": "IA3"}, "says peft_type 'IA3': expected LORA"),
        ({"r": 8}, "says r = 8 for model.layers.0.self_attn.q_proj, whose weights have 4"),
        ({"lora_alpha": None}, "says lora_alpha = None: expected a number"),
    ],
)
def test_adapters_of_another_kind_are_refused(
    base: Path, tmp_path: Path, config: dict[str, object], line: str
) -> None:
    checkpoint = opened(base, tmp_path / "mine", **config)
    with pytest.raises(ModelFileError, match=line):
        export(tmp_path / "mine", checkpoint, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("module", "shape", "line"),
    [
        ("model.layers.2.self_attn.q_proj", (64, 64), r"has .*layers.2.*: expected lora_A and"),
        ("model.layers.0.self_attn.z_proj", (64, 64), r"has .*z_proj.*: expected lora_A and lora"),
        ("lm_head", (96, 64), r"has .*lm_head.*: expected lora_A and lora_B of matrices"),
        (Q, (64, 48), r"has \[64, 4\] x \[4, 48\] for blk.0.attn_q: expected \[64, r\] x \[r, 64"),
        (Q, (48, 64), r"has \[48, 4\] x \[4, 64\] for blk.0.attn_q: expected \[64, r\] x \[r, 64"),
    ],
)
def test_tensors_without_a_matrix_they_fit_are_refused(
    base: Path, tmp_path: Path, module: str, shape: tuple[int, int], line: str
) -> None:
    write_adapter(tmp_path / "mine", {module: shape})
    with pytest.raises(ModelFileError, match=line):
        export(tmp_path / "mine", open_gguf_checkpoint(base), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_head_can_be_adapted_in_a_gguf_only(tmp_path: Path) -> None:
    source = write_llama(tmp_path / "a.gguf", tied=False, dtype=np.float32)
    write_adapter(tmp_path / "mine", {"lm_head": (96, 64)})
    checkpoint = open_gguf_checkpoint(source)
    with pytest.raises(EdgeSpecError, match="adapts the head, .* write the other with --to gguf"):
        export(tmp_path / "mine", checkpoint, tmp_path / "out")
    (path,) = export(tmp_path / "mine", checkpoint, tmp_path / "out", kinds=("gguf",))
    seen = llama_cpp_adapted(source, path)
    assert np.abs(seen - numpy_logits(source, TOKENS)).max() > 0.5


def test_incomplete_folders_are_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    checkpoint = opened(base, folder)
    weights = folder / "adapter_model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-8])
    with pytest.raises(ModelFileError, match=r"has \d+ bytes of \d+: expected a complete"):
        export(folder, checkpoint, tmp_path / "out")
    weights.write_bytes(raw.replace(b"lora_B.weight", b"lora_Z.weight"))
    with pytest.raises(ModelFileError, match="lora_Z.weight: expected lora_A and lora_B"):
        export(folder, checkpoint, tmp_path / "out")
    weights.unlink()
    with pytest.raises(ModelFileError, match="has no adapter_model.safetensors: .* safe_serializ"):
        export(folder, checkpoint, tmp_path / "out")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelFileError, match="has no adapter_config.json: expected a folder that"):
        export(folder, checkpoint, tmp_path / "out")


def test_half_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "mine"
    checkpoint = opened(base, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: values for name, values in weights.items() if "lora_A" in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ModelFileError, match="has no lora_B of blk.0.attn_q: expected both"):
        export(folder, checkpoint, tmp_path / "out")
    infinite = {name: np.full_like(values, math.nan) for name, values in weights.items()}
    save_file(infinite, folder / "adapter_model.safetensors")
    with pytest.raises(ModelFileError, match="infinite values in blk.0.attn_q: train it again"):
        export(folder, checkpoint, tmp_path / "out")


def test_nothing_is_written_where_one_of_two_files_cannot_be(base: Path, tmp_path: Path) -> None:
    checkpoint = opened(base, tmp_path / "mine")
    (tmp_path / "out.onnx_adapter").mkdir()
    with pytest.raises(EdgeSpecError, match="cannot be written"):
        export(tmp_path / "mine", checkpoint, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out.onnx_adapter"]


def test_patterns_name_the_end_of_a_module() -> None:
    from edgespec.export.lora import matching

    patterns = json.loads('{"q_proj": 2, "layers.1.mlp.up_proj": 3, "[": 9}')
    assert matching(patterns, Q, 4) == 2
    assert matching(patterns, "model.layers.1.mlp.up_proj", 4) == 3
    assert matching(patterns, "model.layers.11.mlp.up_proj", 4) == 4
    assert matching(patterns, "model.layers.0.self_attn.aq_proj", 4) == 4
    assert matching(None, Q, 4) == 4


@pytest.mark.slow
def test_a_model_is_opened_with_an_adapter_by_either_backend(tmp_path: Path):
    drafter = pairs.folder() / "demo" / "drafter.gguf"
    checkpoint = open_gguf_checkpoint(drafter)
    shapes = {
        hf_name(name).removesuffix(".weight"): tensor.shape
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("blk.") and len(tensor.shape) == 2
    }
    write_adapter(tmp_path / "adapter", shapes)
    gguf_file, onnx_file = export(tmp_path / "adapter", checkpoint, tmp_path / "lora")
    folder = tmp_path / "graph"
    export_onnx(checkpoint, folder, GraphOptions("fp32", lora=True))
    rows = {}
    for path, adapter in ((drafter, gguf_file), (folder, onnx_file)):
        for lora in ("", str(adapter)):
            with closing(open_model(path, ModelOptions(n_context=64, lora=lora))) as model:
                rows[path, bool(lora)] = model.forward(TOKENS).copy()
    assert np.abs(rows[drafter, True] - rows[drafter, False]).max() > 1
    spread = np.abs(rows[drafter, True]).max()
    assert np.abs(rows[drafter, True] - rows[folder, True]).max() < 0.02 * spread
    (tmp_path / "adapter.txt").write_text("no adapter")
    for path in (drafter, folder):
        with pytest.raises(EdgeSpecError, match="check --lora-draft"):
            open_model(path, ModelOptions(n_context=64, lora=str(tmp_path / "none")))
        with pytest.raises(ModelFileError, match="edgespec export lora"):
            open_model(path, ModelOptions(n_context=64, lora=str(tmp_path / "adapter.txt")))


@pytest.mark.parametrize(
    ("adapter", "out", "line"),
    [
        ("", "new.gguf", "--merge has no adapter: expected --lora-draft FILE"),
        ("adapter.onnx_adapter", "new.gguf", "--merge has"),
        ("nowhere.gguf", "new.gguf", "nowhere.gguf cannot be read"),
        ("base.gguf", "new.gguf", "is no adapter of a 'llama': expected a LoRA of base.gguf"),
        ("other.gguf", "new.gguf", "for blk.0.attn_q: expected [64, r] x [r, 64]"),
        (
            "fewer.gguf",
            "new.gguf",
            "is of a model of 1 layers: expected one of base.gguf, which has",
        ),
        ("strange.gguf", "new.gguf", "has strange.lora_a: expected lora_a and lora_b of matrices"),
        ("coarse.gguf", "new.gguf", "as Q4_0: expected F32, F16, BF16, Q8_0; train it again"),
        ("adapter.gguf", "new", "new: expected a new file's name that ends in .gguf"),
        ("adapter.gguf", "base.gguf", "base.gguf: expected a new file's name"),
        ("adapter.gguf", "adapter.gguf", "adapter.gguf: expected a new file's name"),
    ],
)
def test_what_cannot_be_merged_is_one_line(
    adapter: str, out: str, line: str, base: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(base, "base.gguf")
    write_adapter(tmp_path / "adapter", MODULES)
    export(tmp_path / "adapter", open_gguf_checkpoint(base), tmp_path / "adapter")
    matrix = "blk.0.attn_q.weight"
    for name, tensor in {
        "other": matrix, "fewer": matrix, "strange": "strange", "coarse": matrix
    }.items():  # fmt: skip
        writer = gguf.GGUFWriter(f"{name}.gguf", "llama")
        if name == "fewer":
            writer.add_block_count(1)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        down = np.ones((2, 32), np.float32)
        if name == "coarse":
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(f"{tensor}.lora_a", gguf.quants.quantize(down, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{tensor}.lora_a", down)
        writer.add_tensor(f"{tensor}.lora_b", np.ones((64, 2), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    before = sorted(tmp_path.iterdir())
    given = ["--lora-draft", adapter] if adapter else []
    assert main(["adapt", "export", out, "--merge", "-md", "base.gguf", *given]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
