"""The bundled hybrid: its text and its law with drafters of both vocabularies, and with n-grams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgespec.cli import main
from edgespec.store import pairs
from slow.test_lossless_full import DEEDS, HEROES

pytestmark = pytest.mark.slow
TARGET = pairs.bundled(pairs.find("demo-hybrid").target)
DRAFTERS = {
    "of its vocabulary": ["-md", str(pairs.bundled(pairs.find("demo").drafter))],
    "of another": ["-md", str(pairs.bundled(pairs.find("demo-foreign").drafter))],
    "n-grams": ["--drafter", "ngram"],
}


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_the_text_is_plain_decodings_and_the_law_the_targets(
    drafter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    asked, record = tmp_path / "asked.jsonl", tmp_path / "record.json"
    texts = [f"Tell me a story about a {who} who {did}." for who in HEROES for did in DEEDS][:12]
    asked.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    words = ["verify", "-m", str(TARGET), *DRAFTERS[drafter], "-t", "1", "-n", "64"]
    words += ["--prompts", str(asked), "--draws", "2000", "--json", str(record)]
    assert main(words) == 0
    said = json.loads(record.read_text())
    assert said["greedy"]["n_prompts"] == 12
    assert {one["kind"] for one in said["greedy"]["divergences"]} <= {"tie"}
    assert said["sampling"]["kind"] == "ok"
    assert said["sampling"]["n_accepted"] > 0
