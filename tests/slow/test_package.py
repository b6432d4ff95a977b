"""What a wheel holds, and that it works from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgespec.store import pairs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_wheel_holds_one_top_level_package_with_its_models(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edgespec"}
    lessons = {
        f"models/{file}"
        for name in pairs.names()
        for entry in pairs.find(name).entries
        for file, _ in entry.lessons.values()
    }
    some = ("export/pad/padded.py", "models/demo.toml", "models/demo/target.gguf", "py.typed")
    assert {f"edgespec/{name}" for name in (*some, *lessons)} <= set(names)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import edgespec; "
        "assert edgespec.__file__.startswith(sys.argv[1]); "
        "s = edgespec.load(); print(len(list(s.generate('Once', max_tokens=4))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
