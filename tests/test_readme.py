"""The README's blocks run and print what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = [
    one
    for one in ROOT.rglob("*.md")
    if not {"build", "node_modules"} & set(one.relative_to(ROOT).parts)
    and not any(part.startswith(".") for part in one.relative_to(ROOT).parts)
]


def blocks(language: str) -> list[str]:
    """Fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command with an empty home folder."""
    environment = {**os.environ, "EDGESPEC_HOME": str(folder), "HOME": str(folder)}
    return subprocess.run(
        words, input="Hello", capture_output=True, text=True, env=environment, timeout=120
    )


def anchors(guide: Path) -> set[str]:
    """What links to its headings end in."""
    headings = re.findall(r"^#+ (.*)$", guide.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(guide: Path):
    text = guide.read_text(encoding="utf-8")
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", text):
        there = (guide.parent / name).resolve() if name else guide
        assert there.exists(), f"{name} of {guide}"
        assert not anchor or anchor in anchors(there), f"{name}#{anchor} of {guide}"


@pytest.mark.slow
def test_the_python_blocks_print_the_text_blocks(tmp_path):
    programs, texts = blocks("python"), blocks("text")
    assert len(programs) == len(texts) == 3
    for program, text in zip(programs, texts, strict=True):
        done = run([sys.executable, "-c", program], tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == text
        assert len(program.splitlines()) <= 16


def test_the_first_command_answers(tmp_path):
    command = next(line for line in blocks("bash")[0].splitlines() if line.startswith("edgespec"))
    words = shlex.split(command)
    done = run([sys.executable, "-m", *words, "--max-tokens", "40"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 20


MODELS = ("target", "drafter", "qwen", "smollm2", "coder")


@pytest.mark.slow
def test_every_command_line_is_understood(tmp_path):
    """Files that are not there are refused by name, so the flags before were read."""
    given = [block for block in blocks("bash") if ".gguf" in block]
    lines = [line.split("#")[0] for block in given for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("edgespec")]
    assert len(commands) == 10
    for words in commands:
        done = run([sys.executable, "-m", *words], tmp_path)
        assert done.returncode == 2
        model = next(word for word in words if word.startswith(MODELS))
        assert model in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_models_of_the_hub_are_named_as_the_manifests_and_repositories_are(tmp_path):
    block = next(block for block in blocks("bash") if "-hf" in block)
    lines = [line.split("#")[0] for line in block.splitlines()]
    listed, by_pair, by_repo = (shlex.split(line) for line in lines)
    done = run([sys.executable, "-m", *listed], tmp_path)
    assert by_pair[-1] in done.stdout
    for words in (by_pair, by_repo):
        done = run([sys.executable, "-m", *words, "--offline"], tmp_path)
        assert done.returncode == 2
        assert "offline" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_drafter_of_another_vocabulary_answers_and_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    block = next(block for block in blocks("bash") if "demo-foreign" in block)
    lines = [line for line in block.splitlines() if line.startswith("edgespec")]
    chat, warm = (shlex.split(line.split("#")[0]) for line in lines)
    done = run([sys.executable, "-m", *chat, "-p", "Tell me a story.", "-n", "12"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    notes = tmp_path / "notes.txt"
    notes.write_text("Once upon a time, Lily went to the kitchen. " * 40)
    warm[warm.index("notes.txt")] = str(notes)
    done = run([sys.executable, "-m", *warm], tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("ngrams/*.bin"))


@pytest.mark.slow
def test_curl_gets_what_the_readme_asks_for(tmp_path, monkeypatch):
    import edgespec

    if not shutil.which("curl"):
        pytest.skip("no curl here")
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    chat, tools, others = blocks("sh")
    with edgespec.serve(threads=1) as server:

        def said(block: str) -> str:
            words = f"set -e\n{block}".replace("http://127.0.0.1:8088", server.url)
            return run(["sh", "-c", words.replace("curl ", "curl -sS --fail ")], tmp_path).stdout

        answer = json.loads(said(chat))
        assert answer["choices"][0]["message"]["content"].startswith("Once upon a time")
        assert answer["timings"]["draft_n_accepted"] > 0
        streamed = said(tools)
        assert '"name":"look"' in streamed and '"finish_reason":"tool_calls"' in streamed
        assert streamed.endswith("data: [DONE]\n\n")
        found = said(others)
        assert '"text_completion"' in found and '"object":"response"' in found
        assert '"id":"demo"' in found and "vllm:spec_decode_num_drafts_total" in found


def test_the_test_commands_are_those_that_continuous_integration_reads():
    marked = README.split("<!-- test commands -->")[1].split("<!-- end -->")[0]
    lines = [line for line in marked.splitlines() if line.startswith("pytest")]
    slow = ['pytest -m "slow and not alone"', 'pytest -m "slow and alone" -n 0']
    assert lines == ["pytest", *slow, "pytest -m real -n 0"]
    assert "mypy" in marked
