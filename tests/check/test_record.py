"""record.py and device.py: the layout scripts rely on, and sums of runs."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata

import pytest

from edgespec.check.record import outputs_sha256, record, run_row, total
from edgespec.device import LIBRARIES, device_card, free_memory, library_versions, peak_rss_bytes
from edgespec.types import Arm, ModelInfo, SamplingParams, Stats

ONE = Stats(
    n_prompt=3, n_tokens=10, n_rounds=4, n_drafted=12, n_tested=8, n_accepted=6,
    accepted_by_position=(4, 2), tested_by_position=(4, 4), wall_s=2.0, ttft_s=0.1, decode_s=1.0,
    target_s=0.6, draft_s=0.3, note="paused",
    arms={"model": Arm(3, 9, 6, 5), "ngram": Arm(1, 3, 2, 1)}, plain_token_s=0.2,
)  # fmt: skip
OTHER = Stats(
    n_tokens=5,
    n_rounds=1,
    n_accepted=3,
    accepted_by_position=(1, 1, 1),
    ttft_s=0.3,
    decode_s=1.0,
    arms={"ngram": Arm(1, 3, 3, 3)},
    plain_token_s=0.5,
)
INFO = ModelInfo("a.gguf", "ab", "llamacpp", "llama", 7, "F16", 14)
ROW_KEYS = [
    "method", "prompt_set", "n_prompts", "n_tokens", "wall_s", "decode_s", "tokens_per_s",
    "ttft_s", "target_s", "draft_s", "draft_split", "overhead_s", "n_rounds", "n_drafted",
    "n_tested", "n_accepted", "acceptance_rate", "block_efficiency", "accepted_by_position",
    "tested_by_position", "rounds_by_length", "arms", "times_plain", "note",
    "peak_rss_bytes", "outputs_sha256",
]  # fmt: skip


def test_record_has_the_published_layout() -> None:
    row = run_row("auto", ONE, [[1, 2]], prompt_set="stories")
    data = json.loads(json.dumps(record(INFO, None, SamplingParams(), [row]), allow_nan=False))
    assert list(data) == ["schema", "edgespec", "device", "target", "drafter", "params", "runs"]
    assert data["schema"] == "edgespec.run/1"
    assert list(data["target"]) == ["path", "sha256", "backend", "n_params", "quant", "device"]
    assert data["drafter"] is None
    assert list(data["runs"][0]) == ROW_KEYS


def test_row_follows_its_definitions() -> None:
    row = run_row("auto", ONE, [[1, 2]])
    assert row["acceptance_rate"] == 6 / 8
    assert row["block_efficiency"] == 10 / 4
    assert row["overhead_s"] == pytest.approx(1.0 - 0.6 - 0.3)
    assert (row["n_prompts"], row["tokens_per_s"]) == (1, 10.0)


def test_total_adds_counts_and_takes_the_mean_first_token() -> None:
    both = total([ONE, OTHER])
    assert (both.n_tokens, both.n_rounds, both.n_accepted, both.decode_s) == (15, 5, 9, 2.0)
    assert both.accepted_by_position == (5, 3, 1)
    assert both.ttft_s == pytest.approx(0.2)
    assert both.note == "paused"
    assert both.arms == {"model": Arm(3, 9, 6, 5), "ngram": Arm(2, 6, 5, 4)}
    assert both.plain_token_s == pytest.approx((10 * 0.2 + 5 * 0.5) / 15)
    assert total([ONE, Stats(n_tokens=1)]).plain_token_s == 0  # of one it is not known
    assert total([]) == Stats()


def test_output_hash_sees_every_token_and_where_texts_end() -> None:
    outputs = ([[1, 2], [3]], [[1], [2, 3]], [[12], [3]], [[1, 2, 3]], [[1, 23]])
    assert len({outputs_sha256(one) for one in outputs}) == len(outputs)
    assert outputs_sha256([(1, 2)]) == outputs_sha256([[1, 2]])


def test_free_memory_is_plausible() -> None:
    free = free_memory()
    assert free is None or 1 << 20 < free < 1 << 50


def test_card_names_this_device() -> None:
    card = device_card()
    assert card["cpu"]
    assert card["n_cores"] >= 1
    assert card["memory_bytes"] > 2**27
    assert card["python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.match(r"\d+\.\d+", card["libraries"]["numpy"])


def test_peak_memory_is_that_of_this_process() -> None:
    block = bytearray(b"x" * 50_000_000)
    assert peak_rss_bytes() > len(block)


def test_versions_are_those_of_the_installed_packages():
    expected = {name: metadata.version(name) for name in LIBRARIES}
    assert library_versions() == expected


def test_versions_are_found_where_folders_do_not_tell(monkeypatch):
    monkeypatch.setattr("os.listdir", lambda _: [])
    assert library_versions()["numpy"] == metadata.version("numpy")
