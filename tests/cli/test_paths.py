"""Where files are named: "~" is the home folder, whoever names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgespec
from edgespec.cli import main
from edgespec.errors import ModelFileError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Also the folder of EdgeSpec's settings."""
    for name in ("HOME", "USERPROFILE", "EDGESPEC_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "generate -p x -m ~/none.gguf",
        "generate -p x -md ~/none.gguf",
        "bench --baseline ~/none.gguf",
        "doctor -m ~/none.gguf",
        "generate -p x --grammar ~/none.gbnf",
        "generate -p x -j ~/none.json",
        "chat -p x --chat-template ~/none.jinja",
        "generate --prompts ~/none.jsonl",
        "adapt warm ~/none.txt --pair demo-foreign",
        "adapt train --pair demo -o ~/none/mine",
        "generate -p x --config ~/none.toml",
        "models list --json ~/none/x",
        "export pad --source ~/none.gguf",
        "export lora ~/adapter --base ~/none.gguf",
        "export onnx ~/none.gguf",
        "export trim ~/none.gguf --keep 9",
    ],
)
def test_home_is_known_in_every_path(
    words: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(home / "none") in line


def test_home_is_known_in_settings_variables_and_keywords(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config.toml").write_text('model = "~/none.gguf"')
    assert main(["generate", "-p", "x"]) == 2
    assert f"{home / 'none.gguf'} does not exist" in capsys.readouterr().err
    monkeypatch.setenv("EDGESPEC_MODEL", "~/other.gguf")
    assert main(["generate", "-p", "x"]) == 2
    assert f"{home / 'other.gguf'} does not exist" in capsys.readouterr().err
    with pytest.raises(ModelFileError, match=f"{home / 'none.gguf'} does not exist"):
        edgespec.load("~/none.gguf")


@pytest.mark.slow
def test_a_record_is_written_below_home(home: Path) -> None:
    assert main(["models", "list", "--json", "~/list.json"]) == 0
    assert json.loads((home / "list.json").read_text())["pairs"]


@pytest.mark.parametrize("words", ["chat -p x", "models list", "adapt show"])
def test_without_a_home_one_line_says_what_to_set(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container whose user has no entry and no environment."""
    pwd = pytest.importorskip("pwd")

    def nobody(_: object) -> None:
        raise KeyError

    for name in ("HOME", "EDGESPEC_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert main(words.split()) == 2
    line = capsys.readouterr().err
    assert "no home folder is known: expected HOME or EDGESPEC_HOME in the environment" in line


def test_without_a_home_the_hubs_cache_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from edgespec.store.hub import cache

    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~no-such-user/hub")
    with pytest.raises(edgespec.UsageError, match="~no-such-user/hub: no home folder .* set HOME"):
        cache.folder()
