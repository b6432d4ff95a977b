"""Models of which most layers see the last tokens only: what they keep, and how they go back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from window_maker import LAYERS, WINDOW, make

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.file import read_header
from edgespec.backends.gguf.windows import window_of, windowed_layers
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.preview import preview
from edgespec.errors import Cancelled, ContextError, ShapeError

N_CONTEXT, N_CELLS = 1024, 512  # N_CELLS: a window and a batch, rounded up
TEXT = [int(one) for one in np.random.default_rng(1).integers(3, 512, 900)]
# Of logits over a range of 8: what is read again is read in other widths, and Gemma 3n's many
# layers make more of it.
NOISE = {"gemma3n": 0.6, "gpt-oss": 0.05}
MOST_NOISE = 0.02  # of others
EVERY_DAY = ("gemma3", "gpt-oss")
MARKED = [one if one in EVERY_DAY else pytest.param(one, marks=pytest.mark.slow) for one in LAYERS]


@pytest.fixture(scope="module")
def files(tmp_path_factory, stories260k) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("windows")
    return {kind: make(folder / f"{kind}.gguf", kind, vocabulary=stories260k) for kind in LAYERS}


@pytest.fixture(params=MARKED)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(kind: str, files: dict[str, Path]) -> Iterator[LlamaCppModel]:
    one = opened(files[kind])
    yield one
    one.close()


@pytest.fixture
def twins(kind: str, files: dict[str, Path]) -> Iterator[Twins]:
    noise = NOISE.get(kind, MOST_NOISE)
    both = Twins(opened(files[kind]), opened(files[kind], windows=False), noise)
    yield both
    both.windowed.close()
    both.whole.close()


def opened(path: Path, *, windows: bool = True) -> LlamaCppModel:
    options = ModelOptions(n_context=N_CONTEXT, n_threads=1, device="cpu", windows=windows)
    return LlamaCppModel(path, options, loading="map")


class Twins:
    """A model whose windowed layers keep their window, and one that keeps all; logits compared."""

    def __init__(self, windowed: LlamaCppModel, whole: LlamaCppModel, noise: float) -> None:
        self.windowed, self.whole, self.noise = windowed, whole, noise

    def extend(self, tokens: list[int]) -> None:
        self.windowed.extend(tokens)
        self.whole.extend(tokens)

    def truncate(self, n: int) -> None:
        self.windowed.truncate(n)
        self.whole.truncate(n)

    def forward(self, tokens: list[int]) -> None:
        seen, expected = self.windowed.forward(tokens), self.whole.forward(tokens)
        assert np.abs(seen - expected).max() < self.noise
        assert np.ptp(expected) > 1


def test_some_layers_see_a_window(kind: str, files) -> None:
    header = read_header(files[kind])
    assert window_of(header) == WINDOW
    assert 0 < sum(windowed_layers(header)) < LAYERS[kind]


@pytest.mark.slow
def test_a_long_text_has_the_logits_of_a_whole_cache(twins: Twins) -> None:
    twins.forward(TEXT)
    twins.truncate(0)
    twins.extend(TEXT[:880])
    for token in TEXT[880:]:
        twins.forward([token])


@pytest.mark.slow
def test_drafts_are_taken_back_for_nothing(twins: Twins) -> None:
    rng = np.random.default_rng(3)
    twins.extend(TEXT[:700])
    for at in range(700, 880):
        draft = rng.integers(3, 512, int(rng.integers(0, 16)))
        twins.forward([TEXT[at], *map(int, draft)])
        twins.truncate(at + 1)
        assert twins.windowed._past.missing() == []


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 1, 63, 65, 300, 420, 450, 511, 640, 840, 898])
def test_any_step_back_is_as_if_it_never_was(n: int, twins: Twins) -> None:
    twins.forward(TEXT)
    twins.truncate(n)
    twins.forward(TEXT[n : n + 2])
    twins.truncate(n)
    twins.forward([7] * 40)
    twins.truncate(n)
    twins.forward(TEXT[n : n + 20])


def test_a_step_back_beyond_the_window_reads_the_text_again(model) -> None:
    model.extend(TEXT)
    model.truncate(890)
    assert model._past.missing() == []
    model.truncate(300)
    assert len(model._past.missing()) == 300


@pytest.mark.slow
def test_a_stopped_forward_leaves_what_was_before(twins: Twins, monkeypatch) -> None:
    twins.extend(TEXT[:800])
    decode = twins.windowed._lib.api.llama_decode

    def stopped(context, batch):
        status = decode(context, batch)
        twins.windowed.cancel()
        return status

    monkeypatch.setattr(twins.windowed._lib.api, "llama_decode", stopped)
    with pytest.raises(Cancelled):
        twins.windowed.forward([5] * 40)
    monkeypatch.undo()
    assert twins.windowed.length == 800
    twins.forward(TEXT[800:820])


def test_a_full_context_is_refused_and_stays(twins: Twins) -> None:
    twins.extend((TEXT * 2)[: N_CONTEXT - 1])
    with pytest.raises(ContextError):
        twins.windowed.forward([1, 2])
    twins.truncate(700)
    twins.forward(TEXT[700:710])


def test_only_chains_are_read(model) -> None:
    assert model.capabilities.n_leaves == 1
    with pytest.raises(ShapeError, match="a tree of 3 nodes and 2 leaves: expected at most"):
        model.forward([1, 2, 3], [-1, 0, 0])
    assert model.forward([1, 2, 3], [-1, 0, 1]).shape[0] == 3


def test_the_bytes_are_foreseen_and_fewer(kind: str, files, caplog, model) -> None:
    caplog.set_level(logging.DEBUG, "edgespec.llamacpp")
    whole, windowed = opened(files[kind], windows=False), opened(files[kind])
    said = [
        float(record.getMessage().split("KV buffer size =")[1].split("MiB")[0])
        for record in caplog.records
        if "KV buffer size =" in record.getMessage()
    ]
    assert sum(said) == pytest.approx((whole.kv_bytes + windowed.kv_bytes) / 2**20, abs=0.02)
    n_layers = sum(windowed_layers(read_header(files[kind]))[:20])
    fewer = n_layers * (N_CONTEXT - N_CELLS) * 2 * 2 * 16 * 2  # 2 heads of 16, keys and values, F16
    assert whole.kv_bytes - windowed.kv_bytes == fewer
    for one, windows in ((whole, False), (windowed, True)):
        seen = preview(files[kind], ModelOptions(device="cpu", windows=windows))
        assert seen.cache.n_bytes(N_CONTEXT) == one.kv_bytes
        seen.close()
        one.close()


def test_a_short_context_keeps_no_less(files) -> None:
    options = ModelOptions(n_context=256, n_threads=1, device="cpu", windows=True)
    model = LlamaCppModel(files["gemma3"], options, loading="map")
    assert model.kv_bytes == 256 * LAYERS["gemma3"] * 2 * 2 * 16 * 2
    model.close()
