"""Pairs made into graphs on first use: by the maker itself, of demo models as public ones."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from edgespec.export.align.layers import with_layers
from edgespec.export.align.merge import merge
from edgespec.export.lora import Adapted, Lora, write_gguf
from edgespec.export.onnx import check, made
from edgespec.export.read.gguf import open_gguf_checkpoint
from llama_reference import numpy_logits
from onnx_maker import opened, quick

from edgespec.cli import main, models
from edgespec.config import cache_folder
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import sha256_of
from edgespec.store import hub, pairs, removal, shelf

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
WORDS = {"about": "A small one.", "licence": "none", "vocabulary": "its own"}
MODELS = {"target": "drafter.gguf", "drafter": "foreign.gguf"}  # the smallest there are


def manifest(**changed: dict[str, object]) -> dict[str, object]:
    """A pair of the demo's drafters, made into graphs, as if the hub had them."""
    out: dict[str, object] = dict(WORDS)
    for part, file in MODELS.items():
        out[part] = {
            "repo": f"maker/{part}-GGUF", "file": file, "size": (DEMO / file).stat().st_size,
            "sha256": sha256_of(DEMO / file), "onnx": "int4", "onnx_size": 3_000_000,
            **changed.get(part, {}),
        }  # fmt: skip
    return out


def toml(table: dict[str, object]) -> str:
    lines = [f'{key} = "{value}"' for key, value in table.items() if isinstance(value, str)]
    for part, values in table.items():
        if isinstance(values, dict):
            lines += [f"[{part}]", *(f"{k} = {v!r}".replace("'", '"') for k, v in values.items())]
    return "\n".join(lines)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder of models; pairs small-int4, small (its files) and other-int4."""
    no_graph = {"onnx": "", "onnx_size": 0}
    manifests, models = tmp_path / "manifests", tmp_path / "models"
    for folder in (manifests, models):
        folder.mkdir()
    for name, table in {
        "small": manifest(target=no_graph, drafter=no_graph),
        "small-int4": manifest(),
        "other-int4": manifest(drafter={"sha256": "0" * 64}),
    }.items():
        (manifests / f"{name}.toml").write_text(toml(table))
    for file in MODELS.values():
        shutil.copy(DEMO / file, models / file)
    monkeypatch.setattr(pairs, "folder", lambda: manifests)
    monkeypatch.setattr(check, "LOSS", {"int4": 9.0})
    monkeypatch.setattr(check, "AGREEMENT", {"int4": 0.0})
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(shelf.VARIABLE, str(models))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with quick():
        yield models


@pytest.mark.slow
def test_a_graph_is_made_on_first_use_and_then_found(files: Path) -> None:
    said: list[str] = []
    pair, cache = pairs.find("small-int4"), cache_folder()
    made_of = pairs.files(pair, cache, lambda what, _: said.append(what))
    names = [re.sub("[0-9a-f]{12}", "SUM", path.name) for path in made_of]
    assert names == ["drafter-int4-SUM-r2", "foreign-int4-SUM-r2"]
    assert "once (3.00 MB): writing drafter.gguf as a graph" in said
    for file in files.iterdir():
        file.unlink()
    said.clear()
    assert pairs.files(pair, cache) == made_of
    assert tuple(map(pairs.bundled, pair.entries)) == made_of
    assert said == []
    assert main(["generate", "--pair", "small-int4", "-p", "Once", "-n", "4", "--offline"]) == 0


def lessons(folder: Path, base: Path, layers: list[int]) -> dict[str, object]:
    """An adapter of the last of these layers' output and every other row, bundled, to name in a
    manifest."""
    checkpoint = with_layers(open_gguf_checkpoint(base), layers)
    name = f"blk.{len(layers) - 1}.ffn_down"
    n_out, n_in = checkpoint.tensors[f"{name}.weight"].shape
    draw = np.random.default_rng(0).standard_normal
    one = Adapted(draw((32, n_in), np.float32), draw((n_out, 32), np.float32), 0.1)
    (folder / "taught").mkdir()
    lora = Lora(base, checkpoint.decoder, {name: one})
    merge(checkpoint, lora, folder / "expected.gguf", "f16")
    write_gguf(lora, folder / "taught" / "a.gguf", in_8_bits=True)
    rows = np.arange(0, checkpoint.decoder.n_vocab, 2, dtype=np.int32)
    np.save(folder / "taught" / "a.npy", rows)
    out: dict[str, object] = {"layers": layers}
    for what, file in {"taught": "taught/a.gguf", "rows": "taught/a.npy"}.items():
        out |= {what: file, f"{what}_sha256": sha256_of(folder / file)}
    return out


def n_inputs(graph: Path) -> int:
    """Two of them are a layer's."""
    return len(onnx.load(graph / "model.onnx", load_external_data=False).graph.input)


@pytest.mark.slow
@pytest.mark.parametrize("n_dropped", [0, 1])
def test_a_graph_is_made_with_what_its_model_was_taught(files: Path, n_dropped: int) -> None:
    folder, cache, base = pairs.folder(), cache_folder(), files / "foreign.gguf"
    n_layers = open_gguf_checkpoint(base).decoder.n_layers
    taught = lessons(folder, base, list(range(n_dropped, n_layers)))
    (folder / "taught-int4.toml").write_text(toml(manifest(drafter=taught)))
    (folder / "whole-int4.toml").write_text(toml(manifest()))
    one, other = (pairs.find(name).drafter for name in ("taught-int4", "whole-int4"))
    assert pairs.graph_of(one, cache) != pairs.graph_of(other, cache)
    assert one.source == other.source
    graph, whole = (pairs.file_of(entry, cache) for entry in (one, other))
    assert pairs.made(one, cache) == [graph] and pairs.made(other, cache) == [whole]
    assert n_inputs(graph) == n_inputs(whole) - 2 * n_dropped
    ids, untaught = [5, 6, 7, 8], numpy_logits(base, [5, 6, 7, 8])[:, ::2]
    expected = numpy_logits(folder / "expected.gguf", ids)[:, ::2]
    with closing(opened(graph)) as cut:
        assert cut.token_ids is not None
        assert cut.token_ids.tolist() == list(range(0, cut.n_vocab, 2))
        off = np.abs(cut.forward(ids) - expected).mean()
    assert off < 0.5 * np.abs(untaught - expected).mean()
    assert [path for path in cache.iterdir() if path.suffix == ".part"] == []
    removal.remove(pairs.find("taught-int4"), cache)
    assert not graph.exists()


def test_a_graph_is_named_by_all_that_it_is_made_with() -> None:
    lessons = {"taught": "a.gguf", "taught_sha256": "1" * 64, "layers": [0, 1]}
    kinds = [{}, lessons, lessons | {"layers": [0, 2]}, lessons | {"taught_sha256": "2" * 64}]
    kinds.append(lessons | {"rows": "a.npy", "rows_sha256": "1" * 64})
    entries = [pairs.parsed(manifest(drafter=one), "x").drafter for one in kinds]
    assert len({pairs.graph_of(entry, Path()) for entry in entries}) == len(entries)


@pytest.mark.parametrize("name", pairs.names())
def test_what_a_pair_is_made_with_comes_along(name: str) -> None:
    for entry in pairs.find(name).entries:
        assert pairs.lessons_of(entry).keys() == entry.lessons.keys()  # with their sums


@pytest.mark.parametrize(
    "given, lacks",
    [
        ({"taught": "taught/a.gguf"}, "taught or taught_sha256"),
        ({"rows_sha256": "0" * 64}, "rows or rows_sha256"),
        ({"rows": "taught/a.npy", "rows_sha256": "0" * 64, "onnx": "", "onnx_size": 0}, "onnx"),
        ({"layers": [0, 1]}, "taught"),
    ],
)
def test_what_is_taught_has_a_sum_and_goes_into_a_graph(
    given: dict[str, object], lacks: str
) -> None:
    with pytest.raises(ModelFileError, match=f"x.toml is damaged .'{lacks}"):
        pairs.parsed(manifest(drafter=given), "x")


def test_a_lesson_that_is_missing_or_another_is_named_before_anything_is_made(
    files: Path,
) -> None:
    lesson = {"taught": "taught/a.gguf", "taught_sha256": "0" * 64}
    (pairs.folder() / "taught-int4.toml").write_text(toml(manifest(drafter=lesson)))
    pair = pairs.find("taught-int4")
    with pytest.raises(ModelFileError, match=r"taught/a.gguf is missing: .*reinstall"):
        pairs.files(pair, cache_folder())
    (pairs.folder() / "taught").mkdir()
    (pairs.folder() / "taught" / "a.gguf").write_bytes(b"GGUF")
    line = r"a.gguf is not the file the manifest .*reinstall"
    with pytest.raises(ModelFileError, match=line):
        pairs.files(pair, cache_folder())
    assert re.search(line, models.state(pair.drafter, pair.name))
    assert list(cache_folder().glob("*int4*")) == []


@pytest.mark.slow
def test_what_models_says_of_graphs_before_and_after(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*words: str) -> str:
        assert main(["models", *words]) == 0
        return capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "100")
    to_make = "3.00 MB of int4 to make: `edgespec models pull small-int4`"
    assert said("show", "small-int4").count(f"models/drafter.gguf, {to_make}") == 1
    assert re.search(r"small-int4 +A small one\. [\d.]+ MB, [\d.]+ MB of it here\.", said("list"))
    paths = [Path(line) for line in said("pull", "small-int4").splitlines()]
    assert [path.is_dir() for path in paths] == [True, True]
    shown = said("show", "small-int4")
    assert shown.count("made into int4 for ONNX Runtime") == 2
    assert f"made        {paths[0]}: " in shown
    assert re.search(r"small-int4 +A small one\. [\d.]+ MB, here\.", said("list"))
    assert said("rm", "small-int4").startswith("freed ")
    assert not any(path.exists() for path in paths)


def test_a_graph_that_another_pair_has_made_too_is_kept(files: Path) -> None:
    pair, cache = pairs.find("small-int4"), cache_folder()
    for entry in (*pair.entries, pairs.find("other-int4").drafter):
        graph = pairs.graph_of(entry, cache)
        graph.mkdir(parents=True, exist_ok=True)
        (graph / "edgespec.json").write_text("{}")
    target = pairs.graph_of(pair.target, cache)
    assert removal.remove(pair, cache) == (2, [f"{target.name} (other-int4)"])
    assert removal.remove(pairs.find("other-int4"), cache) == (4, [])


def test_a_graph_half_deleted_or_of_an_older_recipe_is_not_taken(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, cache = pairs.find("small-int4").target, cache_folder()
    graph = pairs.graph_of(entry, cache)
    graph.mkdir(parents=True)
    assert not pairs.is_here(entry, cache)
    (graph / "edgespec.json").write_text("{}")
    assert pairs.is_here(entry, cache)
    monkeypatch.setattr(pairs, "RECIPE", 3)
    assert not pairs.is_here(entry, cache)
    assert pairs.made(entry, cache) == [graph]  # to be removed


def test_a_missing_package_is_named_before_anything_is_fetched(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def maker(_: str) -> None:
        raise ModuleNotFoundError("missing", name="onnx")

    monkeypatch.delenv(shelf.VARIABLE)
    monkeypatch.setattr(hub, "fetch", None)
    monkeypatch.setattr(pairs, "_maker", maker)
    with pytest.raises(UsageError, match=r"package onnx is not installed: .*edgespec\[export\]"):
        pairs.files(pairs.find("small-int4"), cache_folder())


def test_room_is_looked_for_before_anything_is_fetched(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(shelf.VARIABLE)
    monkeypatch.setattr(hub, "fetch", None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    with pytest.raises(UsageError, match=r"small-int4 needs 5.03 MB more, 2.00 MB are free in"):
        pairs.files(pairs.find("small-int4"), cache_folder())
    entry = pairs.find("small-int4").drafter
    merged = replace(entry, taught="a", taught_sha256="b", onnx_size=0, size=1_000_000)
    with pytest.raises(UsageError, match=r"needs 5.00 MB more"):
        pairs.check_room(merged, cache_folder())


def test_a_graph_that_is_not_made_yet_is_named() -> None:
    line = "graph of q.* is not made yet: type `edgespec models pull qwen2.5-coder-1.5b-smol-int4`"
    with pytest.raises(UsageError, match=line):
        pairs.bundled(pairs.find("qwen2.5-coder-1.5b-smol-int4").target)


@pytest.mark.parametrize("lacks", ["sha256", "onnx_size", "repo"])
def test_a_graph_is_made_of_a_pinned_file_of_known_size_only(lacks: str) -> None:
    empty = {"sha256": "", "onnx_size": 0, "repo": ""}[lacks]
    with pytest.raises(ModelFileError, match=r"x.toml is damaged .'repo, sha256 or onnx_size"):
        pairs.parsed(manifest(target={lacks: empty}), "x")


def test_the_maker_of_graphs_is_found_as_installed() -> None:
    assert pairs._maker("onnx") is made.made


def test_what_a_killed_export_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    out = tmp_path / "model-int4-r1"
    for name, age_s in {"old": 4000, "young": 0, "other": 4000}.items():
        stem = "else-r1" if name == "other" else out.name
        folder = tmp_path / f"{stem}.{name}.part"
        folder.mkdir()
        (folder / "model.onnx.data").write_bytes(b"weights")
        at = folder.stat().st_mtime - age_s
        os.utime(folder, (at, at))
    made.remove_stale(out)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["else-r1.other.part", f"{out.name}.young.part"]
