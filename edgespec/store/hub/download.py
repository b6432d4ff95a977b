"""Fetches files of the hub into the shared cache: resumed, checked, with progress by bytes.

The library's own download forgets what it had when it is interrupted, and fetches without a word
about progress for files in its newer store. So the bytes are streamed here, into a partial file
that the next attempt goes on with; the library gives addresses, headers, the connection, the lock,
and the links in its cache.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from edgespec.errors import BackendError, ModelFileError
from edgespec.files import in_words
from edgespec.store.hub import cache
from edgespec.store.hub.client import (
    AGENT,
    Listing,
    NoAnswerError,
    RemoteFile,
    explained,
    failures,
    is_local,
    short,
    status_of,
    utils,
)
from edgespec.types import Progress

log = logging.getLogger("edgespec")
BARS = "huggingface_hub.http_get"  # the library's own progress bars of this kind
MOST_IDLE, PAUSE_S = 2, 1.0  # the library, too, tries more than once
_one_at_a_time = Lock()  # in this process: the library's settings are for all threads
PIECE = 1 << 20  # bytes; of the library's 10 MB a broken connection would lose as many


def download(listed: Listing, names: Sequence[str], sha256: str, progress: Progress | None) -> Path:
    """The path of the first of `names`, all of them fetched, checked and in the cache.

    sha256: what the first must have, if not "". Raises: UsageError, ModelFileError, BackendError.
    """
    files = [listed.files[name] for name in names]
    first = files[0]
    if sha256 and first.sha256 and first.sha256 != sha256:
        raise ModelFileError(
            f"{first.name} of {listed.repo} has sha256 {first.sha256[:12]}..., expected "
            f"{sha256[:12]}...: it was replaced; take it as it is with -hf, or update EdgeSpec"
        )
    _check_space(listed, files)
    total = sum(file.n_bytes for file in files)
    done, paths = 0, []
    for file in files:
        paths.append(_file(listed, file, _Report(progress, file, done, total)))
        done += file.n_bytes
    if progress is not None:
        progress(f"downloaded {first.name.rpartition('/')[2]}, {in_words(total)}", 1.0)
    return paths[0]


@dataclass(frozen=True)
class _Report:
    """Tells a Progress of one file, with `before` bytes done of the `total`."""

    progress: Progress | None
    file: RemoteFile
    before: int
    total: int

    def fetched(self, n_bytes: int) -> None:
        self._tell("downloading", self.before + n_bytes, self.total)

    def checked(self, n_bytes: int) -> None:
        self._tell("checking", n_bytes, self.file.n_bytes)

    def _tell(self, verb: str, n_bytes: int, of: int) -> None:
        if self.progress is not None:
            name = self.file.name.rpartition("/")[2]
            text = f"{verb} {name}: {in_words(n_bytes)} of {in_words(of)}"
            self.progress(text, min(n_bytes / max(of, 1), 0.999))  # 1 ends it


def _check_space(listed: Listing, files: Sequence[RemoteFile]) -> None:
    base = cache.repo_folder(listed.repo)
    missing = [file for file in files if not _is_here(_path(listed, file), file)]
    missing = [file for file in missing if not _is_here(base / "blobs" / file.sha256, file)]
    needed = sum(file.n_bytes - _size(_partial(base, file)) for file in missing)
    existing = next((path for path in (base, *base.parents) if path.is_dir()), Path())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise BackendError(
            f"{listed.repo} needs {in_words(needed)} more, {in_words(free)} are free in "
            f"{cache.folder()}: free some (`edgespec models rm`), or set HF_HOME to a folder of "
            "another disk"
        )


def _path(listed: Listing, file: RemoteFile) -> Path:
    """Where a file of this commit lies, or will."""
    return cache.repo_folder(listed.repo) / "snapshots" / listed.commit / file.name


def _partial(base: Path, file: RemoteFile) -> Path:
    return base / "blobs" / f"{file.sha256}{cache.PARTIAL}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_here(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and _size(path) == file.n_bytes


def _file(listed: Listing, file: RemoteFile, report: _Report) -> Path:
    """One file in the cache, at its name of this commit."""
    from huggingface_hub import hf_hub_download

    path = _path(listed, file)
    if _is_here(path, file):
        return path
    report.fetched(0)
    with explained(listed.repo):
        if file.sha256:
            _blob(listed, file, report)
        path.unlink(missing_ok=True)  # a damaged one
        # Finds the blob and makes the links; only a file without a known sum is fetched by it.
        hf_hub_download(listed.repo, file.name, user_agent=AGENT)
    if not _is_here(path, file):  # main was a later commit by then
        raise ModelFileError(
            f"{file.name} of {listed.repo} changed while it was fetched: expected "
            f"{file.n_bytes} bytes of commit {listed.commit[:12]}: type the same again"
        )
    return path


def _blob(listed: Listing, file: RemoteFile, report: _Report) -> None:
    """The file's contents in the cache, known by their sum."""
    base = cache.repo_folder(listed.repo)
    blob, partial = base / "blobs" / file.sha256, _partial(base, file)
    lock = cache.folder() / ".locks" / base.name / f"{file.sha256}.lock"
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with utils().WeakFileLock(str(lock)):  # the library's own, so that it and we take turns
        if _is_here(blob, file):
            return
        _stream(listed, file, partial, report.fetched)
        found = _sum(partial, report.checked)
        if found != file.sha256:
            partial.unlink()
            raise ModelFileError(
                f"{file.name} of {listed.repo} arrived with sha256 {found[:12]}..., expected "
                f"{file.sha256[:12]}...: it was removed; type the same again"
            )
        partial.replace(blob)


def _sum(path: Path, at: Callable[[int], None]) -> str:
    """The file's SHA-256, in hexadecimal; at: told the bytes read so far."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            at(file.tell())
    return digest.hexdigest()


def _stream(listed: Listing, file: RemoteFile, to: Path, at: Callable[[int], None]) -> None:
    """Fetch the bytes that `to` does not have yet. Raises: NoAnswerError when it breaks off."""
    from huggingface_hub.file_download import hf_hub_url, http_get

    if _size(to) > file.n_bytes:
        to.unlink()
    # From the hub and not from where it redirects to: that address is soon out of date.
    url = hf_hub_url(listed.repo, file.name, revision=listed.commit)
    headers = {**utils().build_hf_headers(user_agent=AGENT), "Accept-Encoding": "identity"}
    # Beyond that the library refuses to expect a size; length and sum are looked at here anyway.
    most: int = import_module("huggingface_hub.constants").MAX_HTTP_DOWNLOAD_SIZE
    size = file.n_bytes if file.n_bytes <= most else None
    n_idle, said = 0, set[int]()  # attempts that brought nothing; where it broke

    def broke() -> None:
        if out.tell() not in said:
            log.warning("the connection broke while %s was fetched: trying again", file.name)
        said.add(out.tell())

    with _PartialFile(to, at) as out, _in_our_way(broke):
        while (have := out.tell()) < file.n_bytes:
            try:
                http_get(url, out, resume_size=have, headers=headers, expected_size=size)
            except failures() as error:
                if status_of(error) or is_local(error):
                    raise
                n_idle = 0 if out.tell() > have else n_idle + 1
                if n_idle == MOST_IDLE:
                    raise NoAnswerError(
                        f"the download of {file.name} stopped at {in_words(out.tell())} of "
                        f"{in_words(file.n_bytes)} ({short(error)}): type the same again to go on"
                    ) from error
                broke()
                time.sleep(PAUSE_S)


class _PartialFile(io.BufferedWriter):
    """A file that goes on where it ended and tells how far it is."""

    def __init__(self, path: Path, at: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "a"))
        self._at = at

    def write(self, piece: Any) -> int:
        n_bytes = super().write(piece)
        self._at(self.tell())
        return n_bytes


@contextmanager
def _in_our_way(broke: Callable[[], None]) -> Iterator[None]:
    """The library draws no bars, writes in small pieces, and calls `broke` for its complaints."""
    constants: Any = import_module("huggingface_hub.constants")
    library = utils()

    def own_words(record: logging.LogRecord) -> bool:
        complains = str(record.msg).startswith("Error while downloading")
        if complains:
            broke()
        return not complains

    noisy = logging.getLogger("huggingface_hub.file_download")
    with _one_at_a_time:
        bars, piece = not library.are_progress_bars_disabled(BARS), constants.DOWNLOAD_CHUNK_SIZE
        noisy.addFilter(own_words)
        constants.DOWNLOAD_CHUNK_SIZE = PIECE
        if bars:
            library.disable_progress_bars(BARS)
        try:
            yield
        finally:
            constants.DOWNLOAD_CHUNK_SIZE = piece
            noisy.removeFilter(own_words)
            if bars:
                library.enable_progress_bars(BARS)
