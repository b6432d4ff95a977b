"""64 clients at once, for some seconds, or for so many as EDGESPEC_STORM_S says (180 are due)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("EDGESPEC_STORM_S", "15"))
STORM = Path(__file__).with_name("storm.py")


@pytest.fixture(scope="module")
def seen() -> Any:
    words = ["--seconds", str(SECONDS), "-t", "1", "-c", "256", "--parallel", "8", "--queue", "48"]
    done = subprocess.run(
        [sys.executable, str(STORM), *words], capture_output=True, text=True, timeout=SECONDS + 120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    shown = {name: value for name, value in found.items() if name not in ("rss_bytes", "log")}
    print(json.dumps(shown, indent=1))
    return found


def test_every_answer_is_the_lone_one(seen: Any) -> None:
    assert seen["wrong"] == []
    assert seen["n_equal"] > 50 and seen["n_ties"] < 0.2 * seen["n_equal"]


def test_every_request_is_answered_or_refused(seen: Any) -> None:
    assert seen["silent"] == 0 and seen["broken"] == []
    assert set(map(int, seen["statuses"])) <= {200, 400, 404, 429}
    assert set(seen["kinds"]) == {"whole", "stream", "leave", "cancel", "bad"}


def test_memory_stays(seen: Any) -> None:
    assert seen["rss_growth_bytes"] < 20 << 20


def test_the_server_is_well_and_ends_when_told_to(seen: Any) -> None:
    assert seen["exit"] == 0 and seen["traces"] == 0, seen["log"]
    assert seen["health"]["n"] > 2 * SECONDS
