"""Prompts of bench and verify: built-in sets, and what of a file is read, skipped or refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from edgespec.cli import main
from edgespec.cli.bench import prompt_sets
from edgespec.cli.prompts import ASSISTANT, FEW, GROUPS, built_in, interleaved, set_names
from edgespec.config import Config

LONG = "and the fox ran " * 400
QUICK = ["--repeats", "1", "-n", "4", "--methods", "plain"]


def written(folder: Path, *lines: object) -> str:
    """A file of these lines."""
    file = folder / "given.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(file)


def test_the_assistant_sets_are_of_equal_size_and_say_nothing_twice() -> None:
    texts = [str(prompt.messages[0]["content"]) for prompt in interleaved(ASSISTANT)]
    assert len(set(texts)) == len(texts) == 16 * len(ASSISTANT)
    assert max(map(len, texts)) < 1500
    for name in ASSISTANT:
        said = [str(prompt.messages[0]["content"]) for prompt in built_in(name)]
        n_foreign = sum("ä" in text or "é" in text or max(text) > "\u1000" for text in said)
        assert 1 <= n_foreign <= 6, name


def test_sets_are_named_in_lists_and_groups() -> None:
    assert set_names("json, stories") == ["json", "stories"]
    assert set_names("assistant,demo") == [*ASSISTANT, *GROUPS["demo"]]
    with pytest.raises(argparse.ArgumentTypeError, match="no set is called 'poem': expected some"):
        set_names("poem")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Config(), {"stories": 8, "dialogues": 8}),
        (Config(pair="padded-f16"), {"stories": 8, "dialogues": 8}),
        (Config(pair="qwen2.5-coder-1.5b"), dict.fromkeys(ASSISTANT, FEW)),
        (Config(model="some.gguf"), dict.fromkeys(ASSISTANT, FEW)),
    ],
)
def test_what_is_asked_where_nothing_is_chosen_suits_the_model(
    config: Config, expected: dict[str, int]
) -> None:
    args = argparse.Namespace(prompts=None, set=None, first=None)
    sets = prompt_sets(args, config)
    assert {name: len(prompts) for name, prompts in sets.items()} == expected


def test_bench_reports_every_set_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "json,code", "--set", "stories", "--first", "1", "--json", "-"]
    assert main(["bench", *QUICK, *words, "-c", "1024"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert [(row["prompt_set"], row["n_prompts"]) for row in rows] == [
        ("json", 1), ("code", 1), ("stories", 1)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_prompt_that_does_not_fit_is_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = {"turns": ["Tell me a story.", "Another one.", LONG[:700]]}
    file = written(tmp_path, {"prompt": LONG}, {"prompt": "Tell me a story."}, turns)
    assert main(["bench", *QUICK, "--prompts", file, "-c", "128"]) == 0
    seen = capsys.readouterr()
    (row,) = json.loads(seen.out.splitlines()[-1])["runs"]
    assert (row["n_prompts"], row["n_skipped"]) == (1, 2)
    assert "skipped: 2 of given, too long for the context of" in seen.out
    assert f"{file}: skipped 2 of 3, too long for the context" in seen.err
    words = ["verify", "-n", "4", "--draws", "0", "--prompts", file, "-c", "128"]
    assert main([*words, "--json", str(tmp_path / "out")]) == 0
    greedy = json.loads((tmp_path / "out").read_text())["greedy"]
    assert (greedy["n_prompts"], greedy["n_skipped"]) == (2, 1)  # of turns it asks the first
    assert "skipped: 1, too long for the context" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["bench", *QUICK], ["verify", "--draws", "0"]])
def test_prompts_of_which_none_fits_are_one_error(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, {"prompt": LONG}, {"prompt": LONG + LONG})
    assert main([*command, "--prompts", file, "-c", "128"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{file}: of 2 prompts the shortest takes" in line
    assert "expected one that fits; raise it with -c" in line


@pytest.mark.parametrize("command", ["bench", "verify"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("\n", "no prompts: expected an object"),
        ('{"prompt": "a"}\nno', ":2: not JSON"),
    ],
)
def test_a_bad_file_of_prompts_is_said_before_a_model_is_loaded(
    command: str,
    text: str | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"edgespec.cli.{command}.opened", None)
    file = tmp_path / "given.jsonl"
    if text is not None:
        file.write_text(text)
    assert main([command, "--prompts", str(file)]) == 2
    assert said in capsys.readouterr().err
