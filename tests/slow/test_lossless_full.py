"""Losslessness of the demo pair at length: greedy texts against plain ones, the law of samples."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest

HEROES = (
    "fox", "girl", "boy", "bear", "cat", "dog", "bird", "frog", "king", "mouse",
    "duck", "lion", "rabbit", "farmer", "teacher", "baby", "monkey", "horse", "fish", "bee",
)  # fmt: skip
DEEDS = (
    "lost a kite", "found a box", "wanted to fly", "went to the park", "was afraid of the rain",
    "made a cake", "met a new friend", "broke a cup", "could not sleep", "liked to sing",
)  # fmt: skip


@pytest.mark.slow
def test_the_demo_pair_is_lossless_over_100_prompts_and_10000_draws(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    pairs = list(itertools.product(HEROES, DEEDS))[::2]
    lines = [{"prompt": f"Tell me a story about a {hero} who {deed}."} for hero, deed in pairs]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "edgespec", "verify", "--prompts", str(prompts)]
    command += ["--max-tokens", "128", "--draws", "10000", "--json", "-"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    greedy, sampling = report["greedy"], report["sampling"]
    print({**greedy, "divergences": greedy["divergences"][:5]}, sampling)
    assert greedy["n_prompts"] == 100
    assert greedy["n_tokens"] > 100 * 64
    assert all(one["kind"] == "tie" for one in greedy["divergences"])
    assert greedy["n_identical"] + len(greedy["divergences"]) == 100
    assert greedy["n_identical"] >= 95
    assert sampling["n_draws"] == 10000
    assert all(test["p_value"] > 0.001 for test in sampling["tests"].values())
