"""What a public pair's drafter was taught, as it is put beside the manifests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from edgespec.export.align.gguf_lora import open_gguf_lora
from edgespec.export.align.layers import with_layers
from edgespec.export.lora import Adapted, Lora, write_gguf
from edgespec.export.read.checkpoint import Checkpoint
from edgespec.models import taught
from onnx_maker import checkpoint_of, dynamic_folder, exported

from edgespec.store import pairs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DRAFTER = pairs.folder() / "demo" / "foreign.gguf"
ROWS = np.arange(0, 1024, 3, dtype=np.int32)
NAME = "blk.0.ffn_gate"
A_DRAFTER = {"file": "d.gguf", "repo": "u/d", "sha256": "0", "size": 1, "onnx": "int4"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drafter with a third of its rows."""
    out = tmp_path_factory.mktemp("taught") / "trimmed"
    exported(DRAFTER, out, token_ids=ROWS)
    return out


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the folder of the manifests."""
    for module in (taught, pairs):
        monkeypatch.setattr(module, "folder", lambda: tmp_path)
    return tmp_path


def adapter(base: Checkpoint, path: Path) -> Adapted:
    """Writes the adapter of one matrix as training does; what it adds."""
    draw = np.random.default_rng(0).standard_normal
    n_out, n_in = base.tensors[f"{NAME}.weight"].shape
    one = Adapted(draw((32, n_in), np.float32), draw((n_out, 32), np.float32), 1.0)
    write_gguf(Lora(path, base.decoder, {NAME: one}), path)
    return one


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["taught", *map(str, words)])
    taught.main()


@pytest.mark.parametrize("kept", [[], [1]])
def test_a_manifest_of_the_lines_printed_finds_what_was_taught(
    kept: list[int],
    graph: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    whole = checkpoint_of(DRAFTER)
    base = with_layers(whole, kept) if kept else whole
    one = adapter(base, place / "mine.gguf")
    words: list[object] = ["d", "--adapter", place / "mine.gguf"]
    words += ["--drafter", DRAFTER, "--graph", graph]
    if kept:
        (place / "layers.json").write_text(json.dumps({"layers": kept}))
        words += ["--layers", place / "layers.json"]
    call(monkeypatch, *words)
    drafter_table = {**A_DRAFTER, "onnx_size": 1, **tomllib.loads(capsys.readouterr().out)}
    target = {"file": "t.gguf", "repo": "u/t", "size": 1}
    manifest = {"about": "", "licence": "", "vocabulary": "", "target": target}
    entry = pairs.parsed({**manifest, "drafter": drafter_table}, "it").drafter
    assert entry.layers == tuple(kept)
    found = pairs.lessons_of(entry)
    assert np.load(found["rows"]).tolist() == ROWS.tolist()
    read = open_gguf_lora(found["taught"], base).matrices[NAME]
    assert (
        np.abs(read.scale * read.b @ read.a - one.b @ one.a).max()
        < 0.05 * np.abs(one.b @ one.a).max()
    )


def test_a_graph_with_all_rows_is_refused_and_nothing_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    adapter(checkpoint_of(DRAFTER), place / "mine.gguf")
    words = ("d", "--adapter", place / "mine.gguf", "--drafter", DRAFTER)
    with pytest.raises(SystemExit, match="has 1,024 tokens, and all of them as rows: expected"):
        call(monkeypatch, *words, "--graph", dynamic_folder(DRAFTER))
    assert not (place / "taught").exists()
