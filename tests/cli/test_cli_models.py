"""`edgespec models`, and models of the hub in a session: against a hub of our own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gguf_splitter import split
from hub_server import TOKEN, Hub, running, use
from terminal_driver import heed_interrupts

import edgespec
from edgespec.cli import main
from edgespec.store import hub, pairs
from edgespec.store.hub import cache, download

pytest.importorskip("huggingface_hub")

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
REPO, SMALL = "maker/tiny-GGUF", "maker/small-GGUF"
BIG = bytes(range(256)) * 400
PAIR = """about = "A tiny one; a small one drafts."
licence = "none"
vocabulary = "none"
tried = false
[target]
repo = "maker/tiny-GGUF"
file = "tiny-Q4_K_M.gguf"
size = 102400
[drafter]
repo = "maker/small-GGUF"
file = "small.gguf"
size = 2560
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, an empty cache, and two pairs of manifests beside the bundled ones' place."""
    repos = {
        REPO: {"tiny-Q4_K_M.gguf": BIG, "tiny-Q8_0.gguf": BIG[::-1], "README.md": b"r"},
        SMALL: {"small.gguf": BIG[:2560]},
    }
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    for name in ("tiny", "tiny-too"):
        (manifests / f"{name}.toml").write_text(PAIR.replace("-Q4_K_M", "-Q8_0", name != "tiny"))
    monkeypatch.setattr(pairs, "folder", lambda: manifests)
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "edgespec"))
    with running(Hub(repos)) as started:
        use(started, tmp_path / "home", monkeypatch)
        yield started


def said(words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command prints, or in which line it fails."""
    assert main(["models", *words.split()]) == code
    seen = capsys.readouterr()
    return seen.err if code else seen.out


def test_a_model_from_pull_to_rm(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    path = said(f"pull {REPO}:Q8_0", capsys).strip()
    assert Path(path).read_bytes() == BIG[::-1]
    assert f"{REPO}:Q8_0  102 kB" in said("list", capsys)
    shown = said(f"show {REPO}", capsys).splitlines()
    assert shown == ["tiny-Q4_K_M.gguf    102 kB", "tiny-Q8_0.gguf      102 kB  here"]
    server.repos[REPO]["tiny-Q8_0.gguf"], server.commit = b"later", "f" * 40
    newer = said(f"pull {REPO}:Q8_0", capsys).strip()
    assert Path(newer).read_bytes() == b"later"
    assert said(f"rm {REPO}:Q8_0", capsys) == "freed 102 kB\n"
    assert not Path(path).exists()
    assert list(cache.folder().glob("models--*")) == []
    line = f"nothing of {REPO} is here that was fetched or made: see `edgespec models list`"
    assert line in said(f"rm {REPO}", capsys, 2)


def test_a_pair_from_pull_to_rm(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    about = "A tiny one; a small one drafts."
    rows = [f"tiny      {about} 105 kB to fetch; not tried by us."]
    assert said("list", capsys).splitlines()[:1] == rows
    assert "to fetch: `edgespec models pull tiny`" in said("show tiny", capsys)
    assert "not tried by us" in said("show tiny", capsys)
    assert len(said("pull tiny", capsys).splitlines()) == 2
    here = f"tiny      {about} 105 kB, here in the hub's cache; not tried by us."
    assert here in said("list", capsys).replace("\n" + 10 * " ", " ")
    assert f"tiny-too  {about} 105 kB, 2.56 kB of it here; not" in said("list", capsys)
    target = said("show tiny", capsys)
    assert f"{REPO}:tiny-Q4_K_M.gguf: 102 kB, in the hub's cache at {cache.folder()}" in target
    said("pull tiny-too", capsys)
    n_asked = len(server.asked)
    said("pull tiny-too", capsys)
    assert len(server.asked) == n_asked  # its files are named exactly, and here
    kept = "freed 102 kB\nkept small.gguf (tiny-too), which uses it\n"
    assert said("rm tiny", capsys) == kept
    assert said("rm tiny-too", capsys) == "freed 105 kB\n"
    assert cache.everything() == []


def test_rows_are_folded_below_the_column_of_names(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    first, second, third = said("ls", capsys).splitlines()[:3]
    assert first == "tiny      A tiny one; a small one drafts. 105 kB"
    assert second == "          to fetch; not tried by us."
    assert third.startswith("tiny-too  A tiny one")


def test_other_words_for_the_same(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    path = said(f"download -hf {REPO}:Q8_0", capsys).strip()
    assert Path(path).is_file()
    assert said(f"describe {REPO}", capsys) == said(f"show {REPO}", capsys)
    assert said(f"remove {REPO}", capsys) == "freed 102 kB\n"
    assert "expected `edgespec models list`" in said(f"pull x -hf {REPO}", capsys, 2)


def test_the_hubs_names_do_not_steer_the_terminal(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.repos[REPO] = {"a\x1b[2J.gguf": b"model"}
    assert said(f"show {REPO}", capsys) == "a\u241b[2J.gguf   5 bytes\n"


def test_records_for_scripts(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = json.loads(said(f"pull {REPO} --json -", capsys))["paths"]
    data = json.loads(said("list --json -", capsys))
    assert data["models"] == [{"name": f"{REPO}:Q4_K_M", "path": path, "size_bytes": 102400}]
    (tiny, _) = data["pairs"]
    assert (tiny["name"], tiny["tried"]) == ("tiny", False)
    assert (tiny["size_bytes"], tiny["here_bytes"]) == (104960, 102400)
    models = json.loads(said(f"show {REPO} --json -", capsys))["models"]
    assert [row["quant"] for row in models] == ["Q4_K_M", "Q8_0"]
    assert [row["path"] for row in models] == [path, ""]
    assert json.loads(said(f"rm {REPO} --json -", capsys))["freed_bytes"] >= 102400


def test_rm_leaves_other_programs_files(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(said(f"pull {REPO}", capsys).strip())
    other = path.with_name("config.json")
    other.write_text("{}")
    (cache.repo_folder(REPO) / "blobs" / "0.incomplete").write_bytes(b"part")
    assert said(f"rm {REPO}", capsys) == "freed 102 kB\n"
    assert other.read_text() == "{}"
    assert not path.exists()
    assert [one for one in (cache.repo_folder(REPO) / "blobs").iterdir()] == []


def test_two_names_of_one_content_share_it(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    server.repos[REPO]["same-Q6_K.gguf"] = BIG
    first, second = (Path(said(f"pull {REPO}:{q}", capsys).strip()) for q in ("Q4_K_M", "Q6_K"))
    assert len(server.of("store")) == 1
    assert said(f"rm {REPO}:Q6_K", capsys, 2).startswith("edgespec: nothing of")
    assert not second.exists()
    assert first.read_bytes() == BIG


def test_an_unfinished_download_is_listed_and_removed(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks = [50_000] + [0] * 20
    assert "stopped at 49.2 kB of 102 kB" in said(f"pull {REPO}", capsys, 1)
    assert f"{REPO}  49.2 kB of an unfinished download: pull goes on" in said("list", capsys)
    assert said(f"rm {REPO}", capsys) == "freed 49.2 kB\n"
    assert not cache.repo_folder(REPO).exists()


def test_finished_parts_of_an_unfinished_download_are_listed_and_removed(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (f"big-Q8_0-0000{i}-of-00002.gguf" for i in (1, 2))
    server.repos[REPO] = {first: BIG, second: BIG[::-1]}
    server.breaks = [len(BIG), 50_000] + [0] * 20
    assert "stopped at 49.2 kB of 102 kB" in said(f"pull {REPO}", capsys, 1)
    assert f"{REPO}  152 kB of an unfinished download: pull goes on" in said("list", capsys)
    assert said(f"rm {REPO}", capsys) == "freed 152 kB\n"


def test_rm_of_one_model_leaves_the_rest_of_an_unfinished_download(server: Hub) -> None:
    blobs = cache.repo_folder(REPO) / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / "0.incomplete"
    partial.write_bytes(b"part")
    assert hub.remove(f"{REPO}:Q4_K_M") == 0
    assert partial.read_bytes() == b"part"
    assert hub.remove(REPO) == 4
    assert not blobs.parent.exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("pull", "expected `edgespec models list`, or `edgespec models show NAME`"),
        ("list tiny", "expected `edgespec models list`"),
        ("pull tinny", "no pair is called 'tinny': did you mean tiny"),
        ("rm a/b/c", "'a/b/c' is no repository: expected USER/REPO or USER/REPO:QUANT, such as"),
        (
            "pull tiny --offline",
            "cache .* --offline forbids to fetch it: .* models pull tiny` where",
        ),
        (f"show {REPO} --offline", f"{REPO} has no GGUF model in the cache"),
        ("show maker/none", "shows no maker/none to strangers"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    server: Hub, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = said(words, capsys, 2)
    assert re.search(line, seen), seen
    assert seen.count("\n") == 1


def test_bundled_models_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert "demo comes with EdgeSpec" in said("rm demo", capsys, 2)


def test_offline_from_the_environment(
    server: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGESPEC_OFFLINE", "true")
    assert "forbids to fetch it" in said(f"pull {REPO}", capsys, 2)
    assert server.asked == []


def environment(server: Hub, home: Path) -> dict[str, str]:
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "EDGESPEC_HOME": str(home / "own"),
           "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", "HF_TOKEN": TOKEN}  # fmt: skip
    return {name: value for name, value in os.environ.items() if name[:3] != "HF_"} | own


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="interrupts a process by a signal")
def test_ctrl_c_leaves_a_download_to_go_on_with(tmp_path: Path) -> None:
    """A process of its own, by HF_ENDPOINT and HF_HOME as a user sets them."""
    data = bytes(3 << 20)
    pull = [sys.executable, "-m", "edgespec", "models", "pull", REPO]
    with running(Hub({REPO: {"tiny-Q4_K_M.gguf": data}}, stall_at=(2 << 20) + 99)) as server:
        env = environment(server, tmp_path)
        with subprocess.Popen(
            pull, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
        ) as process:
            assert server.stalled.wait(20)
            (partial,) = tmp_path.glob("hub/*/blobs/*.incomplete")
            wait_for(lambda: partial.stat().st_size >= 2 << 20)
            process.send_signal(signal.SIGINT)
            _, lines = process.communicate(timeout=20)
        assert process.returncode == 130
        assert lines == ""
        assert partial.stat().st_size == 2 << 20
        server.stall_at, server.asked = 0, []
        done = subprocess.run(pull, env=env, capture_output=True, text=True, check=True)
        path = Path(done.stdout.strip())
        assert path.is_relative_to(tmp_path / "hub")
        assert path.read_bytes() == data
        assert [one.first_byte for one in server.of("store")] == [2 << 20]
        assert {one.token for one in server.of("hub")} == {TOKEN}


def wait_for(reached: Callable[[], bool]) -> None:
    """Until it is reached, at most 10 s."""
    until = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_a_model_in_three_parts_is_fetched_and_opened(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PIECE", 1 << 20)
    whole = DEMO / "drafter.gguf"
    parts = split(whole, 3, tmp_path, "split-Q8_0")
    server.repos[REPO] = {part.name: part.read_bytes() for part in parts}
    with edgespec.load(whole, speculative="off", threads=1, max_tokens=12) as session:
        expected = [piece.token for piece in session.generate("Once upon a")]
    with edgespec.load(hf_repo=REPO, speculative="off", threads=1, max_tokens=12) as session:
        assert [piece.token for piece in session.generate("Once upon a")] == expected
    assert len(expected) > 8
    assert hub.fetch(REPO, offline=True).name == "split-Q8_0-00001-of-00003.gguf"
