"""pairs.py: manifests of the package, and what happens when one or its files are damaged."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgespec import pairs
from edgespec.errors import ModelFileError, UsageError

NAMES = [
    "demo", "demo-foreign", "padded-f16", "padded-f16-foreign", "padded-int4", "padded-int4-b128",
    "padded-q4_0", "padded-q4_0-fitted", "padded-q4_k_m", "padded-q8_0",
]  # fmt: skip
DAMAGED = pairs.Pair(
    "x", "", "", "", pairs.ModelEntry("demo/none.gguf", ""), pairs.ModelEntry("y", "")
)


def test_every_manifest_reads_and_names_its_licence() -> None:
    assert pairs.names() == NAMES
    for name in NAMES:
        pair = pairs.find(name)
        assert "CDLA" in pair.licence
        assert pair.target.file.endswith(".gguf")
        assert pair.target.pad == (
            name[7:].removesuffix("-foreign") if name.startswith("padded") else ""
        )


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
    "manifest", [{}, {"target": {"file": "a"}}, {"target": {"fil": "a", "sha256": ""}}]
)
def test_a_damaged_manifest_is_named(manifest: dict[str, object]) -> None:
    with pytest.raises(ModelFileError, match=r"manifest x.toml is damaged"):
        pairs.parsed(manifest, "x")


def test_a_padded_target_is_made_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes it is a stand-in here; the real one has tests of its own."""
    maker = ModuleType("edgespec.export.padded")

    def padded(kind: str, source: Path, cache: Path, progress: object) -> Path:
        return cache / f"{kind}-of-{source.name}"

    maker.padded = padded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edgespec.export.padded", maker)
    monkeypatch.setattr(pairs, "bundled", lambda entry: Path(entry.file))
    target, drafter = pairs.files(pairs.find("padded-q8_0"), tmp_path)
    assert target == tmp_path / "q8_0-of-target.gguf"
    assert drafter == Path("demo/drafter.gguf")


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("gguf", UsageError, "the package gguf is not installed: expected it for making model"),
        ("edgespec.export.pad", ModuleNotFoundError, "^missing$"),
    ],
)
def test_a_missing_package_is_named_and_a_missing_module_of_ours_is_a_fault(
    name: str, error: type[Exception], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = ModuleType("edgespec.export.padded")

    def padded(*_: object) -> Path:
        raise ModuleNotFoundError("missing", name=name)

    maker.padded = padded  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "edgespec.export.padded", maker)
    with pytest.raises(error, match=line):
        pairs.files(pairs.find("padded-q8_0"), tmp_path)
