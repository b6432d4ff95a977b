"""`edgespec bench --grid`: cells that are measured once and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgespec.cli import main
from edgespec.cli.grid import config_of
from edgespec.config import Config

WORDS = ["bench", "--set", "stories", "--first", "1", "--repeats", "1", "--methods", "auto,fixed-2"]


@pytest.mark.slow
def test_a_grid_goes_on_where_it_was_and_shows_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cli.grid.LENGTHS", (6, 3))
    file = tmp_path / "grid.jsonl"
    words = [*WORDS, "--grid", "demo", "--json", str(file)]
    assert main(words) == 0
    table = capsys.readouterr().out
    kept = file.read_text().splitlines()
    assert len(kept) == 4
    assert {tuple(sorted(json.loads(line)["found"])) for line in kept} == {
        ("auto", "fixed-2", "plain")
    }
    file.write_text("\n".join([*kept[:-1], kept[-1][:30]]))  # killed while writing
    assert main(words) == 0
    again = capsys.readouterr().out
    assert file.read_text().splitlines()[:3] == kept[:3]
    assert again.splitlines()[:-1] == table.splitlines()[:-1]
    assert again.splitlines()[0] == "| pair | temperature | tokens | stories |"
    assert [line.split(" | ")[1:3] for line in again.splitlines()[2:]] == [
        ["0", "6"], ["0", "3"], ["1", "6"], ["1", "3"],
    ]  # fmt: skip


def test_a_grid_measures_its_own_models_alone() -> None:
    named = Config(model="a.gguf", hf_repo_draft="u/d", lora_draft="l.gguf", threads=2)
    assert config_of("demo", named) == Config(threads=2)


@pytest.mark.parametrize(
    "more, said",
    [
        (["--grid", "demo"], "--grid needs a file that keeps what is measured: type --json FILE"),
        (["--grid", "nopair", "--json", "g.jsonl"], "nopair"),
        (["--grid", "demo", "--json", "g.jsonl", "--explain"], "expected none of these"),
        (["--grid", "demo", "--json", "g.jsonl", "-md", "x"], "--grid with -md: expected pairs in"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_a_line(
    more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_file_that_is_no_grids_is_not_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.jsonl"
    for text in ('{"pair": "demo"}\n', '{"a": 1}', '{"pair": "demo", "note": "mine"}'):
        file.write_text(text)
        assert main([*WORDS, "--grid", "demo", "--json", str(file)]) == 2
        line = capsys.readouterr().err
        assert f"{file}:1: '{text.strip()}" in line and ": expected a cell of a grid" in line
        assert file.read_text() == text
