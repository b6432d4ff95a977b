"""A conversation with public models in a pseudo-terminal, and what the doctor says of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from terminal_driver import Terminal

from edgespec.backends import ModelOptions
from edgespec.check.doctor.advice import notes
from edgespec.check.doctor.report import examine

pytestmark = pytest.mark.real

QWEN = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
SMALL, SMOL = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "smollm2-135m-instruct-q4_1.gguf"
ASKED = "A Markdown table of three planets (name, what it is known for in ten words), no more."


@pytest.fixture(scope="module")
def models() -> Path:
    """The folder of public models."""
    folder = os.environ.get("EDGESPEC_REAL_MODELS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no public models: set EDGESPEC_REAL_MODELS")
    return Path(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for what is measured once."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(("columns", "drafter"), [(100, SMOL), (60, SMALL)])
def test_a_conversation_is_set_for_its_terminal(
    columns: int, drafter: str, models: Path, home: Path
) -> None:
    words = ["chat", "-m", str(models / QWEN), "-md", str(models / drafter), "-c", "1024"]
    with Terminal(*words, "-n", "120", "--temp", "0", home=home, columns=columns) as terminal:
        terminal.prompt(1)
        terminal.type(ASKED)
        terminal.prompt(2)
        terminal.type("Write a Python function that adds two numbers. Code only.")
        terminal.prompt(3)
        rows = terminal.rows
        assert max(map(len, rows)) < columns
        assert any("┼" in row for row in rows)
        assert not any(row.startswith("|") for row in rows)
        assert terminal.colour_of("def") <= {"magenta", "green"}
        below = [row for row in rows if re.match(r"[\d.]+ tokens/s", row)]
        assert len(below) == 2
        assert terminal.text.count("target on CPU") == 1
        terminal.type("/exit")
        assert terminal.end() == 0


@pytest.mark.parametrize("drafter", [SMALL, SMOL])
def test_nobody_is_warned_of_a_format_that_chats_share(drafter: str, models: Path) -> None:
    options = ModelOptions(n_context=1024, device="cpu")
    report = examine(models / QWEN, models / drafter, (options, options), ["Some text."], None)
    assert not any("another chat format" in line for line in notes(report))
