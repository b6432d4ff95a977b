"""The program `llm` with its OpenAI-compatible models, against the demo pair."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import ASK, call

import edgespec
from edgespec.server.running import Server

pytestmark = pytest.mark.slow
QUESTION = ASK[0]["content"]
MODELS = """
- model_id: local
  model_name: demo
  api_base: "{url}/v1"
  supports_schema: true
  supports_tools: true
- model_id: absent
  model_name: gpt-4
  api_base: "{url}/v1"
- model_id: written
  model_name: demo
  api_base: "{url}/v1"
  completion: true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESPEC_HOME", str(tmp_path_factory.mktemp("home")))
        with edgespec.serve(threads=1, parallel=2, ctx_size=512) as one:
            yield one


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    """Where llm keeps its settings."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(url=server.url))
    return tmp_path


def llm(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("llm", path=str(Path(sys.executable).parent))
    assert program, "llm is not installed: pip install '.[test]'"
    known = {**os.environ, "LLM_USER_PATH": str(folder), "HOME": str(folder)}
    return subprocess.run(
        [program, *words],
        capture_output=True,
        text=True,
        env=known,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def said(folder: Path, *words: str) -> str:
    done = llm(folder, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


OPTIONS = ("-o", "temperature", "0", "-o", "max_tokens", "20")


def test_it_answers_as_the_server_does(server: Server, folder: Path) -> None:
    given = {"messages": ASK, "temperature": 0, "max_tokens": 20}
    answer = call(server.url, "/v1/chat/completions", given).body["choices"][0]["message"]
    for words in ((), ("--no-stream",)):
        assert said(folder, "-m", "local", QUESTION, *OPTIONS, *words) == answer["content"].strip()
    assert "prompt" in said(folder, "logs", "--json", "-n", "1")
    assert said(folder, "-c", "And then?", *OPTIONS)


def test_it_completes_texts(server: Server, folder: Path) -> None:
    given = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 20}
    text = call(server.url, "/v1/completions", given).body["choices"][0]["text"]
    assert said(folder, "-m", "written", "Once upon a time", *OPTIONS) == text.strip()


def test_its_schemas_and_tools_are_taken(folder: Path) -> None:
    words = ("-m", "local", QUESTION, "-o", "temperature", "0")
    found = json.loads(said(folder, *words, "-o", "max_tokens", "60", "--schema", "age int"))
    assert isinstance(found["age"], int)
    tool = "def look(place: str) -> str:\n    'Look at a place.'\n    return 'a fox'"
    assert said(folder, *words, "-o", "max_tokens", "20", "--functions", tool)


def test_what_is_refused_is_said_by_it(folder: Path) -> None:
    done = llm(folder, "-m", "absent", QUESTION)
    assert done.returncode != 0 and "'gpt-4' is not served here" in done.stderr
    assert "Traceback" not in done.stderr
