"""What only the llama.cpp backend does; tests/conformance has what every backend must do."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_maker import Gguf, string, u32, with_keys
from model_maker import DEMO

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.gguf.check import check_file
from edgespec.backends.gguf.file import read_header
from edgespec.device import Others
from edgespec.errors import (
    BackendError,
    Cancelled,
    ContextError,
    ModelFileError,
    ShapeError,
    TokenizerError,
    UsageError,
)
from edgespec.types import FloatArray

llama_cpp = pytest.importorskip("llama_cpp")

from edgespec.backends.gguf import trial as gguf_trial  # noqa: E402
from edgespec.backends.gguf.seen import ENOUGH  # noqa: E402
from edgespec.backends.gguf.tried import Tried, remember, remembered  # noqa: E402
from edgespec.backends.llamacpp import library  # noqa: E402
from edgespec.backends.llamacpp import opening as llamacpp_opening  # noqa: E402
from edgespec.backends.llamacpp.model import LlamaCppModel, LlamaCppTokenizer  # noqa: E402

PROMPT = [1, 403, 407, 261, 378, 383, 286, 261, 376, 298]
ROOT = Path(__file__).resolve().parents[2]


def opened(path: Path, **options: Any) -> LlamaCppModel:
    return LlamaCppModel(path, ModelOptions(**{"n_threads": 1, **options}), loading="map")


@pytest.fixture(scope="module")
def shared(stories260k: Path) -> Iterator[LlamaCppModel]:
    model = opened(stories260k, hidden_states=True, max_leaves=3)
    yield model
    model.close()


@pytest.fixture
def model(shared: LlamaCppModel) -> LlamaCppModel:
    shared.truncate(0)
    return shared


def weights(path: Path, name: str) -> FloatArray:
    """A tensor of F32 weights, slow dimension first."""
    tensor = read_header(path).tensors[name]
    raw = path.read_bytes()[tensor.offset : tensor.offset + tensor.n_bytes]
    return np.frombuffer(raw, np.float32).reshape(tensor.shape[::-1])


# --- forward


def test_logits_are_a_view_of_the_same_memory(model: LlamaCppModel) -> None:
    first = model.forward(PROMPT)
    before = first.copy()
    second = model.forward(PROMPT[::-1])
    assert not first.flags.owndata
    assert first.ctypes.data == second.ctypes.data
    assert np.array_equal(first, second)
    assert not np.array_equal(before, second)


def test_hidden_states_times_the_output_matrix_are_the_logits(
    model: LlamaCppModel, stories260k: Path
) -> None:
    logits = model.forward(PROMPT)
    names = read_header(stories260k).tensors
    output = "output.weight" if "output.weight" in names else "token_embd.weight"
    assert model.hidden.shape == (len(PROMPT), model.n_embd)
    assert np.allclose(model.hidden @ weights(stories260k, output).T, logits, atol=0.05)


def test_without_the_option_there_are_no_hidden_states(stories260k: Path) -> None:
    model = opened(stories260k)
    model.forward(PROMPT)
    assert model.hidden.shape == (0, model.n_embd)
    model.close()


def test_extend_with_hidden_states_reads_the_same(model: LlamaCppModel) -> None:
    expected = model.forward(PROMPT)[-1].copy()
    model.truncate(0)
    model.extend(PROMPT[:-2])
    assert np.allclose(model.forward(PROMPT[-2:])[-1], expected, atol=0.02)


def test_vectors_of_the_embedding_table_act_like_their_tokens(
    model: LlamaCppModel, stories260k: Path
) -> None:
    expected = model.forward(PROMPT).copy()
    table = weights(stories260k, "token_embd.weight")
    model.truncate(0)
    model.extend_embeddings(table[PROMPT[:4]])
    assert np.allclose(model.forward_embeddings(table[PROMPT[4:]]), expected[4:], atol=0.02)
    assert model.length == len(PROMPT)
    with pytest.raises(ShapeError, match=r"\(2, 3\): expected \(n, 64\)"):
        model.forward_embeddings(np.zeros((2, 3), np.float32))


def test_more_rows_than_a_batch_holds_come_in_one_array(model: LlamaCppModel) -> None:
    tokens = [3 + i % 500 for i in range(150)]
    logits, hidden = model.forward(tokens), model.hidden
    assert logits.shape == (150, 512)
    assert hidden.shape == (150, 64)
    assert model.length == 150
    whole, states = logits.copy(), hidden.copy()
    model.truncate(0)
    for start in range(0, 150, 50):
        assert np.allclose(
            model.forward(tokens[start : start + 50]), whole[start : start + 50], atol=0.02
        )
        assert np.allclose(model.hidden, states[start : start + 50], atol=0.02)


def test_a_prompt_of_several_batches_is_read_whole(model: LlamaCppModel) -> None:
    tokens = [3 + i % 500 for i in range(400)]
    model.extend(tokens)
    assert model.length == 400
    pieces = model.forward([7])[0].copy()
    model.truncate(0)
    model.forward(tokens)
    assert np.allclose(model.forward([7])[0], pieces, atol=0.02)


def test_a_tree_equals_its_paths_bit_for_bit(model: LlamaCppModel) -> None:
    model.extend(PROMPT)
    tree = model.forward([10, 20, 30, 40], [-1, 0, 0, 2]).copy()
    model.keep([])
    for node, path in ((1, [10, 20]), (2, [10, 30]), (3, [10, 30, 40])):
        assert np.array_equal(model.forward(path)[-1], tree[node])
        model.keep([])


@pytest.mark.parametrize(
    ("tokens", "parents", "said"),
    [
        ([5] * 4, [-1] * 4, "4 nodes and 4 leaves: expected at most 64 nodes and 3 leaves"),
        ([5] * 70, [-1, *[0] * 2, *range(2, 69)], "70 nodes"),
        ([5, 5], [-1], "1 parents for 2 tokens"),
        ([5, 5], [1, -1], "each before its child"),
        ([5, 5], [-2, -1], "each before its child"),
        ([512], None, "token 512 is unknown: expected 0 to 511"),
        ([-1], None, "token -1 is unknown"),
        ([1 << 40], None, "expected whole numbers"),
    ],
)
def test_bad_forwards_are_refused_and_change_nothing(
    model: LlamaCppModel, tokens: list[int], parents: list[int] | None, said: str
) -> None:
    model.extend(PROMPT)
    with pytest.raises(ShapeError, match=said):
        model.forward(tokens, parents)
    assert model.length == len(PROMPT)
    assert model.forward([5]).shape == (1, 512)


def test_after_a_tree_only_keep_or_truncate_may_follow(model: LlamaCppModel) -> None:
    model.extend(PROMPT)
    expected = model.forward([7, 8])[-1].copy()
    model.keep([])
    model.forward([10, 20], [-1, -1])
    with pytest.raises(ShapeError, match="keep"):
        model.forward([5])
    with pytest.raises(ShapeError, match="path from the top"):
        model.keep([0, 1])
    model.truncate(len(PROMPT))
    assert np.array_equal(model.forward([7, 8])[-1], expected)


def test_truncate_cannot_lengthen(model: LlamaCppModel) -> None:
    model.extend(PROMPT)
    for n in (-1, len(PROMPT) + 1):
        with pytest.raises(ShapeError, match=f"truncate {len(PROMPT)} tokens to {n}"):
            model.truncate(n)


# --- stopping


def test_cancel_stops_inside_a_batch(
    model: LlamaCppModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.extend(PROMPT)
    expected = model.forward([7, 8])[-1].copy()
    model.keep([])
    caplog.set_level(logging.DEBUG, "edgespec.llamacpp")
    aborted = "removing memory module entries"  # llama.cpp's words when its callback said stop
    for _ in range(300):
        timer = threading.Timer(0.001, model.cancel)
        timer.start()
        try:
            model.extend([5] * 250)
        except Cancelled:
            assert model.length == len(PROMPT)
        timer.join()
        model.truncate(len(PROMPT))
        if aborted in caplog.text:
            break
    assert aborted in caplog.text
    assert np.array_equal(model.forward([7, 8])[-1], expected)


def test_cancel_between_calls_does_nothing(model: LlamaCppModel) -> None:
    model.cancel()
    assert model.forward(PROMPT).shape == (len(PROMPT), 512)


def test_an_interrupt_inside_a_forward_leaves_the_cache_as_it_was(
    model: LlamaCppModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.extend(PROMPT)
    expected = model.forward([7, 8])[-1].copy()
    model.keep([])
    real = llama_cpp.llama_decode

    def interrupted(*arguments: Any) -> int:
        real(*arguments)
        raise KeyboardInterrupt

    for parents in (None, [-1, -1]):
        monkeypatch.setattr(llama_cpp, "llama_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.forward([5, 6], parents)
        monkeypatch.setattr(llama_cpp, "llama_decode", real)
        assert model.length == len(PROMPT)
        assert np.array_equal(model.forward([7, 8])[-1], expected)
        model.keep([])


def test_a_failing_decode_is_one_error_and_changes_nothing(
    model: LlamaCppModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.extend(PROMPT)
    monkeypatch.setattr(llama_cpp, "llama_decode", lambda *_: -3)
    with pytest.raises(BackendError, match="returned -3"):
        model.forward([5])
    monkeypatch.undo()
    assert model.length == len(PROMPT)
    assert model.forward([5]).shape == (1, 512)


def test_logits_that_are_no_numbers_are_never_emitted(stories260k: Path, tmp_path: Path) -> None:
    made, path = Gguf.read(stories260k), tmp_path / "nan.gguf"
    at = made.tensors["output_norm.weight"].offset
    made.data = made.data[:at] + b"\xff\xff\xff\x7f" + made.data[at + 4 :]
    path.write_bytes(made.bytes())
    model = opened(path)
    with pytest.raises(BackendError, match="nan.gguf computed logits that are not numbers"):
        model.forward(PROMPT)
    assert model.length == 0
    model.close()


# --- opening


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "CUDA7"}, "device 'CUDA7' is not here: expected one of auto, cpu"),
        (
            {"kv_type": "q8_0"},
            "fit the heads of 8 in stories.*a multiple of 32; use f16",
        ),
        ({"n_context": -5}, "-c is -5"),
        ({"n_threads": -1}, "-t is -1"),
        ({"max_leaves": 300}, "max_leaves is 300: expected 1 to 255"),
    ],
)
def test_a_bad_option_is_one_clear_line(
    stories260k: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        opened(stories260k, **options)


@pytest.mark.parametrize(
    ("kv_type", "share", "most"), [("q8_0", 17 / 32, 0.1), ("q4_0", 9 / 32, 1)]
)
def test_a_quantized_cache_takes_its_share_and_moves_logits_little(
    kv_type: str, share: float, most: float
) -> None:
    tokens, logits, n_bytes = list(range(300, 340)), [], []
    for one in ("f16", kv_type):
        model = opened(DEMO, kv_type=one, n_context=256)
        model.extend(tokens[:-4])
        logits.append(model.forward(tokens[-4:]).copy())
        n_bytes.append(model.kv_bytes)
        model.close()
    assert n_bytes[1] == share * n_bytes[0]
    assert 0 < np.abs(logits[0] - logits[1]).max() < most


def test_a_context_that_does_not_fit_in_memory_is_refused(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamacpp_opening, "free_memory", lambda: 10 << 20)
    with pytest.raises(ContextError, match=r"takes 12 MiB.*the 10 MiB that are free; try -c 16128"):
        opened(stories260k, n_context=20000)
    opened(stories260k, n_context=10000).close()


def test_the_context_is_the_models_own_at_most_4096(stories260k: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(with_keys(stories260k, llama__context_length=u32(100000)))
    model = opened(path)
    assert model.n_context == 4096
    model.close()
    model = opened(stories260k)
    assert model.n_context == 512
    model.close()


def test_the_cache_takes_the_bytes_foreseen(
    stories260k: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgespec.llamacpp")
    model = opened(stories260k, n_context=4000)
    model.close()
    assert f"KV buffer size = {model.kv_bytes / 2**20:8.2f} MiB" in caplog.text


def test_info_tells_what_the_model_is(model: LlamaCppModel, stories260k: Path) -> None:
    info = model.info()
    assert (info.backend, info.architecture, info.quant) == ("llamacpp", "llama", "all F32")
    assert info.n_params == model.n_params == 292800
    assert info.n_bytes == stories260k.stat().st_size
    assert info.sha256.startswith("be81d7dda1eb262f")


def test_a_path_may_have_any_letters(stories260k: Path, tmp_path: Path) -> None:
    path = tmp_path / "modèle 模型.gguf"
    path.write_bytes(stories260k.read_bytes())
    model = opened(path)
    assert model.n_vocab == 512
    model.close()


def test_llama_cpps_reason_is_in_the_error(stories260k: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(with_keys(stories260k, tokenizer__ggml__model=string("abacus")))
    with pytest.raises(ModelFileError, match=r"m.gguf was refused \(unknown tokenizer: 'abacus'\)"):
        opened(path)


def test_a_model_of_diffusion_is_refused(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_model_is_diffusion", lambda _: True)
    with pytest.raises(ModelFileError, match="writes by diffusion: expected one token after ano"):
        opened(stories260k)


def test_the_registry_opens_it_after_a_real_trial(
    stories260k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    model = open_model(stories260k, ModelOptions(n_threads=1))
    assert model.forward(PROMPT).shape == (len(PROMPT), 512)
    model.close()
    assert "stories260K" in (tmp_path / "models-tried.json").read_text()
    monkeypatch.setattr(gguf_trial, "CHILD", "import os; os.abort()")
    open_model(stories260k, ModelOptions(n_threads=1)).close()


@pytest.mark.parametrize(("token_s", "is_wrong"), [(900.0, True), (None, False)])
def test_a_model_notices_in_use_that_its_trial_was_wrong(
    stories260k: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token_s: float | None,
    is_wrong: bool,
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    monkeypatch.setattr(llamacpp_opening, "ways_of", lambda *_: ("repack", "map"))
    monkeypatch.setattr(Others, "compute", False)
    version, times = llamacpp_opening.library().version, {"1": token_s or 1.0}
    known = Tried({"repack": times, "map": None}, timed=True, n_threads=1)
    remember([stories260k], version, known)
    model = open_model(stories260k, ModelOptions(n_threads=1))
    with monkeypatch.context() as patch:
        if token_s is None:  # the clock shows what the trial has found
            patch.setattr("edgespec.backends.gguf.seen.perf_counter", count(0.0, 1.0).__next__)
        for _ in range(ENOUGH + 1):
            model.forward([1])
    model.close()
    now = remembered([stories260k], version)
    assert now is not None and (now.doubt.since > 0) == is_wrong


def test_quantized_models_may_be_repacked_and_others_are_mapped(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []

    def best_way(files: Any, ways: tuple[str, ...], *_: Any) -> str:
        seen.append(ways)
        return ways[0]

    monkeypatch.setattr(llamacpp_opening, "best_way", best_way)
    opened_library = LlamaCppModel(stories260k, ModelOptions(n_threads=1))
    library = opened_library._lib
    opened_library.close()
    header = check_file(stories260k)
    monkeypatch.setattr(llamacpp_opening, "ways_of", lambda *_: ("repack", "map"))
    llamacpp_opening.safe_loading(header, ModelOptions(), library)
    monkeypatch.setattr(llamacpp_opening, "free_memory", lambda: 1000)
    llamacpp_opening.safe_loading(header, ModelOptions(), library)
    assert seen == [("map",), ("repack", "map"), ("map",)]


def test_exact_weights_are_reordered_without_amx(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(llamacpp_opening, "best_way", lambda _, ways, *__: seen.append(ways))
    monkeypatch.setattr(llamacpp_opening, "ways_of", lambda *_: ("repack", "cpu-repack", "map"))
    library = llamacpp_opening.library()
    options = ModelOptions(device="cpu", exact=True)
    llamacpp_opening.safe_loading(check_file(stories260k), options, library)
    assert seen == [("cpu-repack", "map")]


# --- handles


@pytest.mark.slow
def test_fifty_openings_leak_nothing(stories260k: Path) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()

    def cycle() -> None:
        model = opened(stories260k, n_context=256)
        model.forward(PROMPT)
        model.close()

    for _ in range(5):
        cycle()
    gc.collect()
    memory, files = process.memory_info().rss, len(process.open_files())
    for _ in range(50):
        cycle()
    gc.collect()
    assert process.memory_info().rss - memory < 8 << 20
    assert len(process.open_files()) == files


def test_a_forgotten_model_is_freed(stories260k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[str] = []
    real = {name: getattr(llama_cpp, name) for name in ("llama_free", "llama_model_free")}
    for name, function in real.items():
        monkeypatch.setattr(
            llama_cpp, name, lambda p, n=name, f=function: (freed.append(n), f(p))[1]
        )
    model = opened(stories260k)
    del model
    gc.collect()
    assert freed == ["llama_free", "llama_model_free"]


def test_a_closed_model_says_so(stories260k: Path) -> None:
    model = opened(stories260k)
    tokenizer = model.tokenizer
    model.close()
    model.close()
    for call in (lambda: model.forward([1]), lambda: model.extend([1]), lambda: model.truncate(0)):
        with pytest.raises(BackendError, match="closed"):
            call()
    with pytest.raises(TokenizerError, match="closed"):
        tokenizer.encode("x")


def test_closing_while_another_thread_reads_is_safe(stories260k: Path) -> None:
    for delay in (0.001, 0.004, 0.01):
        model = opened(stories260k)
        ended: list[type[BaseException]] = []

        def read(model: LlamaCppModel = model, ended: Any = ended) -> None:
            try:
                while True:
                    model.extend([5] * 500)
                    model.truncate(0)
            except (Cancelled, BackendError) as error:
                ended.append(type(error))

        thread = threading.Thread(target=read)
        thread.start()
        threading.Event().wait(delay)
        model.close()
        thread.join(20)
        assert ended[0] in (Cancelled, BackendError)


def test_nothing_is_printed_by_default(stories260k: Path, data_folder: Path) -> None:
    warns = data_folder / "vocab" / "ggml-vocab-phi-3.gguf"  # llama.cpp complains of a token
    script = f"""
from pathlib import Path
from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel, LlamaCppTokenizer
LlamaCppTokenizer.open(Path({str(warns)!r}))
model = LlamaCppModel(Path({str(stories260k)!r}), ModelOptions(n_threads=1), loading="map")
model.forward([1, 2, 3])
kept = model.forward([4])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("llama_kv_cache_iswa: using full-size SWA cache (ref: https://...)", "DEBUG"),
        ("llama_context: n_ctx_seq (256) < n_ctx_train (512) -- the full capacity of the model "
         "will not be utilized", "DEBUG"),
        ("llama_context: n_ctx_seq (512) > n_ctx_train (256) -- possible training context "
         "overflow", "WARNING"),
        ("llama_kv_cache: the V embeddings have different sizes across layers and FA is not "
         "enabled - padding V cache to 512", "DEBUG"),
        ("sched_reserve: Flash Attention not supported, set to disabled", "DEBUG"),
        ("model has unused tensor blk.9.x (size = 64 bytes) -- ignoring", "DEBUG"),
        ("load: special_eos_id is not in special_eog_ids - the tokenizer config may be "
         "incorrect", "DEBUG"),
        ("load: GENERATION QUALITY WILL BE DEGRADED!", "WARNING"),
        ("load: missing pre-tokenizer type, using: 'default'", "WARNING"),
    ],
)  # fmt: skip
def test_a_warning_that_leaves_nothing_to_do_is_for_developers(
    line: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edgespec.llamacpp")
    library.library()._on_log(3, f"{line}\n".encode(), None)
    assert [record.levelname for record in caplog.records] == [level]


def test_the_log_goes_to_pythons(stories260k: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "edgespec.llamacpp")
    opened(stories260k).close()
    assert "n_ctx_seq" in caplog.text
    assert {record.name for record in caplog.records} == {"edgespec.llamacpp"}


def test_the_cpu_is_among_the_devices() -> None:
    kinds = {device.kind: device for device in library.devices()}
    assert kinds["cpu"].name == "CPU"
    assert kinds["cpu"].memory > 1 << 28
    assert kinds["cpu"].description


def test_fewer_threads_may_compute_from_the_next_call_on(stories260k: Path) -> None:
    model = opened(stories260k, n_threads=2)
    count = model._lib.api.llama_n_threads
    expected = model.forward(PROMPT)[-1].copy()
    for asked, used in ((1, 1), (9, 2), (0, 2)):
        model.use_threads(asked)
        assert count(model._context) == used
        model.truncate(0)
        assert np.allclose(model.forward(PROMPT)[-1], expected, atol=0.02)
    model.close()
    with pytest.raises(BackendError, match="closed"):
        model.use_threads(1)


# --- tokenizer

VOCABULARIES = ("llama-spm", "phi-3", "gpt-2", "qwen2", "llama-bpe")


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(
    request: pytest.FixtureRequest, data_folder: Path
) -> Iterator[tuple[LlamaCppTokenizer, Path]]:
    path = data_folder / "vocab" / f"ggml-vocab-{request.param}.gguf"
    tokenizer = LlamaCppTokenizer.open(path)
    yield tokenizer, path
    tokenizer.close()


@pytest.mark.slow
def test_texts_become_the_ids_of_the_reference(vocabulary: tuple[LlamaCppTokenizer, Path]) -> None:
    tokenizer, path = vocabulary
    texts = Path(f"{path}.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    lines = Path(f"{path}.out").read_text("utf-8").splitlines()
    assert len(texts) == len(lines) > 40
    for text, line in zip(texts, lines, strict=True):
        ids = tokenizer.encode(text)
        assert ids == [int(word) for word in line.split()], repr(text)
        whole = b"".join(tokenizer.piece(token) for token in ids).decode()
        assert whole.lstrip(" ") == text.lstrip(" ")


@pytest.mark.slow
@pytest.mark.parametrize("special", [False, True])
def test_tokens_read_at_once_are_what_each_is_alone(
    vocabulary: tuple[LlamaCppTokenizer, Path], special: bool
) -> None:
    tokenizer, _ = vocabulary
    read = [tokenizer.piece(token, special=special) for token in range(tokenizer.n_vocab)]
    assert len(tokenizer._pieces[special]) == tokenizer.n_vocab
    for token in range(0, tokenizer.n_vocab, 7):
        assert tokenizer._piece(token, special) == read[token]


@pytest.mark.slow
def test_a_token_that_ends_is_told_without_looking_at_all(
    vocabulary: tuple[LlamaCppTokenizer, Path],
) -> None:
    tokenizer = LlamaCppTokenizer.open(vocabulary[1])
    ends = tokenizer.stop_tokens
    assert tokenizer.eos in ends
    assert not any(one in ends for one in (-1, tokenizer.n_vocab, "</s>"))
    assert "_all" not in vars(ends)
    every = {token for token in range(tokenizer.n_vocab) if token in ends}
    assert ends == every and len(ends) == len(every) and ends & every == every


def test_special_tokens_are_text_unless_asked_for(
    vocabulary: tuple[LlamaCppTokenizer, Path],
) -> None:
    tokenizer, _ = vocabulary
    assert tokenizer.eos is not None
    spelling = tokenizer.text(tokenizer.eos)
    assert tokenizer.eos in tokenizer.stop_tokens
    assert tokenizer.encode(spelling, special=True)[-1] == tokenizer.eos
    assert tokenizer.eos not in tokenizer.encode(spelling)
    assert tokenizer.piece(tokenizer.eos, special=True) == spelling.encode()


def test_the_first_token_is_added_where_the_vocabulary_wants_one(
    vocabulary: tuple[LlamaCppTokenizer, Path],
) -> None:
    tokenizer, path = vocabulary
    plain, led = tokenizer.encode("Hello"), tokenizer.encode("Hello", bos=True)
    expected = {"llama-spm": 1, "phi-3": 1, "llama-bpe": 128000}.get(path.stem[11:])
    assert tokenizer.bos == expected
    written = [tokenizer.bos] if tokenizer.bos is not None else tokenizer.stop_tokens
    assert tokenizer.encode(tokenizer.bos_text, special=True)[0] in written
    assert led == ([expected, *plain] if expected is not None else plain)
    assert tokenizer.n_vocab > max(plain)


def test_what_is_no_text_or_token_is_refused(model: LlamaCppModel) -> None:
    tokenizer = model.tokenizer
    with pytest.raises(TokenizerError, match=r"lone surrogate '\\ud800' at 1"):
        tokenizer.encode("a\ud800")
    for token in (-1, 512):
        with pytest.raises(TokenizerError, match=f"token {token} is unknown: expected 0 to 511"):
            tokenizer.piece(token)


def test_control_tokens_have_no_bytes_unless_asked_for(model: LlamaCppModel) -> None:
    assert model.tokenizer.piece(2) == b""
    assert model.tokenizer.piece(2, special=True) == b"</s>"
    assert model.tokenizer.piece(3 + 65) == b"A"
    assert model.tokenizer.stop_tokens == {2}
    assert model.tokenizer.chat_template is None


def test_a_long_text_and_zero_bytes_survive(model: LlamaCppModel) -> None:
    text = "Once upon a time \0 there was é. " * 2000
    ids = model.tokenizer.encode(text)
    assert b"".join(map(model.tokenizer.piece, ids)).decode()[1:] == text


def test_a_model_without_vocabulary_computes_but_does_not_read(
    stories260k: Path, tmp_path: Path
) -> None:
    made, path = Gguf.read(stories260k), tmp_path / "bare.gguf"
    made.keys = {k: v for k, v in made.keys.items() if not k.startswith("tokenizer")}
    made.keys["tokenizer.ggml.model"] = string("none")
    made.keys["llama.vocab_size"] = u32(512)
    path.write_bytes(made.bytes())
    model = opened(path)
    assert model.forward(PROMPT).shape == (len(PROMPT), 512)
    assert (model.tokenizer.bos, model.tokenizer.stop_tokens) == (None, frozenset())
    for call in (lambda: model.tokenizer.encode("x"), lambda: model.tokenizer.piece(5)):
        with pytest.raises(TokenizerError, match="no vocabulary"):
            call()
    model.close()


def test_a_text_that_would_end_llama_cpps_process_is_refused(
    stories260k: Path, tmp_path: Path
) -> None:
    made, path = Gguf.read(stories260k), tmp_path / "few.gguf"
    tokens, kinds = (f"tokenizer.ggml.{name}" for name in ("tokens", "token_type"))
    for byte in (0x01, 0xE8):  # in a vocabulary without them
        made.keys[tokens] = made.keys[tokens].replace(b"<0x%02X>" % byte, b"word%02X" % byte)
        at = 16 + 4 * (3 + byte)
        made.keys[kinds] = made.keys[kinds][:at] + u32(1)[4:] + made.keys[kinds][at + 4 :]
    path.write_bytes(made.bytes())
    tokenizer = LlamaCppTokenizer.open(path)
    for text in ("a\x01b", "the 語"):
        with pytest.raises(TokenizerError, match="expected tokens for all of its bytes"):
            tokenizer.encode(text)
    assert b"".join(map(tokenizer.piece, tokenizer.encode("a\x02é"))) == " a\x02é".encode()
    tokenizer.close()


def test_the_chat_template_comes_from_the_file(data_folder: Path) -> None:
    tokenizer = LlamaCppTokenizer.open(data_folder / "vocab" / "ggml-vocab-phi-3.gguf")
    assert tokenizer.chat_template is not None
    assert "<|assistant|>" in tokenizer.chat_template
    tokenizer.close()


def test_loading_tells_how_far_it_is_and_can_be_interrupted(stories260k: Path) -> None:
    shares: list[float] = []
    LlamaCppModel(stories260k, ModelOptions(n_threads=1, progress=shares.append)).close()
    assert shares == sorted(shares)
    assert shares[-1] == 1

    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LlamaCppModel(stories260k, ModelOptions(n_threads=1, progress=interrupt))


def test_a_piece_is_right_though_another_thread_asks_for_one_meanwhile(
    stories260k: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = LlamaCppTokenizer.open(stories260k)
    expected = tokenizer.piece(403), tokenizer.piece(261)
    other = LlamaCppTokenizer.open(stories260k)
    ask = other._to_piece

    def interrupted(vocab: int, token: int, *rest: Any) -> int:
        n = int(ask(vocab, token, *rest))
        if token == 403:  # a thread that runs before this one reads what was written
            assert other.piece(261) == expected[1]
        return n

    monkeypatch.setattr(other, "_to_piece", interrupted)
    assert other.piece(403) == expected[0]
    tokenizer.close()
    other.close()
