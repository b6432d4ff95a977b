"""The public pair that is made into graphs: made once, found, opened, and losslessly greedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgespec.export.onnx import check

import edgespec
from edgespec.check import lossless
from edgespec.check.lossless import check_greedy
from edgespec.cli import main
from edgespec.cli.prompts import built_in
from edgespec.cli.verify import fresh

pytestmark = pytest.mark.real

NAME = "qwen2.5-coder-1.5b-smol-int8"


def test_a_pair_of_graphs_is_made_and_says_what_its_target_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "MOST_TOKENS", 300)  # for time's sake
    assert main(["models", "pull", NAME]) == 0
    assert [Path(line).is_dir() for line in capsys.readouterr().out.splitlines()] == [True, True]
    assert main(["models", "list"]) == 0
    assert NAME in capsys.readouterr().out
    monkeypatch.setattr(lossless, "N_NOISE_TOKENS", 8)
    monkeypatch.setattr(lossless, "WIDTHS", (4, 8))
    with edgespec.load(pair=NAME, ctx_size=1024, max_tokens=20) as session:
        info = session.target.info()
        assert (info.backend, info.quant) == ("onnx", "int8-channel")
        said = "".join(piece.text for piece in session.chat([{"role": "user", "content": "Hi"}]))
        assert said.startswith("Hello! How can I")
        prompts = [session.prompt(built_in("questions")[0].messages)]
        streams = (fresh(session, session.pair.methods.named(one)) for one in ("plain", "fixed-3"))
        report = check_greedy(session.target, *streams, prompts, session.params())
        assert {one["kind"] for one in report["divergences"]} <= {"tie"}
        assert report["n_tested"] > 8
