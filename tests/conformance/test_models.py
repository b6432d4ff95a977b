"""What every LanguageModel must do; a new backend adds one line to OPENERS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hybrid_maker import KINDS, case

from edgespec.backends import ModelOptions
from edgespec.backends.fake import TableModel
from edgespec.errors import Cancelled, ContextError
from edgespec.types import FloatArray

N_CONTEXT = 96
PROMPT = [1, 403, 407, 261, 378]
MORE = [383, 286, 261, 376, 298, 315]
# A root with two children, a chain below the first, and a second root.
TREE = [10, 20, 30, 40, 50, 60]
PARENTS = [-1, 0, 0, 1, 3, -1]
# Kernels for one row round differently from kernels for several; logits here span +-30.
TOLERANCE = 0.02


def a_law(prefix: tuple[int, ...]) -> FloatArray:
    """A law [512] that differs for every prefix."""
    rng = np.random.default_rng(abs(hash(prefix)))
    return rng.dirichlet(np.ones(512)).astype(np.float32)


def table(_: Path) -> Any:
    return TableModel(a_law, 512, N_CONTEXT)


def llamacpp(data_folder: Path, *, n_context: int = N_CONTEXT) -> Any:
    pytest.importorskip("llama_cpp")
    from edgespec.backends.llamacpp.model import LlamaCppModel

    path = data_folder / "models" / "stories260K-f32.gguf"
    return LlamaCppModel(path, ModelOptions(n_context=n_context, n_threads=1), loading="map")


def llamacpp_trimmed(data_folder: Path) -> Any:
    pytest.importorskip("llama_cpp")
    from edgespec.export.trim.head import trim

    from edgespec.backends.llamacpp.trimmed import LlamaCppTrimmedModel

    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        path = Path(name) / "trimmed.gguf"
        trim(data_folder / "models" / "stories260K-f32.gguf", path, range(0, 512, 2))
        options = ModelOptions(n_context=N_CONTEXT, n_threads=1)
        return LlamaCppTrimmedModel(path, options, loading="map")


def onnx_static(data_folder: Path) -> Any:
    from npu_maker import static_folder

    from edgespec.backends.onnx.model import OnnxModel

    return OnnxModel(static_folder(data_folder), ModelOptions(n_threads=1))


def onnx_dynamic(_: Path, *, n_context: int = N_CONTEXT) -> Any:
    from model_maker import DEMO
    from onnx_maker import dynamic_folder

    from edgespec.backends.onnx.model import OnnxModel

    # Not the stories' model: ONNX Runtime's attention wants heads of 16 numbers or a multiple.
    return OnnxModel(dynamic_folder(DEMO), ModelOptions(n_context=n_context, n_threads=1))


def by_the_c_library(opener: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Opens an ONNX model without ONNX Runtime's Python package."""

    def opened(data_folder: Path) -> Any:
        from native_library import without_the_package

        with without_the_package():
            return opener(data_folder)

    return opened


def exact(data_folder: Path) -> Any:
    from edgespec.backends.exact import Exact

    return Exact(llamacpp(data_folder, n_context=N_CONTEXT + 3), (4, 6))


def exact_onnx(data_folder: Path) -> Any:
    from edgespec.backends.exact import Exact

    return Exact(onnx_dynamic(data_folder, n_context=N_CONTEXT + 1), range(2, 9))


def recurrent(kind: str, *, steps: bool = False) -> Callable[[Path], Any]:
    """Opens a model whose memory is recurrent; steps: as a drafter has it."""

    def opened(data_folder: Path) -> Any:
        from hybrid_maker import make

        from edgespec.backends.llamacpp.model import LlamaCppModel

        vocabulary = data_folder / "models" / "stories260K-f32.gguf"
        options = ModelOptions(n_context=N_CONTEXT, n_threads=1, steps=steps)
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            path = make(Path(name) / f"{kind}.gguf", kind, vocabulary=vocabulary)
            return LlamaCppModel(path, options, loading="map")

    return opened


OPENERS: dict[str, Callable[[Path], Any]] = {
    "table": table,
    "llamacpp": llamacpp,
    "llamacpp-trimmed": llamacpp_trimmed,
    "onnx_static": onnx_static,
    "onnx_dynamic": onnx_dynamic,
    "onnx_static_native": by_the_c_library(onnx_static),
    "onnx_dynamic_native": by_the_c_library(onnx_dynamic),
    "exact": exact,
    "exact_onnx": exact_onnx,
    **{kind: recurrent(kind) for kind in KINDS},
    "lfm2-steps": recurrent("lfm2", steps=True),
}


@pytest.fixture(
    scope="module", params=[case(one) if one in KINDS else one for one in OPENERS], ids=str
)
def opened(request: pytest.FixtureRequest, data_folder: Path) -> Iterator[Any]:
    model = OPENERS[request.param](data_folder)
    yield model
    model.close()


@pytest.fixture
def model(opened: Any) -> Any:
    opened.truncate(0)
    return opened


def n_columns(model: Any) -> int:
    """How many logits there are after a token."""
    return model.n_vocab if model.token_ids is None else len(model.token_ids)


def needs_trees(model: Any) -> None:
    if model.capabilities.n_leaves == 1:
        pytest.skip("chains only")


def close_to(a: FloatArray, b: FloatArray) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=TOLERANCE))


def last_row(model: Any, tokens: list[int]) -> FloatArray:
    """Logits after `tokens` alone, read in one piece into an empty cache."""
    model.truncate(0)
    row = model.forward(tokens)[-1].copy()
    model.truncate(0)
    return row


def test_a_forward_gives_one_float32_row_per_token(model: Any) -> None:
    logits = model.forward(PROMPT)
    assert logits.shape == (len(PROMPT), n_columns(model))
    assert logits.dtype == np.float32
    assert model.length == len(PROMPT)


def test_one_batch_equals_one_by_one(model: Any) -> None:
    at_once = model.forward(PROMPT + MORE).copy()
    model.truncate(0)
    singly = np.array([model.forward([token])[0].copy() for token in PROMPT + MORE])
    assert close_to(at_once, singly)
    assert np.abs(np.diff(at_once, axis=0)).max() > 1  # rows do differ from each other


@pytest.mark.parametrize(("n", "n_rows"), [(3, 1), (11, 2), (3, 3), (11, 60), (80, 1), (80, 70)])
def test_the_last_rows_are_those_of_a_whole_forward(model: Any, n: int, n_rows: int) -> None:
    tokens = (PROMPT + MORE) * 8
    expected = model.forward(tokens[:n]).copy()
    model.truncate(0)
    seen = model.forward(tokens[:n], n_rows=n_rows)
    assert close_to(seen[-n_rows:], expected[-n_rows:])
    model.keep(range(2))  # of the tokens, whatever rows there are
    assert model.length == 2
    assert close_to(model.forward(tokens[2:3]), expected[2:3])


def test_extend_leads_where_forward_leads(model: Any) -> None:
    expected = last_row(model, PROMPT + MORE)
    model.extend(PROMPT)
    assert model.length == len(PROMPT)
    assert close_to(model.forward(MORE)[-1], expected)


def test_a_truncated_cache_continues_as_if_nothing_followed(model: Any) -> None:
    expected = last_row(model, PROMPT + MORE)
    model.extend(PROMPT)
    model.forward([7, 8, 9])
    model.truncate(len(PROMPT))
    assert model.length == len(PROMPT)
    assert close_to(model.forward(MORE)[-1], expected)


def test_every_node_of_a_tree_sees_its_own_path_only(model: Any) -> None:
    needs_trees(model)
    model.extend(PROMPT)
    rows = model.forward(TREE, PARENTS).copy()
    model.keep([])
    assert model.length == len(PROMPT)
    for node, row in enumerate(rows):
        assert close_to(row, last_row(model, PROMPT + path_to(node))), f"node {node}"


def path_to(node: int) -> list[int]:
    path: list[int] = []
    while node >= 0:
        path.append(TREE[node])
        node = PARENTS[node]
    return path[::-1]


@pytest.mark.parametrize("rows", [[0], [0, 2], [0, 1, 3, 4], [5]])
def test_a_kept_path_continues_as_if_read_plainly(model: Any, rows: list[int]) -> None:
    needs_trees(model)
    path = [TREE[row] for row in rows]
    expected = last_row(model, PROMPT + path + MORE)
    model.extend(PROMPT)
    model.forward(TREE, PARENTS)
    model.keep(rows)
    assert model.length == len(PROMPT) + len(rows)
    assert close_to(model.forward(MORE)[-1], expected)


def test_rounds_of_trees_leave_no_trace(model: Any) -> None:
    needs_trees(model)
    expected = last_row(model, [*PROMPT, 10, 20, 10, 30, 10, 20, *MORE])
    model.extend(PROMPT)
    for rows in ([0, 1], [0, 2], [0, 1]):
        model.forward(TREE, PARENTS)
        model.keep(rows)
    assert close_to(model.forward(MORE)[-1], expected)


def test_keeping_the_head_of_a_chain_forgets_the_rest(model: Any) -> None:
    expected = last_row(model, [*PROMPT, *MORE[:2], 99])
    model.extend(PROMPT)
    model.forward(MORE)
    model.keep([0, 1])
    assert model.length == len(PROMPT) + 2
    assert close_to(model.forward([99])[-1], expected)


def test_parents_of_a_chain_mean_a_chain(model: Any) -> None:
    plain = model.forward(PROMPT).copy()
    model.truncate(0)
    assert close_to(model.forward(PROMPT, range(-1, len(PROMPT) - 1)), plain)
    assert model.length == len(PROMPT)


def test_what_does_not_fit_is_refused_before_it_is_read(model: Any) -> None:
    model.extend([5] * (N_CONTEXT - 2))
    for read in (model.extend, model.forward):
        with pytest.raises(ContextError, match="context"):
            read([5, 5, 5])
        assert model.length == N_CONTEXT - 2
    assert model.forward([5, 5]).shape[0] == 2


def test_empty_calls_change_nothing(model: Any) -> None:
    model.extend([])
    assert model.forward([]).shape == (0, n_columns(model))
    assert model.length == 0
    model.extend(PROMPT)
    assert model.forward([]).shape == (0, n_columns(model))
    model.keep([])
    model.truncate(len(PROMPT))
    assert model.length == len(PROMPT)


def test_a_cancelled_call_leaves_the_cache_as_it_was(model: Any) -> None:
    if not hasattr(model, "cancel"):
        pytest.skip("the backend has nothing to cancel")
    expected = last_row(model, PROMPT + MORE)
    model.extend(PROMPT)
    stopped = 0
    for _ in range(200):  # the thread may come before or after the call
        timer = threading.Timer(0.0005, model.cancel)
        timer.start()
        try:
            model.extend([5] * (N_CONTEXT - len(PROMPT)))
            model.truncate(len(PROMPT))
        except Cancelled:
            stopped += 1
        timer.join()
        assert model.length == len(PROMPT)
        if stopped == 3:
            break
    assert stopped > 0
    assert close_to(model.forward(MORE)[-1], expected)


@pytest.mark.parametrize("name", OPENERS)
def test_closing_twice_is_harmless(name: str, data_folder: Path) -> None:
    model = OPENERS[name](data_folder)
    model.forward(PROMPT)
    model.close()
    model.close()
    assert model.length in (0, len(PROMPT))
