"""The sources that the app builds for ARM run under emulation, and say what plain decoding says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm64 import Arm64, arm64
from edgespec.export.npu.export import StaticOptions, export_static
from edgespec.export.read.gguf import open_gguf_checkpoint
from npu_maker import CONTEXT, quiet, some_text

pytestmark = pytest.mark.arm64

DEMO = """
import json, os, platform, sys
os.environ.update(json.loads(sys.argv[1]))
import edgespec
from edgespec.backends.llamacpp.library import library
found = {"machine": platform.machine(), "system": library().api.llama_print_system_info().decode()}
messages = [{"role": "user", "content": "Tell me a story about a fox who lost her kite."}]
with edgespec.load(threads=1, max_tokens=24, speculative="on") as session:
    for how in ("on", "off"):
        pieces = list(session.chat(messages, speculative=how))
        found[how] = [piece.token for piece in pieces], "".join(piece.text for piece in pieces)
        found.setdefault("n_accepted", session.stats.n_accepted)
print(json.dumps(found))
"""

DRAFTER = """
import json, os, sys
os.environ.update(json.loads(sys.argv[1]))
import edgespec
from edgespec.backends.onnx import providers
found = {"version": providers.runtime().__version__, "by": providers.runtime().__name__}
options = {"threads": 1, "ctx_size": 96, "max_tokens": 24, "speculative": "on"}
with edgespec.load(sys.argv[2], sys.argv[3], **options) as session:
    for how in ("on", "off"):
        found[how] = "".join(p.text for p in session.generate("Once upon a time", speculative=how))
        found.setdefault("acceptance", session.stats.acceptance_rate)
        found.setdefault("where", session.where())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def there() -> Arm64:
    return arm64()


def variables(there: Arm64, home: Path) -> str:
    """What an app would set (phone/device.py)."""
    return json.dumps(
        {
            "EDGESPEC_HOME": str(home),
            "LLAMA_CPP_LIB_PATH": str(there.llama),
            "ORT_DYLIB_PATH": str(there.onnx),
        }
    )


def test_the_demo_pair_says_what_plain_decoding_says(there: Arm64, tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(there.run(DEMO, variables(there, tmp_path)))
    assert found["machine"] == "aarch64"
    assert "DOTPROD = 1" in found["system"]
    assert found["on"] == found["off"]
    assert found["on"][1].startswith("Once upon a time")
    assert found["n_accepted"] > 10


def test_a_trimmed_drafter_exported_for_an_npu_runs_by_the_c_library(
    there: Arm64, data_folder: Path, stories260k: Path, tmp_path: Path
) -> None:
    kept = np.arange(259, 512, dtype=np.int32)  # no bytes and no control tokens
    checkpoint = open_gguf_checkpoint(stories260k).with_head(kept)
    options, text = StaticOptions(CONTEXT, 4, "fp32"), some_text(data_folder, 6000)
    export_static(checkpoint, tmp_path / "drafter", options, text, quiet)
    words = str(stories260k), str(tmp_path / "drafter")
    found = json.loads(there.run(DRAFTER, variables(there, tmp_path), *words))
    assert found["by"] == "edgespec.backends.onnx.native.package"
    assert found["on"] == found["off"] != ""
    assert found["acceptance"] > 0.95
    assert "drafter on CPU" in found["where"]


def test_libraries_are_aligned_for_pages_of_16_kib(there: Arm64) -> None:
    libraries = [file for file in there.llama.glob("*.so") if not file.is_symlink()]
    assert {file.name for file in there.llama.glob("*.so")} >= {"libllama.so", "libggml-cpu.so"}
    for file in libraries:
        done = subprocess.run(["readelf", "-lW", file], capture_output=True, text=True, check=True)
        loads = [line.split() for line in done.stdout.splitlines() if line.startswith("  LOAD")]
        assert loads
        assert all(int(words[-1], 16) >= 16384 for words in loads), file.name
