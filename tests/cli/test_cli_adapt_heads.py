"""`edgespec adapt` and drafters' heads: shown by day, drawn, moved to another device, erased."""

from __future__ import annotations

import json
import os
import zipfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgespec.adapt.adapter import fresh
from edgespec.adapt.adapter_file import AdapterFiles, Day
from edgespec.adapt.kept_prompts import KeptPrompts
from edgespec.adapt.missed import Missed
from edgespec.adapt.topic_files import TopicFiles, new_map
from edgespec.cli import adapt_train, main
from edgespec.cli.adapt_pair import prompts_of, rows_of, topics_of
from edgespec.config import Config, laid, layers
from edgespec.drafters.bridges.ngram_file import files_in, read
from edgespec.session.adapting import fingerprint
from edgespec.store import pairs

PAIR = ["--pair", "demo-foreign"]
DRAFTER = pairs.folder() / "demo" / "drafter.gguf"
DAYS = {"2026-03-01": Day(40, 900, 1.1, 1.4), "2026-03-02": Day(9, 1200, 1.4, 1.5)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "home"


@pytest.fixture
def learned(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AdapterFiles:
    """A pair that knows n-grams and has a head."""
    story = tmp_path / "story.txt"
    story.write_text("The patient goblin begins to consult his relations.\n" * 3, encoding="utf-8")
    assert main(["adapt", "warm", str(story), *PAIR]) == 0
    capsys.readouterr()
    files = topics_of(asked()).heads[0]
    head = fresh(np.array([3, 8, 9]), 64, rank=8)
    head.bias += 1
    files.save(head, DAYS)
    return files


def asked() -> Config:
    return laid(Config(), layers(Namespace(pair="demo-foreign"), {}))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What a command that succeeds prints."""
    assert main(["adapt", *words]) == 0
    return capsys.readouterr().out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that is refused."""
    assert main(["adapt", *words]) == 2
    seen = capsys.readouterr()
    assert (seen.out, seen.err.count("\n")) == ("", 1)
    return seen.err


def test_a_head_is_shown_with_its_days(learned: AdapterFiles, tmp_path: Path, capsys) -> None:
    lines = said(capsys, "show")
    assert "a drafter's head, rank 8, 3 rows, " in lines[1]
    assert lines[2].strip().startswith("2026-03-01: 40 updates by 900 positions, 1.10 -> 1.40")
    assert lines[3].strip().startswith("2026-03-02: 9 updates by 1,200 positions, 1.40 -> 1.50")
    record = tmp_path / "record.json"
    said(capsys, "show", "--json", str(record))
    (head,) = json.loads(record.read_text(encoding="utf-8"))["heads"]
    assert head["days"]["2026-03-02"]["after"] == 1.5
    assert head["file"] == str(learned.versions()[0])
    learned.versions()[0].write_bytes(b"edgespec head adapter 1 nothing")
    assert "cannot be used: `edgespec adapt reset --all` deletes it" in said(capsys, "show")[1]


@pytest.mark.slow
def test_what_a_head_learned_is_drawn(learned: AdapterFiles, tmp_path: Path, capsys) -> None:
    picture = tmp_path / "days.png"
    assert said(capsys, "show", *PAIR, "--plot", str(picture))[-1] == f"drew 2 days in {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000
    learned.remove()
    picture.unlink()
    line = refusal(capsys, "show", *PAIR, "--plot", str(picture))
    assert "has learned nothing yet: expected a day on which it did; chat with --adapt" in line
    assert not picture.exists()


def test_another_device_gets_all_that_was_learned(
    learned: AdapterFiles, home: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    file = tmp_path / "learned.zip"
    assert said(capsys, "export", str(file), *PAIR) == [f"wrote {file} (ngrams.bin, head.adapter)"]
    assert file.stat().st_mode & 0o777 == 0o600
    (mine,) = files_in(home)
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "other"))
    lines = said(capsys, "import", str(file), *PAIR)
    assert "0 n-grams before, " in lines[0]
    assert lines[1] == f"the drafter's head is {file}'s now (3 rows)"
    there = topics_of(asked()).heads[0].load()
    assert there is not None
    assert (there.head.days, there.adapter.bias.tolist()) == (DAYS, [1.0] * 3)
    (ngrams,) = files_in(tmp_path / "other")
    assert sorted(read(ngrams)[1]) == sorted(read(mine)[1])


@pytest.mark.slow
def test_topics_are_shown_drawn_moved_and_erased(
    learned: AdapterFiles, home: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    topics, file = topics_of(asked()), tmp_path / "learned.zip"
    head = fresh(np.array([1, 2]), 64, rank=8)
    topics.heads[2].save(head, {"2026-03-03": Day(1, 10, 1.0, 2.0)})
    what = topics.load_map()
    what.familiar.counts[:] = [12, 0, 1500, 0]
    topics.save_map(what)
    lines = said(capsys, "show")
    assert any("topic2.00000001  a drafter's head, rank 8, 2 rows" in line for line in lines)
    assert any("prompts by topic: 12 of topic 0, 1,500 of topic 2, " in line for line in lines)
    picture = tmp_path / "days.png"
    assert said(capsys, "show", *PAIR, "--plot", str(picture))[-1].startswith("drew 3 days")
    parts = "ngrams.bin, head.adapter, head2.adapter, topics"
    assert said(capsys, "export", str(file), *PAIR) == [f"wrote {file} ({parts})"]
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "other"))
    there = topics_of(asked())
    there.heads[1].save(head, {})  # gives way
    lines = said(capsys, "import", str(file), *PAIR)
    assert lines[1:] == [
        f"the drafter's head of topic 0 is {file}'s now (3 rows)",
        f"the drafter's head of topic 2 is {file}'s now (2 rows)",
    ]
    assert there.topics() == [0, 2] and there.map.stat().st_mode & 0o777 == 0o600
    assert there.load_map().familiar.counts.tolist() == [12, 0, 1500, 0]
    lines = said(capsys, "reset", *PAIR)
    assert f"deleted {there.map} (which topics prompts are of)" in lines
    assert there.files() == []


def test_an_import_adds_to_what_is_known(learned: AdapterFiles, home, tmp_path, capsys) -> None:
    file = tmp_path / "learned.zip"
    said(capsys, "export", str(file), *PAIR)
    (mine,) = files_in(home)
    n_before = len(read(mine)[1])
    lines = said(capsys, "import", str(file), *PAIR)
    assert f"{n_before:,} n-grams before, {n_before:,} now" in lines[0]
    assert len(learned.versions()) == 2


def test_nothing_learned_is_nothing_to_export(tmp_path: Path, capsys) -> None:
    line = refusal(capsys, "export", str(tmp_path / "x.zip"), *PAIR)
    assert "nothing was learned of this pair yet" in line
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize("part", ["head.adapter", "ngrams.bin"])
def test_a_damaged_file_changes_nothing(
    part: str, learned: AdapterFiles, home: Path, tmp_path: Path, capsys
) -> None:
    file, bad = tmp_path / "learned.zip", tmp_path / "bad.zip"
    said(capsys, "export", str(file), *PAIR)
    with zipfile.ZipFile(file) as good, zipfile.ZipFile(bad, "w") as worse:
        for name in good.namelist():
            data = good.read(name)
            worse.writestr(name, data[:-40] + bytes(40) if name == part else data)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    line = refusal(capsys, "import", str(bad), *PAIR)
    assert f"{bad} cannot be used: {part} is no" in line
    assert before == {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_file_of_another_pair_is_refused(learned: AdapterFiles, tmp_path: Path, capsys) -> None:
    file = tmp_path / "learned.zip"
    said(capsys, "export", str(file), *PAIR)
    line = refusal(capsys, "import", str(file), "--pair", "demo")
    assert "it has n-grams, and this pair has one vocabulary" in line
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(tmp_path / "head.zip", "w") as head:
        head.writestr("head.adapter", whole.read("head.adapter"))
    line = refusal(capsys, "import", str(tmp_path / "head.zip"), "--pair", "demo")
    assert "head.adapter is of models" in line


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"no zip at all", "File is not a zip file"),
        (None, "No such file or directory"),
        ({}, "is empty"),
        ({"../../escaped": b"x"}, "has a part '../../escaped'"),
        ({"ngrams.bin": b"x" * 99}, "has a part 'ngrams.bin'"),  # packed tight: not one of ours
    ],
)
def test_what_export_did_not_write_is_refused(data, what: str, tmp_path: Path, capsys) -> None:
    file = tmp_path / "some.zip"
    if isinstance(data, bytes):
        file.write_bytes(data)
    elif data is not None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in data.items():
                packed.writestr(name, content)
    line = refusal(capsys, "import", str(file), *PAIR)
    assert what in line and "expected a file that `edgespec adapt export` wrote" in line


@pytest.mark.parametrize("words", [["export"], ["import"], ["reset", "--plot", "x.png"]])
def test_words_that_do_not_go_together_are_refused(words: list[str], capsys) -> None:
    assert "expected `edgespec adapt show [--plot PNG]`" in refusal(capsys, *words)


def test_prompts_kept_as_text_are_shown_taught_and_erased(capsys) -> None:
    kept = prompts_of(asked())
    for i in range(30):
        kept.add([{"role": "user", "content": f"Question {i}?"}])
    (line,) = said(capsys, "show")[1:]
    assert line.startswith(kept.path.stem) and "prompts kept as text, 1.79 kB" in line
    taught = adapt_train.asked(Namespace(prompts=None), asked(), 20)
    assert taught == (kept.messages(), "30 that were kept of this pair's")
    _, whose = adapt_train.asked(Namespace(prompts=None), asked(), 31)  # too few
    assert whose.endswith("built-in ones; give your own with --prompts")
    assert f"deleted {kept.path} (prompts kept as text)" in said(capsys, "reset", *PAIR)
    kept.add([{"role": "user", "content": "again"}])
    said(capsys, "reset", "--all")
    assert not kept.path.exists()


def test_what_a_pair_made_on_first_use_has_learned_is_not_its_sources(
    home: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    of = [laid(Config(), layers(Namespace(pair=name), {})) for name in ("demo", "padded-f16")]
    topics_of(of[0]).heads[0].save(fresh(np.array([1]), 64, rank=8), DAYS)
    prompts_of(of[0]).add([{"role": "user", "content": "Mine."}])
    (line,) = said(capsys, "reset", "--pair", "padded-f16")[1:]
    assert line.startswith("padded-f16 is not made of demo/target.gguf here, so no head and no ")
    assert line.endswith("`edgespec adapt reset --all`")
    assert adapt_train.asked(Namespace(prompts=None), of[1], 1)[1].startswith("the ")
    line = refusal(capsys, "show", "--pair", "padded-f16", "--plot", str(tmp_path / "a.png"))
    assert "`edgespec models pull padded-f16` makes it" in line
    file = home / f"padded-{pairs.find('demo').target.sha256[:12]}-r1-f16.gguf"
    file.write_bytes(b"wider")
    assert topics_of(of[1]).map == TopicFiles(home, *map(fingerprint, (DRAFTER, file))).map
    assert prompts_of(of[1]).messages() == []
    said(capsys, "reset", "--pair", "padded-f16")
    demo = pairs.find("demo")
    graph = replace(demo, target=replace(demo.target, onnx="int4", onnx_size=1, pair="graph"))
    monkeypatch.setattr(pairs, "find", {"graph": graph, "demo": demo}.get)
    assert said(capsys, "reset", "--pair", "graph")[1].startswith("graph is not made of demo/targ")
    assert topics_of(of[0]).heads[0].load() and len(prompts_of(of[0]).messages()) == 1


def test_what_killed_processes_left_is_named_and_erased(learned: AdapterFiles, home, capsys):
    topics, kept, rows = topics_of(asked()), prompts_of(asked()), rows_of(asked())
    kept.add([{"role": "user", "content": "Mine."}])
    places = (learned.versions()[0], topics.map, kept.path, rows)
    for words in (PAIR, ["--all"]):
        left = [file.with_name(f"{file.name}.1a2b3c4d.part") for file in places]
        left += [file.with_name(file.name.partition(".")[0] + ".topic1.damaged") for file in places]
        for file in left:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"?")
        n = len(said(capsys, "show"))  # a part may be in the making
        for file in left:
            os.utime(file, (0, 0))
        assert len(said(capsys, "show")) == n + len(places)
        said(capsys, "reset", *words)
        assert [file for file in home.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("kind", ["prompts", "rows", "topics"])
def test_who_keeps_sweeps_what_killed_processes_left(kind: str, tmp_path: Path) -> None:
    topics, kept = TopicFiles(tmp_path, "a", "b"), KeptPrompts(tmp_path, "a", "b")
    rows = Missed(np.arange(2), 9, budget=1, path=tmp_path / "rows" / "a-b.rows")
    path = {"prompts": kept.path, "rows": rows.path, "topics": topics.map}[kind]
    path.parent.mkdir(parents=True)
    old, young = (path.with_name(f"{path.name}.{n}.part") for n in (1, 2))
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (0, 0))
    kept.add([{"role": "user", "content": "Mine."}])
    rows.said(7)
    rows.save()
    topics.save_map(new_map())
    assert (path.exists(), young.exists(), old.exists()) == (True, True, False)


def test_a_map_moves_though_the_first_topic_has_no_head(
    learned: AdapterFiles, tmp_path: Path, monkeypatch, capsys
) -> None:
    topics, file = topics_of(asked()), tmp_path / "learned.zip"
    topics.heads[1].save(fresh(np.array([1]), 64, rank=8), DAYS)
    learned.remove()
    what = topics.load_map()
    what.familiar.counts[:] = [1, 2, 3, 0]
    topics.save_map(what)
    assert "(ngrams.bin, head1.adapter, topics)" in said(capsys, "export", str(file), *PAIR)[0]
    topics.map.unlink()
    said(capsys, "import", str(file), *PAIR)
    assert topics.load_map().familiar.counts.tolist() == [1, 2, 3, 0]
