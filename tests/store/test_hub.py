"""hub: the real huggingface_hub against a hub of our own on the loopback."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_server import COMMIT, TOKEN, Hub, running, use

from edgespec.errors import BackendError, EdgeSpecError, ModelFileError, UsageError
from edgespec.store import hub
from edgespec.store.hub import cache, download

constants = pytest.importorskip("huggingface_hub.constants")
file_download = pytest.importorskip("huggingface_hub.file_download")

Space = namedtuple("Space", "total used free")
REPO = "maker/tiny-GGUF"
BIG = bytes(range(256)) * 400  # 102,400 bytes
OTHER = BIG[::-1]
PARTS = {f"big-q2_k-0000{i + 1}-of-00003.gguf": bytes([i]) * 700 for i in range(3)}
FILES = {
    "tiny-Q4_K_M.gguf": BIG,
    "tiny-Q8_0.gguf": OTHER,
    "mmproj-tiny-Q4_K_M.gguf": b"p",
    "tiny.imatrix.gguf": b"i",
    "README.md": b"read me",
    **PARTS,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one repository, a cache of its own, and no token."""
    with running(Hub({REPO: dict(FILES)})) as started:
        use(started, tmp_path / "home", monkeypatch)
        yield started


def seen_progress() -> tuple[list[tuple[str, float]], hub.Progress]:
    told: list[tuple[str, float]] = []
    return told, lambda what, share: told.append((what, share))


def test_a_model_is_fetched_checked_and_linked_in_the_shared_cache(
    server: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    told, progress = seen_progress()
    path = hub.fetch(f"{REPO}:Q4_K_M", progress=progress)
    assert path.read_bytes() == BIG
    base = cache.repo_folder(REPO)
    assert path == base / "snapshots" / COMMIT / "tiny-Q4_K_M.gguf"
    assert path.resolve() == base / "blobs" / hashlib.sha256(BIG).hexdigest()
    assert (base / "refs" / "main").read_text() == COMMIT
    for verb in ("downloading", "checking"):
        shares = [share for what, share in told if what.startswith(verb)]
        assert shares == sorted(shares)
        assert len(shares) > 10
        assert all(share < 1 for share in shares)
    assert told[-1] == ("downloaded tiny-Q4_K_M.gguf, 102 kB", 1.0)
    assert ("downloading tiny-Q4_K_M.gguf: 8.19 kB of 102 kB", 0.08) in told
    assert capfd.readouterr() == ("", "")  # the library draws no bars of its own


def test_what_is_in_the_cache_is_taken_without_asking(server: Hub) -> None:
    path = hub.fetch(f"{REPO}:Q4_K_M")
    n_asked = len(server.asked)
    assert hub.fetch(f"{REPO}:q4_k_m") == path
    assert hub.fetch(f"{REPO}:tiny-Q4_K_M.gguf") == path
    assert hub.fetch(REPO) == path  # what the hub would choose, too
    assert len(server.asked) == n_asked
    server.commit, server.repos[REPO]["tiny-Q4_K_M.gguf"] = "f" * 40, OTHER
    assert hub.fetch(f"{REPO}:Q4_K_M", update=True).read_bytes() == OTHER
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == OTHER


def test_no_choice_asks_the_hub_unless_the_best_is_here(server: Hub) -> None:
    hub.fetch(f"{REPO}:Q8_0")
    assert hub.fetch(REPO).name == "tiny-Q4_K_M.gguf"


@pytest.mark.parametrize("breaks", [[30_000], [30_000, 20_000, 9_000]])
def test_a_broken_connection_is_taken_up_where_it_broke(
    server: Hub, breaks: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    server.breaks = list(breaks)
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
    starts = [one.first_byte for one in server.of("store")]
    assert starts[0] == 0
    assert starts[1] == 28_672  # whole pieces of 4,096
    assert starts == sorted(starts)
    assert [record.getMessage() for record in caplog.records] == [
        "the connection broke while tiny-Q4_K_M.gguf was fetched: trying again"
    ] * len(breaks)


def test_the_next_attempt_goes_on_after_one_that_failed(server: Hub) -> None:
    server.breaks = [50_000] + [0] * 20
    line = r"the download of tiny-Q4_K_M.gguf stopped at 49.2 kB of 102 kB \(.*same again to go on"
    with pytest.raises(BackendError, match=line):
        hub.fetch(f"{REPO}:Q4_K_M")
    assert cache.unfinished() == {REPO: 49_152}
    server.breaks, server.asked = [], []
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
    assert [one.first_byte for one in server.of("store")] == [49_152]
    assert cache.unfinished() == {}


def test_an_attempt_that_brings_nothing_is_made_once_more(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n_idle = file_download.http_get, 1

    def http_get(*given: object, **named: object) -> None:
        nonlocal n_idle
        n_idle -= 1
        if n_idle >= 0:
            raise OSError("the line is dead")
        real(*given, **named)

    monkeypatch.setattr(file_download, "http_get", http_get)
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
    n_idle = 2
    with pytest.raises(BackendError, match=r"stopped at 0 bytes of 102 kB \(the line is dead\)"):
        hub.fetch(f"{REPO}:Q8_0")
    assert n_idle == 0


def test_a_file_larger_than_the_library_expects_is_fetched_and_checked(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 50_000)
    server.breaks = [30_000]
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG


def test_a_hub_that_ignores_ranges_costs_time_only(server: Hub) -> None:
    server.breaks, server.ranges = [50_000], False
    for _ in range(3):  # older libraries append what they should have replaced, and are caught
        try:
            assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
            return
        except EdgeSpecError:
            continue
    pytest.fail("never fetched")


def test_a_partial_file_longer_than_the_model_is_started_anew(server: Hub) -> None:
    blobs = cache.repo_folder(REPO) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(BIG).hexdigest()}.incomplete").write_bytes(BIG + b"x")
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
    assert [one.first_byte for one in server.of("store")] == [0]


def test_a_whole_partial_file_is_only_checked(server: Hub) -> None:
    blobs = cache.repo_folder(REPO) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(BIG).hexdigest()}.incomplete").write_bytes(BIG)
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
    assert server.of("store") == []


def test_a_file_that_is_not_what_the_hub_says_is_refused_and_removed(server: Hub) -> None:
    server.claimed["tiny-Q4_K_M.gguf"] = OTHER
    with pytest.raises(ModelFileError, match="arrived with sha256 .* expected .* it was removed"):
        hub.fetch(f"{REPO}:Q4_K_M")
    assert list((cache.repo_folder(REPO) / "blobs").iterdir()) == []
    assert cache.everything() == []


def test_a_file_that_is_not_what_the_manifest_says_is_refused_unread(server: Hub) -> None:
    with pytest.raises(
        ModelFileError, match="has sha256 .* expected 000000000000.*it was replaced"
    ):
        hub.fetch(f"{REPO}:Q4_K_M", sha256="0" * 64)
    assert server.of("store") == []
    right = hashlib.sha256(BIG).hexdigest()
    path = hub.fetch(f"{REPO}:Q4_K_M", sha256=right)
    assert hub.fetch(f"{REPO}:Q4_K_M", sha256=right, offline=True) == path
    with pytest.raises(UsageError, match="is not in the cache"):
        hub.fetch(f"{REPO}:Q4_K_M", sha256="0" * 64, offline=True)


def test_a_damaged_file_in_the_cache_is_fetched_anew(server: Hub) -> None:
    path = hub.fetch(f"{REPO}:Q4_K_M")
    path.resolve().write_bytes(BIG[:100])
    assert hub.fetch(f"{REPO}:Q4_K_M", update=True).read_bytes() == BIG
    path.unlink()
    path.write_bytes(BIG[:100])  # as where links are not possible
    assert hub.fetch(f"{REPO}:Q4_K_M", update=True).read_bytes() == BIG


def test_a_file_without_a_sum_is_fetched_too(server: Hub) -> None:
    server.small.add("tiny-Q8_0.gguf")
    assert hub.fetch(f"{REPO}:Q8_0").read_bytes() == OTHER


def test_all_parts_are_fetched_and_the_first_named(server: Hub) -> None:
    told, progress = seen_progress()
    path = hub.fetch(f"{REPO}:Q2_K", progress=progress)
    assert path.name == "big-q2_k-00001-of-00003.gguf"
    assert [part.read_bytes() for part in sorted(path.parent.glob("big*"))] == list(PARTS.values())
    assert told[-1] == ("downloaded big-q2_k-00001-of-00003.gguf, 2.10 kB", 1.0)
    shares = [share for what, share in told if what.startswith("downloading")]
    assert shares == sorted(shares)
    path.with_name("big-q2_k-00002-of-00003.gguf").unlink()
    with pytest.raises(UsageError, match="is not in the cache"):
        hub.fetch(f"{REPO}:Q2_K", offline=True)
    assert hub.fetch(f"{REPO}:big-q2_k-00003-of-00003.gguf") == path


@pytest.mark.parametrize("why", ["--offline", "HF_HUB_OFFLINE"])
def test_offline_takes_what_is_here_and_says_what_is_not(
    server: Hub, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hub.fetch(f"{REPO}:Q8_0")
    server.asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", why == "HF_HUB_OFFLINE")
    offline = why == "--offline"
    assert hub.fetch(f"{REPO}:Q8_0", offline=offline) == path
    assert hub.fetch(REPO, offline=offline) == path
    line = f"{REPO}:Q4_K_M is not in the cache .*; of it there is Q8_0, and {why} forbids .*pull"
    with pytest.raises(UsageError, match=line):
        hub.fetch(f"{REPO}:Q4_K_M", offline=offline)
    with pytest.raises(UsageError, match=f"maker/none is not in the cache .*hub, and {why}"):
        hub.fetch("maker/none", offline=offline)
    assert server.asked == []


@pytest.mark.parametrize(
    ("token", "private", "line"),
    [
        ("", {REPO}, rf"shows no {REPO} to strangers \(401\): check the name.*set HF_TOKEN"),
        ("hf_bad", set(), rf"does not accept your token for {REPO} \(401\): check HF_TOKEN"),
        (TOKEN, {REPO}, ""),
    ],
)
def test_tokens(
    server: Hub, token: str, private: set[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.private = private
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    if line:
        with pytest.raises(UsageError, match=line):
            hub.fetch(f"{REPO}:Q4_K_M")
        return
    assert hub.fetch(f"{REPO}:Q4_K_M").read_bytes() == BIG
    assert {one.token for one in server.asked if one.at == "hub"} == {TOKEN}
    assert {one.token for one in server.asked if one.at == "store"} == {""}  # not the store's


@pytest.mark.parametrize(("token", "status"), [("", 401), (TOKEN, 403)])
def test_a_gated_repository_says_where_to_ask(
    server: Hub, token: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gated = {REPO}
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match=rf"is gated \({status}\).*ask at {server.url}/{REPO}"):
        hub.fetch(f"{REPO}:Q4_K_M")


def test_a_repository_that_is_not_there(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"shows no maker/none to strangers \(401\)"):
        hub.fetch("maker/none")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UsageError, match=r"there is no maker/none at http://.* \(404\)"):
        hub.fetch("maker/none")


def test_a_file_that_is_not_there(server: Hub) -> None:
    with pytest.raises(UsageError, match="has no 'Q3_K_M': expected Q2_K, Q4_K_M, Q8_0, as maker"):
        hub.fetch(f"{REPO}:Q3_K_M")
    with pytest.raises(UsageError, match="has no 'none.gguf': expected Q2_K, Q4_K_M, Q8_0"):
        hub.fetch(f"{REPO}:none.gguf")
    server.repos[REPO] = {"model.safetensors": b"s", "mmproj-x.gguf": b"p"}
    with pytest.raises(UsageError, match="has no whole GGUF model"):
        hub.fetch(REPO)


@pytest.mark.parametrize(("status", "line"), [(500, "again"), (429, "HF_TOKEN"), (403, "token")])
def test_a_hub_out_of_order(server: Hub, status: int, line: str) -> None:
    server.status = status
    with pytest.raises(EdgeSpecError, match=rf"{status}.*{line}"):
        hub.fetch(f"{REPO}:Q4_K_M")


def test_without_an_answer_the_cache_serves(server: Hub, caplog: pytest.LogCaptureFixture) -> None:
    path = hub.fetch(f"{REPO}:Q8_0")
    server.status = 503
    with caplog.at_level(logging.WARNING, "edgespec"):
        assert hub.fetch(REPO) == path
    assert "failed with 503" in caplog.text
    assert "taking tiny-Q8_0.gguf from the cache" in caplog.text
    with pytest.raises(BackendError, match="failed with 503 for maker/tiny-GGUF: try again later"):
        hub.fetch(REPO, update=True)


def test_no_network_is_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BackendError, match=r"127.0.0.1:1 cannot be reached \(.*check the network"):
        hub.fetch(REPO)


@pytest.mark.parametrize(
    "page", [b"<html>Please sign in</html>", b"{}", b'{"id": 3, "siblings": 4}']
)
def test_an_answer_that_is_no_hubs_is_one_line(server: Hub, page: bytes) -> None:
    server.page = page
    with pytest.raises(BackendError, match="did not answer as a hub does.*HF_ENDPOINT"):
        hub.fetch(REPO)


def test_too_little_room_is_said_before_anything_is_fetched(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Space(0, 0, 50_000))
    with pytest.raises(BackendError, match="needs 102 kB more, 50.0 kB are free in .*HF_HOME"):
        hub.fetch(f"{REPO}:Q4_K_M")
    assert server.of("store") == []


def test_a_cache_that_cannot_be_written_is_one_line(server: Hub) -> None:
    cache.folder().parent.mkdir()
    cache.folder().write_text("not a folder")
    with pytest.raises(
        BackendError, match=r"cannot be written \(.*: expected room and rights there"
    ):
        hub.fetch(f"{REPO}:Q4_K_M")


def test_a_disk_that_fills_up_keeps_what_fits(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    real = download._PartialFile.write

    def write(file: download._PartialFile, piece: bytes) -> int:
        if file.tell() > 50_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, piece)

    monkeypatch.setattr(download._PartialFile, "write", write)
    with pytest.raises(BackendError, match=r"cannot be written \(No space left on device\)"):
        hub.fetch(f"{REPO}:Q4_K_M")
    assert cache.unfinished() == {REPO: 53_248}
    assert len(server.of("store")) == 1  # it is not tried again


def test_the_librarys_lock_is_waited_for(server: Hub) -> None:
    """Another program fetches the same file: it is taken from there, and not fetched twice."""
    utils = pytest.importorskip("huggingface_hub.utils")
    sha256, base = hashlib.sha256(BIG).hexdigest(), cache.repo_folder(REPO)
    lock = cache.folder() / ".locks" / base.name / f"{sha256}.lock"
    lock.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        with utils.WeakFileLock(str(lock)):
            waiting = pool.submit(hub.fetch, f"{REPO}:Q4_K_M")
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
            (base / "blobs" / sha256).write_bytes(BIG)
        assert waiting.result(10).read_bytes() == BIG
    assert server.of("store") == []


def test_the_librarys_settings_are_as_they_were(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 12345)
    seen: set[bool] = set()

    def progress(what: str, share: float) -> None:
        seen.add(utils.are_progress_bars_disabled(download.BARS))

    hub.fetch(f"{REPO}:Q4_K_M", progress=progress)
    assert seen == {True, False}
    server.status = 500
    with pytest.raises(BackendError):
        hub.fetch(f"{REPO}:Q8_0")
    assert constants.DOWNLOAD_CHUNK_SIZE == 12345
    assert not utils.are_progress_bars_disabled(download.BARS)
    assert logging.getLogger("huggingface_hub.file_download").filters == []


@pytest.mark.parametrize(
    ("name", "commit"), [("../../../x-Q4_K_M.gguf", COMMIT), ("x-Q4_K_M.gguf", "../../../x")]
)
def test_names_that_lead_out_of_the_cache_are_not_followed(
    server: Hub, name: str, commit: str
) -> None:
    server.repos[REPO], server.commit = {name: BIG}, commit
    with pytest.raises(EdgeSpecError, match="has no whole GGUF model|did not answer as a hub does"):
        hub.fetch(REPO)
    assert not cache.folder().exists()
