"""Repeats of methods: in which order they are asked, and what a target reads for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgespec.cli import main
from edgespec.cli.prompts import built_in
from edgespec.cli.repeats import Asking, measured
from edgespec.config import Config
from edgespec.session.session import Session


@pytest.fixture
def session(
    stories260k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    config = Config(model=str(stories260k), ctx_size=256, threads=1, max_tokens=4, temperature=0.0)
    with Session(config) as session:
        yield session


@pytest.mark.parametrize("read_once", [True, False])
def test_repeats_take_turns_at_every_prompt_and_share_what_is_read_if_told(
    session: Session, read_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[str, int, str]]()
    ask = Asking.ask

    def noted(self: Asking, *words: object, **named: bool) -> None:
        ask(self, *words, **named)  # type: ignore[arg-type]
        asked.append((self.method.name, self.stats[-1].n_prompt, str(words[0])))

    monkeypatch.setattr(Asking, "ask", noted)
    prompts = built_in("stories")[:2]
    runners = {name: (session, name) for name in ("plain", "fixed-2")}
    found = measured(runners, prompts, 2, "stories", read_once=read_once)
    del asked[:2]  # a few tokens of each before
    turns = ["plain", "fixed-2", "fixed-2", "plain"]
    assert [name for name, _, _ in asked] == [*turns, *turns[2:], *turns[:2]]
    assert [prompt for _, _, prompt in asked] == [str(one) for one in prompts for _ in range(4)]
    n_read = [n for _, n, _ in asked]
    first, second = (len(session.prompt(list(one.messages))) for one in prompts)
    if read_once:
        assert n_read[:4] == [1] * 4  # the few tokens before had it read
        assert second / 2 < n_read[4] < second and n_read[5:] == [1] * 3
    else:
        assert n_read == [first] * 4 + [second] * 4
    outputs = {one.outputs for repeats in found.values() for one in repeats}
    assert len(outputs) == 1 and {len(one) for one in outputs} == {2}


def test_a_bench_that_reads_once_tells_no_first_token(
    stories260k: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "-m", str(stories260k), "-c", "256", "-t", "1", "-n", "4", "--repeats", "1"]
    words += ["--set", "stories", "--first", "1", "--methods", "plain"]
    for more, is_told in ((["--read-once"], False), ([], True)):
        assert main([*words, *more]) == 0
        *table, last = capsys.readouterr().out.strip().splitlines()
        (row,) = json.loads(last)["runs"]
        assert (row["ttft_s"] is not None) is is_told
        (line,) = [line for line in table if line.startswith("plain ")]
        assert (line.split()[-2] == "-") is not is_told
