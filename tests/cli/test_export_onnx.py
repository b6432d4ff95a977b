"""`edgespec export onnx` from the command line: what it prints, and what ends in one line."""

from __future__ import annotations

import re
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from model_maker import make
from onnx_maker import llama_cpp_exact, opened, quick

from edgespec.backends import ModelOptions, open_model
from edgespec.cli import main
from edgespec.cli.export_onnx import out_of

TOKENS = [1, 403, 407, 261, 378, 383, 286, 261, 376, 298, 315, 511]


def test_a_model_is_exported_from_the_command_line(
    out: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a fox. She liked to run. " * 5, encoding="utf-8")
    words = [str(tiny), "-o", str(out), "--precision", "fp32", "--text", str(text)]
    with quick():
        assert main(["export", "onnx", *words, "-c", "64"]) == 0
    said = capsys.readouterr()
    line = f"{out}: fp32, 0.1 M parameters, "
    assert said.out.startswith(line)
    assert re.search(r"same likeliest token (99|100)\.\d\d%, .* over \d+ tokens$", said.out)
    assert said.out.count("\n") == 1
    with closing(opened(out)) as model, llama_cpp_exact(tiny) as exact:
        assert model.n_context == 64
        assert np.allclose(model.forward(TOKENS), exact.forward(TOKENS), atol=1e-3)


def test_without_a_name_the_model_s_own_is_taken(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with quick():
        assert main(["export", "onnx", str(tiny), "--max-loss", "9"]) == 0
    assert capsys.readouterr().out.startswith("tiny-int4: int4-b32, 0.1 M parameters")
    open_model(tmp_path / "tiny-int4", ModelOptions(96, 1)).close()
    (tmp_path / "Qwen2.5-0.5B").mkdir()
    for model, precision, name in (
        ("Qwen2.5-0.5B", "int4", "Qwen2.5-0.5B-int4"),
        ("a/b-f16.gguf", "fp32", "b-f16-fp32"),
    ):
        assert out_of(Namespace(out=None, model=Path(model)), precision) == Path(name)


@pytest.fixture
def bad(tmp_path: Path, stories260k: Path, tiny: Path) -> dict[str, str]:
    """Files that cannot be exported, and texts that cannot be read, by name."""
    make(tmp_path / "gemma.gguf", "gemma", vocabulary=stories260k)
    (tmp_path / "text.gguf").write_text("no model " * 99)
    (tmp_path / "cut.gguf").write_bytes(tiny.read_bytes()[:20_000])
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("Käse".encode("latin-1"))
    (tmp_path / "one.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    return {path.name: str(path) for path in tmp_path.iterdir()} | {
        "here": str(tmp_path),
        "tiny": str(tiny),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("{gemma.gguf} -o {here}/o", "architecture 'gemma', .*: expected a Hugging Face folder"),
        ("{here}/absent.gguf -o {here}/o", "absent.gguf is not there: expected a GGUF file or"),
        ("{folder} -o {here}/o", "folder.*: expected"),
        ("{text.gguf} -o {here}/o", "text.gguf is not a complete GGUF file"),
        ("{cut.gguf} -o {here}/o", "cut.gguf is not a complete GGUF file"),
        ("{tiny} -o {here}/o --text {empty.txt}", "empty.txt is empty: expected some text"),
        ("{tiny} -o {here}/o --text {latin.txt}", "latin.txt: .*: expected a text file in UTF-8"),
        ("{tiny} -o {here}/o --text {here}/no.txt", "no.txt: .*: expected a text file in UTF-8"),
        ("{tiny} -o {folder}", "folder is there and is no exported model: choose another folder"),
        ("{tiny} -o {here}/no/o", "no is not a folder: create it or choose another target"),
        ("{tiny} -o {here}/o --precision int3", "--precision: invalid choice: 'int3'"),
        ("{tiny} -o {here}/o --block 33", "--block: invalid choice"),
        ("{tiny} -o {here}/o -c -1", "'-1': expected a whole number, 0 or more"),
        ("{tiny} -o {here}/o --max-loss x", "'x': expected a number"),
        ("{tiny} -o {here}/o --draft-tokens 4", "graphs of fixed width: expected --npu with it"),
        ("{tiny} -o {here}/o --npu --hidden", "--hidden is not for --npu: leave one of them out"),
        (
            "{tiny} -o {here}/o --precision int8-channel --block 32",
            "--block is not for int8-channel",
        ),
        (
            "{tiny} -o {here}/o --precision int8-channel --calibrate {one.txt}",
            "--calibrate is not for int8-channel: leave one of them out",
        ),
        (
            "{tiny} -o {here}/o --precision int8-channel --npu",
            "'int8-channel' is unknown: expected",
        ),
        ("", "required: MODEL"),
    ],
)
def test_what_cannot_be_exported_ends_in_one_line(
    words: str, line: str, bad: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, path in bad.items():
        words = words.replace("{" + name + "}", path)
    before = sorted(Path(bad["here"]).rglob("*"))
    with quick():
        assert main(["export", "onnx", *words.split()]) == 2
    said = capsys.readouterr()
    assert not said.out
    last = said.err.splitlines()[-1]
    assert last.startswith("edgespec: ")
    assert re.search(line, last), last
    assert "Traceback" not in said.err
    assert sorted(Path(bad["here"]).rglob("*")) == before
