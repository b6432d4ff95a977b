"""pairs.py: manifests of the package, and what happens when one or its files are damaged.

Pairs of the hub are fetched from a server of the tests' own in test_cli_models.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgespec.errors import ModelFileError, UsageError
from edgespec.store import hub, pairs, removal
from edgespec.store.hub.names import quant_of, spec_of

BUNDLED = [
    "demo", "demo-foreign", "demo-hybrid", "padded-f16", "padded-f16-foreign", "padded-hybrid",
    "padded-int4", "padded-int4-b128", "padded-q4_0", "padded-q4_0-fitted", "padded-q4_k_m",
    "padded-q8_0",
]  # fmt: skip
PUBLIC = [
    "falcon-h1-1.5b", "gemma-3-12b", "gemma-3-4b", "gemma-3n-e2b", "gemma-4-e2b", "gpt-oss-20b",
    "granite-4.0-h-1b", "granite-4.0-h-tiny", "lfm2-1.2b", "lfm2.5-1.2b", "llama-3.1-8b",
    "llama-3.2-3b", "llama-3.2-3b-smol", "nemotron-nano-9b", "phi-3-mini", "phi-4-mini",
    "qwen2.5-3b", "qwen2.5-7b", "qwen3-4b", "qwen3-8b", "qwen3.5-2b", "smollm2-1.7b",
]  # fmt: skip
MADE = [
    "qwen2.5-coder-1.5b-int4", "qwen2.5-coder-1.5b-smol-int4", "qwen2.5-coder-1.5b-smol-int8",
]  # fmt: skip
TRIED = ["qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-smol", *MADE]
PUBLIC += TRIED
DAMAGED = pairs.Pair(
    "x", "", "", "", pairs.ModelEntry("demo/none.gguf", ""), pairs.ModelEntry("y", "")
)


def test_every_manifest_reads_and_names_its_licence() -> None:
    assert pairs.names() == sorted(BUNDLED + PUBLIC)
    for name in BUNDLED:
        pair = pairs.find(name)
        assert pair.tried
        assert "CDLA" in pair.licence
        assert pair.target.file.endswith(".gguf")
        pad = name[7:].removesuffix("-foreign") if name.startswith("padded") else ""
        assert pair.target.pad == {"hybrid": "f16"}.get(pad, pad)


def test_the_table_of_public_pairs_is_that_of_the_manifests() -> None:
    text = (pairs.folder() / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| (\S+) GB \| (\S+) \| (\S+) GB \|$", text, re.M)
    assert sorted(row[0] for row in rows) == sorted(PUBLIC)
    for name, *cells in rows:
        for entry, repo, n in zip(pairs.find(name).entries, cells[::2], cells[1::2], strict=True):
            assert repo == entry.repo
            assert float(n) == pytest.approx(entry.size / 1e9, rel=0.05)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_pair_names_files_that_the_hub_can_have(name: str) -> None:
    pair = pairs.find(name)
    assert pair.tried == (name in TRIED)
    for entry in pair.entries:
        assert spec_of(entry.spec).repo == entry.repo
        assert quant_of(entry.file) in ("Q4_K_M", "Q8_0", "Q4", "Q4_1", "MXFP4")
        assert not entry.pad
        assert (entry.onnx in ("int4", "int8-channel")) == (name in MADE)
        assert bool(entry.onnx) == (entry.onnx_size > 0)
        assert len(entry.sha256) == (64 if pair.tried else 0)
    most = 7e9 if name == "gpt-oss-20b" else 4e9  # for a laptop of 24 GB, or of 16
    assert pair.drafter.size < 0.5 * pair.target.size < most
    words = (
        "Apache-2.0", "MIT", "Llama 3", "Gemma", "Qwen", "LFM Open", "Falcon LLM", "NVIDIA Open",
    )  # fmt: skip
    assert any(word in pair.licence for word in words)


def test_a_drafter_of_another_family_is_said_to_cross_the_bridge() -> None:
    for pair in map(pairs.find, PUBLIC):
        files = [entry.file.lower().removeprefix("meta-") for entry in pair.entries]
        crosses = "another 49152" in pair.vocabulary or "49152 of" in pair.vocabulary
        assert ("over the bridge" in pair.about) == crosses
        assert crosses != (files[0][:5] == files[1][:5])


@pytest.mark.parametrize("name", MADE)
def test_a_pair_that_is_made_names_the_files_of_its_namesake(name: str) -> None:
    made, other = pairs.find(name), pairs.find(name[: name.rindex("-int")])
    assert [entry.source for entry in made.entries] == list(other.entries)
    assert (made.licence, made.vocabulary) == (other.licence, other.vocabulary)


def test_sizes_of_one_file_agree() -> None:
    sizes: dict[str, set[int]] = {}
    for pair in map(pairs.find, PUBLIC):
        for entry in pair.entries:
            sizes.setdefault(entry.spec, set()).add(entry.size)
    assert all(len(found) == 1 for found in sizes.values())


def test_padded_is_short_for_padded_f16() -> None:
    assert pairs.find("padded") == pairs.find("padded-f16")


def test_a_name_nearly_right_is_suggested() -> None:
    with pytest.raises(UsageError, match="'padded-q4': did you mean padded-q4_0"):
        pairs.find("padded-q4")
    with pytest.raises(UsageError, match="'zzz': expected one of demo, demo-foreign"):
        pairs.find("zzz")


def test_a_missing_bundled_file_is_named() -> None:
    with pytest.raises(ModelFileError, match="none.gguf is missing.*reinstall"):
        pairs.files(DAMAGED, Path("unused"))


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"target": {"file": "a"}},
        {"target": {"fil": "a", "sha256": ""}},
        {**dict.fromkeys(("about", "licence", "vocabulary"), ""),
         "target": {"file": "a", "sha256": "b"}, "drafter": {"file": "a", "repo": "b/c"}},
        {**dict.fromkeys(("about", "licence", "vocabulary"), ""),
         "target": {"file": "a", "sha256": "b"}, "drafter": {"file": "a"}},
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(manifest: dict[str, object]) -> None:
    with pytest.raises(ModelFileError, match=r"manifest x.toml is damaged"):
        pairs.parsed(manifest, "x")


def test_a_padded_target_is_made_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes it is a stand-in here; the real one has tests of its own."""

    def padded(kind: str, source: Path, cache: Path, progress: object) -> Path:
        return cache / f"{kind}-of-{source.name}"

    monkeypatch.setattr(pairs, "_maker", lambda name: {"padded": padded}[name])
    monkeypatch.setattr(pairs, "bundled", lambda entry: Path(entry.file))
    target, drafter = pairs.files(pairs.find("padded-q8_0"), tmp_path)
    assert target == tmp_path / "q8_0-of-target.gguf"
    assert drafter == Path("demo/drafter.gguf")


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("gguf", UsageError, "the package gguf is not installed: expected it for making model"),
        ("edgespec.export.pad.model", ModuleNotFoundError, "^missing$"),
    ],
)
def test_a_missing_package_is_named_and_a_missing_module_of_ours_is_a_fault(
    name: str, error: type[Exception], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def maker(_: str) -> None:
        raise ModuleNotFoundError("missing", name=name)

    monkeypatch.setattr(pairs, "_maker", maker)
    with pytest.raises(error, match=line):
        pairs.files(pairs.find("padded-q8_0"), tmp_path)


def test_the_maker_of_padded_models_is_found_as_installed() -> None:
    from edgespec.export.pad.padded import padded

    assert pairs._maker("padded") is padded


def test_a_maker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MAKERS", "edgespec.none")
    with pytest.raises(UsageError, match="no maker of padded models is installed: .* reinstall"):
        pairs._maker("padded")


def test_a_public_pair_is_fetched_by_its_exact_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(spec: str, **given: object) -> Path:
        asked.append((spec, given["offline"], given["sha256"]))
        return Path(spec)

    monkeypatch.setattr(hub, "fetch", fetch)
    pair = pairs.find("qwen2.5-7b")
    first = "Qwen/Qwen2.5-7B-Instruct-GGUF:qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf"
    drafter = "Qwen/Qwen2.5-0.5B-Instruct-GGUF:qwen2.5-0.5b-instruct-q8_0.gguf"
    assert pairs.files(pair, Path("unused"), offline=True) == (Path(first), Path(drafter))
    assert asked == [(first, True, ""), (drafter, True, "")]
    monkeypatch.setattr(hub, "held", lambda *_, **__: None)
    line = f"{drafter} is not downloaded yet: type `edgespec models pull qwen2.5-7b`"
    with pytest.raises(UsageError, match=re.escape(line)):
        pairs.bundled(pair.drafter)
    assert len(asked) == 2  # what is not here is not fetched unasked


@pytest.mark.parametrize("name", ["padded-f16", "padded-q4_0", "padded-int4", "padded-q4_0-fitted"])
def test_what_was_made_of_a_padded_pair_is_found_and_removed(name: str, tmp_path: Path) -> None:
    from edgespec.export.pad import int4 as pad_int4
    from edgespec.export.pad import model as pad

    pair = pairs.find(name)
    stem = f"padded-{pair.target.sha256[:12]}-{pad.N_EMBD}x{pad.N_LAYERS}x{pad.N_FF}-r{pad.RECIPE}"
    folder = tmp_path / f"{stem}{pad_int4.INT4}32"
    endings = {"padded-int4": folder, "padded-q4_0-fitted": pad_int4.q4_0_of(folder)}
    made = endings.get(name, tmp_path / f"{stem}-{pair.target.pad}.gguf")
    for path in (*endings.values(), *(tmp_path / f"{stem}-{k}.gguf" for k in ("f16", "q4_0"))):
        if path == folder:
            path.mkdir()
            path = path / "model.onnx"
        path.write_bytes(b"weights")
    assert pairs.made(pair.target, tmp_path) == [made]
    n_before = len(list(tmp_path.iterdir()))
    assert removal.remove(pair, tmp_path) == (7, [])
    assert not made.exists()
    assert len(list(tmp_path.iterdir())) == n_before - 1


def test_a_target_that_another_pair_has_made_too_is_kept_for_the_first(tmp_path: Path) -> None:
    target = pairs.find("padded-f16").target
    made = tmp_path / f"padded-{target.sha256[:12]}-x-f16.gguf"
    made.write_bytes(b"weights")
    kept = [f"{made.name} (padded-f16)"]
    assert removal.remove(pairs.find("padded-f16-foreign"), tmp_path) == (0, kept)
    assert removal.remove(pairs.find("padded-f16"), tmp_path) == (7, [])
    assert not made.exists()


def test_a_target_stays_while_another_pair_with_its_drafter_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, smol = pairs.find("llama-3.2-3b"), pairs.find("llama-3.2-3b-smol")
    here = {entry.spec for entry in (*usual.entries, *smol.entries)}

    def remove(spec: str) -> int:
        here.remove(spec)
        return 1

    monkeypatch.setattr(hub, "held", lambda spec, **_: spec if spec in here else None)
    monkeypatch.setattr(hub, "remove", remove)
    kept = [f"{usual.target.file} (llama-3.2-3b)"]
    assert removal.remove(smol, tmp_path) == (1, kept)
    assert here == {entry.spec for entry in usual.entries}
    assert removal.remove(usual, tmp_path) == (2, [])
