"""Models whose memory is recurrent: whatever is taken back, the logits are as if it never was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hybrid_maker import BOUNDED, KINDS, case, make

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.file import read_header
from edgespec.backends.gguf.recurrent import state_bytes
from edgespec.backends.llamacpp import opening, past
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.past import PARTIAL
from edgespec.errors import (
    BackendError,
    Cancelled,
    ContextError,
    ModelFileError,
    ShapeError,
    UsageError,
)
from edgespec.session.load import load

N_CONTEXT = 96
TEXT = [int(one) for one in np.random.default_rng(1).integers(3, 512, 40)]
NOISE = 1e-3  # of logits over a range of 8: kernels for one token and for several round differently


@pytest.fixture(scope="module")
def files(tmp_path_factory, stories260k) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recurrent")
    return {kind: make(folder / f"{kind}.gguf", kind, vocabulary=stories260k) for kind in KINDS}


@pytest.fixture(params=[case(kind, steps) for kind in KINDS for steps in (False, True)], ids=str)
def model(request: pytest.FixtureRequest, files: dict[str, Path]) -> Iterator[LlamaCppModel]:
    kind, steps = request.param
    one = opened(files[kind], steps=steps)
    yield one
    one.close()


def opened(path: Path, *, steps: bool = False) -> LlamaCppModel:
    options = ModelOptions(n_context=N_CONTEXT, n_threads=1, device="cpu", steps=steps)
    return LlamaCppModel(path, options, loading="map")


def step_by_step(model: LlamaCppModel, text: list[int]) -> np.ndarray:
    """Logits after every token, in a cache that was empty."""
    model.truncate(0)
    rows = np.concatenate([model.forward([token]).copy() for token in text])
    model.truncate(0)
    return rows


def same(rows: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(rows - expected).max(initial=0.0) < NOISE)


@pytest.mark.slow
def test_every_width_can_be_cut_to_every_length(model: LlamaCppModel) -> None:
    expected = step_by_step(model, TEXT)
    assert np.ptp(expected) > 4
    for width in (1, 2, 3, 5, 8, 17):
        for kept in range(width + 1):
            model.truncate(0)
            model.extend(TEXT[:9])
            wrong = [(token + 7) % 512 for token in TEXT[9 + kept : 9 + width]]
            rows = model.forward([*TEXT[9 : 9 + kept], *wrong])
            assert same(rows[:kept], expected[9 : 9 + kept])
            model.keep(tuple(range(kept)))
            assert model.length == 9 + kept
            assert same(model.forward(TEXT[9 + kept :][:4]), expected[9 + kept :][:4])


def test_rounds_one_after_the_other_and_steps_back_without_order(model: LlamaCppModel) -> None:
    expected, rng = step_by_step(model, TEXT), np.random.default_rng(2)
    model.extend(TEXT[:5])
    for _ in range(120):
        at = model.length
        width = min(int(rng.integers(1, 9)), len(TEXT) - at)
        right = int(rng.integers(0, width + 1))
        tokens = [*TEXT[at : at + right], *rng.integers(3, 512, width - right).tolist()]
        if rng.random() < 0.2:
            model.extend(tokens)
        else:
            assert same(model.forward(tokens)[:right], expected[at : at + right])
        back = rng.random()
        if back < 0.7:
            model.keep(tuple(range(right))) if model._last[1] else model.truncate(at + right)
        else:
            model.truncate(int(rng.integers(0, at + right + 1)))
        if model.length > len(TEXT) - 9:
            model.truncate(int(rng.integers(0, 9)))
    at = model.length
    assert same(model.forward(TEXT[at : at + 3]), expected[at : at + 3])


def test_what_was_in_the_cache_before_leaves_no_trace(model: LlamaCppModel) -> None:
    expected = step_by_step(model, TEXT)
    rng = np.random.default_rng(3)
    for _ in range(3):
        model.truncate(0)
        model.extend(rng.integers(3, 512, 80).tolist())
        model.forward(rng.integers(3, 512, 9).tolist())
        model.truncate(0)
        assert same(model.forward(TEXT), expected)


def test_a_forward_that_was_stopped_leaves_the_text_as_it_was(model: LlamaCppModel) -> None:
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:20])
    decode = model._lib.api.llama_decode

    def stopped(context: object, batch: object) -> int:
        """It is cancelled after it has changed the state."""
        status: int = decode(context, batch)
        model._stop_flag[0] = b"\1"
        return status

    for tokens in ([7], [7, 8, 9]):
        model._lib.api.llama_decode = stopped
        try:
            with pytest.raises(Cancelled):
                model.forward(tokens)
        finally:
            model._lib.api.llama_decode = decode
        assert model.length == 20
        assert same(model.forward(TEXT[20:23]), expected[20:23])
        model.truncate(20)


def test_reading_again_can_be_stopped_and_goes_on(model: LlamaCppModel, monkeypatch) -> None:
    expected = step_by_step(model, TEXT)
    monkeypatch.setattr(model, "_width", 8)
    model._past._checkpoints.clear()
    model.extend(TEXT)
    model.truncate(29)  # nothing leads back there
    decode, n = model._lib.api.llama_decode, 0

    def second(context: object, batch: object) -> int:
        nonlocal n
        n += 1
        if n == 2:
            model._stop_flag[0] = b"\1"
        return int(decode(context, batch))

    model._lib.api.llama_decode = second
    try:
        with pytest.raises(Cancelled):
            model.forward(TEXT[29:31])
    finally:
        model._lib.api.llama_decode = decode
    assert n == 2
    assert model.length == 29
    assert same(model.forward(TEXT[29:31]), expected[29:31])


def test_a_full_context_is_refused_and_stays(model: LlamaCppModel) -> None:
    expected = step_by_step(model, TEXT)
    model.extend((TEXT * 3)[: N_CONTEXT - 1])
    with pytest.raises(ContextError):
        model.forward([1, 2])
    assert model.forward([1]).shape[0] == 1
    model.truncate(10)
    assert same(model.forward(TEXT[10:14]), expected[10:14])


def test_only_chains_are_read(model: LlamaCppModel) -> None:
    assert model.capabilities.n_leaves == 1
    with pytest.raises(ShapeError, match="a tree of 3 nodes and 2 leaves: expected at most"):
        model.forward([1, 2, 3], [-1, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_snapshots_lead_back_where_the_architecture_has_them(kind: str, files) -> None:
    model = opened(files[kind])
    model.extend(TEXT[:9])
    model.forward(TEXT[9:14])
    n_before = len(model._past._checkpoints)
    model.truncate(11)
    assert (not model._past.missing()) == (kind in BOUNDED)
    model.forward(TEXT[11:13])
    assert n_before == 1  # of the prompt's end, or of the round
    model.close()
    drafter = opened(files[kind], steps=True)
    assert drafter._past._n_back == 0
    drafter.close()


def test_what_was_refused_is_paid_for_by_its_round(files, monkeypatch) -> None:
    model = opened(files["mamba2"])
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:9])
    model.forward([*TEXT[9:11], 5, 6])
    read = model._read

    def stopped(batch: object, *, rows: bool = True) -> None:
        model.cancel()
        read(batch, rows=rows)

    monkeypatch.setattr(model, "_read", stopped)
    model.keep((0, 1))  # is stopped while it reads again, and the next call does it
    monkeypatch.setattr(model, "_read", read)
    assert same(model.forward([*TEXT[11:13], 7, 8])[:2], expected[11:13])
    model.keep((0, 1))
    assert model._past.missing() == []
    assert same(model.forward(TEXT[13:15]), expected[13:15])
    model.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_tells_how_large_the_state_is(kind: str, files) -> None:
    model = opened(files[kind], steps=True)
    model.extend(TEXT[:9])
    size = model._lib.api.llama_state_seq_get_size_ext(model._context, 0, PARTIAL)
    assert 0 < size - state_bytes(read_header(files[kind])) < 1024  # and what cells say of it
    model.close()


@pytest.mark.parametrize("steps", [False, True])
def test_the_prompts_end_and_the_drafts_beginning_stay_within_reach(
    steps: bool, files, monkeypatch
) -> None:
    monkeypatch.setattr(past, "DRAFTER_KEPT", 5)
    model = opened(files["mamba2"], steps=steps)
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:9])
    for at in range(9, 18, 3):
        model.forward([*TEXT[at : at + 3], 5, 6])
        model.keep((0, 1, 2))
    if steps:
        for token in range(20, 32):  # a draft of which nothing stays
            model.forward([token])
        model.truncate(18)
        assert same(model.forward(TEXT[18:20]), expected[18:20])
        model.truncate(18)
        model._settle()
        assert len(model._past.missing()) == 0
    model.truncate(9)
    assert model._past.missing() == []  # no token is read again
    assert same(model.forward(TEXT[9:12]), expected[9:12])
    model.close()


def test_near_steps_back_leave_a_far_one_in_reach(files, monkeypatch) -> None:
    size = state_bytes(read_header(files["qwen35"]))
    monkeypatch.setattr(opening, "SNAPSHOT_BYTES", 3 * size)
    model = opened(files["qwen35"])
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:9])
    for at in range(9, 24, 2):
        model.forward([*TEXT[at : at + 2], 7, 8])
        model.keep((0, 1))
    rows = model.forward([*TEXT[25:27], *range(30, 38)])
    assert same(rows[:2], expected[25:27])
    model.truncate(27)
    assert len(model._past.missing()) == 2
    assert same(model.forward(TEXT[27:29]), expected[27:29])
    model.close()


def test_a_restore_that_is_broken_off_is_done_again(files, monkeypatch) -> None:
    model = opened(files["mamba2"])
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:9])
    model.forward([TEXT[9], 5, 6])
    model.truncate(10)

    def broken(one: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model._past, "_restored", broken)
        with pytest.raises(KeyboardInterrupt):
            model.forward(TEXT[10:12])
    assert same(model.forward(TEXT[10:12]), expected[10:12])
    model.close()


def test_a_recurrent_memory_of_an_unknown_kind_is_refused(files, monkeypatch) -> None:
    monkeypatch.setattr(opening, "KNOWN", ("lfm2",))
    with pytest.raises(ModelFileError, match="is a 'mamba2', whose memory we do not know"):
        opened(files["mamba2"])


def test_exact_is_refused(files, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="--exact: lfm2.gguf keeps a recurrent state"):
        load(model=str(files["lfm2"]), drafter="ngram", exact=True, loading="map")


def test_no_more_snapshots_than_there_is_room_for(files, monkeypatch) -> None:
    size = state_bytes(read_header(files["qwen35"]))
    monkeypatch.setattr(opening, "SNAPSHOT_BYTES", 5 * size)
    model = opened(files["qwen35"])
    assert model._past._n_back == 5
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:9])
    model.forward([*TEXT[9:11], *range(20, 29)])
    model.keep((0, 1))  # farther than snapshots lead
    assert same(model.forward(TEXT[11:13]), expected[11:13])
    model.close()


def test_fewer_snapshots_where_little_memory_is_free(files, monkeypatch) -> None:
    size = state_bytes(read_header(files["qwen35"]))
    monkeypatch.setattr(opening, "free_memory", lambda: 8 * 3 * size)
    assert opening.n_snapshots(read_header(files["qwen35"]), ModelOptions()) == 3
    monkeypatch.setattr(opening, "free_memory", lambda: None)
    assert opening.n_snapshots(read_header(files["qwen35"]), ModelOptions()) == 16


DIRTY = """
import sys, numpy as np
from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel
options = ModelOptions(n_context=64, n_threads=1, device="cpu")
model = LlamaCppModel(sys.argv[1], options, loading="map")
text = list(range(30, 50))
model.extend(text[:9])
rows = [model.forward([*text[9:12], 7, 8]).copy()]
model.keep((0, 1))
rows.append(model.forward(text[11:13]).copy())
np.save(sys.argv[2], np.concatenate(rows))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc fills memory as MALLOC_PERTURB_ says")
@pytest.mark.parametrize("kind", [*map(case, KINDS)])
def test_what_lay_in_memory_before_does_not_matter(kind: str, files, tmp_path: Path) -> None:
    """Bytes of 0x3e, which glibc writes as the complement, and of 0: the same logits."""
    rows = []
    for filling in ("193", "255"):
        out = tmp_path / f"{filling}.npy"
        words = [sys.executable, "-c", DIRTY, str(files[kind]), str(out)]
        subprocess.run(words, env={**os.environ, "MALLOC_PERTURB_": filling}, check=True)
        rows.append(np.load(out))
    assert np.array_equal(*rows)


def test_a_state_that_cannot_be_put_back_is_read_again(files, monkeypatch) -> None:
    model = opened(files["mamba2"])
    expected = step_by_step(model, TEXT)
    model.extend(TEXT[:9])
    model.forward([TEXT[9], 5, 6])
    model.keep((0,))
    monkeypatch.setattr(model._past, "_restored", lambda one: False)
    assert same(model.forward(TEXT[10:12]), expected[10:12])
    model.close()


def test_a_closed_model_says_so(files) -> None:
    model = opened(files["lfm2"])
    model.close()
    with pytest.raises(BackendError, match="the model is closed"):
        model.forward([1])
