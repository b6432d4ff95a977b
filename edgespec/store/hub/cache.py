"""What is here of the hub: the files of GGUF models in the shared cache, found and removed.

The cache holds, for each repository, `blobs` named after their contents, and for each commit a
folder in `snapshots` with links to them; where links are not possible, the files themselves.
Other programs keep their files there too: only GGUF files are ever touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgespec.errors import ModelFileError, UsageError
from edgespec.files import place
from edgespec.store.hub.names import Spec, choose, lone_parts, models_of, name_of

PREFIX = "models--"
PARTIAL = ".incomplete"  # the ending that older versions of huggingface_hub resume from as well


@dataclass(frozen=True)
class Held:
    """One model in the cache: its files of one commit, in order of their parts."""

    repo: str
    name: str
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """What is opened: the first part."""
        return self.paths[0]

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def folder() -> Path:
    """The shared cache, by HF_HUB_CACHE, HF_HOME or the library's own rule."""
    from huggingface_hub import constants

    return place(constants.HF_HUB_CACHE).resolve()  # as the library does


def repo_folder(repo: str) -> Path:
    """Where a repository's files lie, or would."""
    return folder() / (PREFIX + repo.replace("/", "--"))


def commits(repo: str) -> list[Path]:
    """Folders of the commits that are here: the branch main first, then the newest."""
    base = repo_folder(repo)
    found = [path for path in _listed(base / "snapshots") if path.is_dir()]
    try:
        main = (base / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        main = ""
    return sorted(found, key=lambda path: (path.name != main, -path.stat().st_mtime))


def files(repo: str, commit: Path | None = None) -> list[str]:
    """Names of the GGUF files that are here, of one commit or of all."""
    snapshots = commits(repo) if commit is None else [commit]
    return sorted(
        {
            path.relative_to(snapshot).as_posix()
            for snapshot in snapshots
            for path in snapshot.rglob("*.gguf")
            if path.is_file()
        }
    )


def find(wanted: Spec, *, sha256: str = "") -> Held | None:
    """The wanted model if all its parts are here, and the first is what `sha256` names."""
    for snapshot in commits(wanted.repo):
        try:
            names = choose(files(wanted.repo, snapshot), wanted)
        except UsageError:
            continue
        paths = tuple(snapshot / name for name in names)
        blob = _blob_of(paths[0]).name
        if not sha256 or len(blob) != len(sha256) or blob == sha256:
            return Held(wanted.repo, name_of(names[0]), paths)
    return None


def everything() -> list[Held]:
    """Every model that is here, by name; of several commits the newest."""
    found: dict[tuple[str, str], Held] = {}
    for repo in _repositories():
        for snapshot in commits(repo):
            for name, parts in models_of(files(repo, snapshot)).items():
                paths = tuple(snapshot / part for part in parts)
                found.setdefault((repo, name), Held(repo, name, paths))
    return [found[key] for key in sorted(found)]


def unfinished() -> dict[str, int]:
    """Bytes of downloads that were broken off, finished parts among them, by repository."""
    found = {repo: sum(map(_size, _pieces(repo))) for repo in _repositories()}
    return {repo: n_bytes for repo, n_bytes in found.items() if n_bytes}


def _pieces(repo: str) -> set[Path]:
    """What is here of files and of models that are not here whole."""
    parts = {
        (snapshot / name).resolve()
        for snapshot in commits(repo)
        for name in lone_parts(files(repo, snapshot))
    }
    return parts | set(_partials(repo_folder(repo)))


def _repositories() -> list[str]:
    names = [path.name for path in _listed(folder()) if path.name.startswith(PREFIX)]
    return sorted(name.removeprefix(PREFIX).replace("--", "/", 1) for name in names)


def remove(wanted: Spec) -> int:
    """Delete a repository's GGUF files and unfinished downloads, or one model; bytes freed.

    The folder goes with its last file, finished or not.
    Raises: ModelFileError if something cannot be deleted.
    """
    base = repo_folder(wanted.repo)
    try:
        freed = sum(_remove_name(base, name) for name in _names_of(wanted))
        if not wanted.choice:
            freed += sum(_unlink(path) for path in _partials(base))
        if base.is_dir() and not _partials(base) and not _others(base):
            freed += sum(_size(path) for path in base.rglob("*") if not path.is_dir())
            shutil.rmtree(base)
            shutil.rmtree(folder() / ".locks" / base.name, ignore_errors=True)
    except OSError as error:
        raise ModelFileError(
            f"{error.filename or base} cannot be deleted ({error.strerror}): close what uses it"
        ) from error
    return freed


def _names_of(wanted: Spec) -> Iterable[str]:
    if not wanted.choice:
        return files(wanted.repo)
    chosen: set[str] = set()
    for snapshot in commits(wanted.repo):
        try:
            chosen |= set(choose(files(wanted.repo, snapshot), wanted))
        except UsageError:
            continue
    return sorted(chosen)


def _remove_name(base: Path, name: str) -> int:
    """Delete a file from every commit, and what no other name leads to."""
    freed = 0
    blobs = set()
    for snapshot in _listed(base / "snapshots"):
        path = snapshot / name
        if os.path.lexists(path):
            blobs.add(_blob_of(path))
            freed += _unlink(path)
    used = {_blob_of(path) for path in base.glob("snapshots/**/*") if not path.is_dir()}
    return freed + sum(_unlink(blob) for blob in blobs - used if blob.parent == base / "blobs")


def _blob_of(path: Path) -> Path:
    """What a link leads to, one step only: a blob can itself be a link to a store elsewhere."""
    if not path.is_symlink():
        return path
    return Path(os.path.normpath(path.parent / os.readlink(path)))


def _unlink(path: Path) -> int:
    """Delete one file if it is there; the bytes this frees."""
    if not os.path.lexists(path):
        return 0
    n_bytes = 0 if path.is_symlink() else path.stat().st_size
    path.unlink()
    return n_bytes


def _partials(base: Path) -> list[Path]:
    return [path for path in _listed(base / "blobs") if path.name.endswith(PARTIAL)]


def _others(base: Path) -> bool:
    """Whether any commit has a file left."""
    return any(path.is_file() for path in base.glob("snapshots/**/*"))


def _size(path: Path) -> int:
    return path.lstat().st_size


def _listed(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return []
