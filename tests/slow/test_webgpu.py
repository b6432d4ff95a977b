"""The demo drafter on WebGPU, drawn by SwiftShader on the CPU: all of it there, and right.

onnxruntime-webgpu cannot be installed beside onnxruntime, so it gets an environment of its own in
the cache; SwiftShader comes out of a Debian package that is unpacked, not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from edgespec.export.npu.export import StaticOptions, export_static
from edgespec.export.read.gguf import open_gguf_checkpoint
from npu_maker import quiet, some_text

from edgespec.config import cache_folder
from edgespec.store import pairs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("onnxruntime-webgpu==1.27.0", "numpy")
DEBIAN_PACKAGE = "chromium-common"  # has SwiftShader and a Vulkan loader


def done(command: list[Any], what: str, **options: Any) -> None:
    """Run a command; skip, with the end of its output, if it fails."""
    result = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, **options,
    )  # fmt: skip
    if result.returncode:
        pytest.skip(f"{what} cannot be had here: {result.stdout.strip()[-300:]}")


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with onnxruntime-webgpu."""
    folder = cache_folder() / f"test-webgpu-{sys.version_info.major}.{sys.version_info.minor}"
    found = folder / "bin" / "python"
    if not (folder / "complete").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        done([found, "-m", "pip", "install", "-q", *PACKAGES], PACKAGES[0])
        (folder / "complete").touch()
    return found


@pytest.fixture(scope="module")
def graphics() -> Path:
    """The folder with SwiftShader's library and its description for the Vulkan loader."""
    folder = cache_folder() / "test-swiftshader"
    found = folder / "usr" / "lib" / "chromium"
    if not (found / "vk_swiftshader_icd.json").is_file():
        if not shutil.which("apt-get"):
            pytest.skip(f"there is no apt-get to fetch {DEBIAN_PACKAGE} with, for SwiftShader")
        folder.mkdir(parents=True, exist_ok=True)
        done(["apt-get", "download", "-q", DEBIAN_PACKAGE], DEBIAN_PACKAGE, cwd=folder)
        for package in folder.glob("*.deb"):
            done(["dpkg", "-x", package, folder], DEBIAN_PACKAGE)
            package.unlink()
    return found


@pytest.fixture(scope="module")
def found(
    python: Path, graphics: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What on_webgpu.py reports of the demo drafter."""
    parent = tmp_path_factory.mktemp("webgpu")
    checkpoint = open_gguf_checkpoint(pairs.bundled(pairs.find("demo").drafter))
    text = some_text(data_folder, 60_000)
    for precision in ("fp32", "int8"):
        options = StaticOptions(128, 4, precision)
        export_static(checkpoint, parent / precision, options, text, quiet)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LD_LIBRARY_PATH": str(graphics),
        "VK_ICD_FILENAMES": str(graphics / "vk_swiftshader_icd.json"),
    }
    script, out = Path(__file__).with_name("on_webgpu.py"), parent / "found.json"
    result = subprocess.run(
        [python, script, parent / "fp32", parent / "int8", out],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if "Failed to get a WebGPU adapter" in result.stderr or "RequestAdapter" in result.stderr:
        pytest.skip(f"SwiftShader does not start here: {result.stderr.strip()[-300:]}")
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(json.loads(out.read_text(encoding="utf-8")))


def test_the_environment_lists_webgpu(found: dict[str, Any]) -> None:
    assert found["devices"] == ["cpu", "webgpu"]


def test_every_node_runs_on_webgpu(found: dict[str, Any]) -> None:
    assert list(found["nodes"]) == ["WebGpuExecutionProvider"]
    assert found["nodes"]["WebGpuExecutionProvider"] > 60


def test_logits_are_those_of_the_cpu(found: dict[str, Any]) -> None:
    assert found["n_rows"] == 72
    assert found["spread"] > 10
    assert found["difference"] < 1e-3
    assert found["agreement"] == 1


def test_rollback_leaves_no_trace(found: dict[str, Any]) -> None:
    assert found["rollback"] < 1e-3


def test_whole_numbers_are_refused_there(found: dict[str, Any]) -> None:
    assert "has nodes that webgpu does not take: expected" in found["refusal"]
