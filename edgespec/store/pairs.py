"""Known pairs of target and drafter: their manifests in models/, and the files they name.

A model is bundled, or one of the Hugging Face hub: found in the user's own folder (shelf.py), found
in the hub's cache, or fetched, in this order. Or it is made of one of those on first use: a padded
target, a graph for ONNX Runtime, by an entry point of the package, loaded for that alone.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from edgespec.backends.onnx.folder import DESCRIPTION
from edgespec.config import cache_folder
from edgespec.errors import ModelFileError, UsageError, is_own, not_installed
from edgespec.files import in_words, sha256_of
from edgespec.store import hub, shelf
from edgespec.types import Progress

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger("edgespec")

ALIASES = {"padded": "padded-f16"}
PADDED_NOTE = (
    "a padded model is a small trained model with inert weights around it: "
    "it costs what a model of its size costs and says what the small one says"
)
UNTRIED_NOTE = "not tried by us: names and sizes are as the models' own pages have them"
MAKERS = "edgespec.makers"  # entry points, see pyproject.toml
# How the files of padded models end, where not in their kind and .gguf.
ENDINGS = {"int4": "-int4-b32", "int4-b128": "-int4-b128", "q4_0-fitted": "-q4_0g.gguf"}

MERGED = 4  # sizes of a file that the one with an adapter inside may have, while a graph is made
RECIPE = 2  # counts changes of what graphs are made like, so that no older one is served


@dataclass(frozen=True)
class ModelEntry:
    """One model of a pair: a bundled file, or a repository of the hub and a file in it.

    pad: how a bundled file is widened, if at all. size: bytes of all parts of a hub's file.
    sha256: of a bundled file always; of a hub's file, or its first part, if it is held to one.
    onnx: the precision of the graph that a hub's file is made into, if it is; onnx_size: its bytes.
    taught: a bundled adapter (GGUF) that the graph is made with; rows: a bundled file (npy) of the
    ids that its head is cut to; with their sums. layers: those of the file that are left where it
    was taught with fewer.
    pair: the name of the pair it was read of.
    """

    file: str
    sha256: str = ""
    pad: str = ""  # a kind that the maker knows
    repo: str = ""
    size: int = 0
    onnx: str = ""
    onnx_size: int = 0
    layers: tuple[int, ...] = ()
    taught: str = ""
    taught_sha256: str = ""
    rows: str = ""
    rows_sha256: str = ""
    pair: str = field(default="", compare=False)

    @property
    def spec(self) -> str:
        """What names a hub's file."""
        return f"{self.repo}:{self.file}"

    @property
    def lessons(self) -> dict[str, tuple[str, str]]:
        """What a graph is made with, by the maker's names for it: files and their sums."""
        both = {
            "taught": (self.taught, self.taught_sha256), "rows": (self.rows, self.rows_sha256)
        }  # fmt: skip
        return {what: one for what, one in both.items() if any(one)}

    @property
    def source(self) -> ModelEntry:
        """The file that a graph is made of; itself if it is none."""
        return ModelEntry(self.file, self.sha256, self.pad, self.repo, self.size, pair=self.pair)


@dataclass(frozen=True)
class Pair:
    """A manifest as read; tried: whether we have run it."""

    name: str
    about: str
    licence: str
    vocabulary: str
    target: ModelEntry
    drafter: ModelEntry
    tried: bool = True

    @property
    def entries(self) -> tuple[ModelEntry, ModelEntry]:
        return self.target, self.drafter


@dataclass(frozen=True)
class Held:
    """A hub's model that is here. place: the user's folder, or the hub's cache."""

    paths: tuple[Path, ...]
    place: str

    @property
    def path(self) -> Path:
        """What is opened: the first part."""
        return self.paths[0]

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def held(entry: ModelEntry) -> Held | None:
    """A hub's model if it is in the user's folder or the hub's cache; the network is not asked."""
    paths = shelf.find(entry.file, entry.size, entry.sha256)
    if paths:
        return Held(paths, shelf.VARIABLE)
    here = hub.held(entry.spec, sha256=entry.sha256)
    return None if here is None else Held(here.paths, "the hub's cache")


def folder() -> Path:
    """Where manifests and bundled files lie: edgespec.models, or models/ of a source tree."""
    try:
        return Path(str(resources.files("edgespec.models")))
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / "models"


def names() -> list[str]:
    """Names of all known pairs, sorted."""
    return sorted(manifest.stem for manifest in folder().glob("*.toml"))


def find(name: str) -> Pair:
    """The pair of that name. Raises: UsageError naming the nearest one."""
    known = names()
    name = ALIASES.get(name, name)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        raise UsageError(f"no pair is called {name!r}: {hint} (see `edgespec models list`)")
    return parsed(tomllib.loads((folder() / f"{name}.toml").read_text(encoding="utf-8")), name)


def namesakes(pair: Pair) -> list[Pair]:
    """Other pairs of the same files: used as they are, or made into graphs."""
    sources = [entry.source for entry in pair.entries]
    others = (find(name) for name in names() if name != pair.name)
    return [other for other in others if [entry.source for entry in other.entries] == sources]


def parsed(manifest: Mapping[str, Any], name: str) -> Pair:
    """A manifest's table as a Pair. Raises: ModelFileError naming what does not fit."""
    try:
        tables = (manifest[part] for part in ("target", "drafter"))
        target, drafter = (
            ModelEntry(**{**one, "layers": tuple(one.get("layers", ())), "pair": name})
            for one in tables
        )
        words = {key: str(manifest[key]) for key in ("about", "licence", "vocabulary")}
        for entry in (target, drafter):
            if not (entry.size if entry.repo else entry.sha256):
                raise KeyError("size" if entry.repo else "sha256")
            if entry.onnx and not (entry.repo and entry.sha256 and entry.onnx_size):
                raise KeyError("repo, sha256 or onnx_size")
            if entry.lessons and not entry.onnx:
                raise KeyError("onnx")
            if entry.layers and not entry.taught:
                raise KeyError("taught")
            for what, one in entry.lessons.items():
                if not all(one):
                    raise KeyError(f"{what} or {what}_sha256")
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"manifest {name}.toml is damaged ({error}): reinstall") from error
    tried = manifest.get("tried", True) is True
    return Pair(name, target=target, drafter=drafter, tried=tried, **words)


def bundled(entry: ModelEntry) -> Path:
    """The path of a file that is here: bundled, or fetched before.

    Raises: ModelFileError if it is not there; UsageError if it was not fetched.
    """
    if entry.onnx:
        graph = graph_of(entry, cache_folder())
        if not is_whole(graph):
            raise UsageError(
                f"the graph of {entry.file} is not made yet: type `edgespec models pull "
                f"{entry.pair}`"
            )
        return graph
    if entry.repo:
        here = held(entry)
        if here is None:
            raise UsageError(
                f"{entry.spec} is not downloaded yet: type `edgespec models pull "
                f"{entry.pair or entry.spec}`"
            )
        return here.path
    return _own(entry.file)


def _own(name: str) -> Path:
    """The path of a file that comes with EdgeSpec. Raises: ModelFileError without it."""
    path = folder() / name
    if not path.is_file():
        raise ModelFileError(
            f"{path} is missing: expected a file that comes with EdgeSpec: reinstall, "
            "or give models with -m and -md"
        )
    return path


def used(entry: ModelEntry, cache: Path) -> Path | None:
    """The path that a session opens: of what is made on first use, that; None before.

    Raises: as `bundled`.
    """
    if entry.onnx:
        graph = graph_of(entry, cache)
        return graph if is_whole(graph) else None
    if entry.pad:  # of several recipes the latest is in use
        return max(made(entry, cache), key=lambda path: path.stat().st_mtime, default=None)
    return bundled(entry)


def files(
    pair: Pair, cache: Path, progress: Progress | None = None, *, offline: bool = False
) -> tuple[Path, Path]:
    """Paths of target and drafter; otherwise as `file_of`."""
    for entry in pair.entries:
        if entry.lessons and not is_here(entry, cache):
            lessons_of(entry)  # before the other one is fetched
    target, drafter = (file_of(entry, cache, progress, offline=offline) for entry in pair.entries)
    return target, drafter


def file_of(
    entry: ModelEntry, cache: Path, progress: Progress | None = None, *, offline: bool = False
) -> Path:
    """The path of a model; one that is not here is made or fetched first.

    cache: where what is made is kept. progress: told what takes long and the share that is
    done. Raises: ModelFileError, UsageError, BackendError if the hub or the network fails.
    """
    if entry.onnx:
        return _graph(entry, cache, progress, offline=offline)
    if entry.repo:
        if found := shelf.find(entry.file, entry.size, entry.sha256, progress):
            return found[0]
        return hub.fetch(
            entry.spec,
            offline=offline,
            progress=progress,
            sha256=entry.sha256,
            called=entry.pair,
        )
    path = bundled(entry)
    if not entry.pad:
        return path
    with _extra_needed():
        return Path(_maker("padded")(entry.pad, path, cache, progress))


def _graph(entry: ModelEntry, cache: Path, progress: Progress | None, *, offline: bool) -> Path:
    """The folder made of a hub's file; made now unless it was before."""
    target = graph_of(entry, cache)
    if is_whole(target):
        return target
    check_room(entry, cache)
    with _extra_needed():
        make = _maker("onnx")  # what it needs is missing before anything is fetched
        lessons = lessons_of(entry)
        source = file_of(entry.source, cache, progress, offline=offline)
        size, tell = in_words(entry.onnx_size), progress or (lambda what, share: None)
        log.info("making %s, %s, of %s: it takes minutes, once", target, size, source)
        make(
            entry.onnx,
            source,
            target,
            lambda what, share: tell(f"once ({size}): {what}", share),
            layers=entry.layers,
            **lessons,
        )
    return target


def lessons_of(entry: ModelEntry) -> dict[str, Path]:
    """The files that its graph is made with. Raises: ModelFileError for others, or none."""
    found = {what: _own(name) for what, (name, _) in entry.lessons.items()}
    for what, path in found.items():
        if sha256_of(path) != entry.lessons[what][1]:
            raise ModelFileError(
                f"{path} is not the file the manifest names (its sha256 differs): reinstall "
                "EdgeSpec"
            )
    return found


def graph_of(entry: ModelEntry, cache: Path) -> Path:
    """Where the graph made of a hub's file lies, or will."""
    return cache / f"{_stem(entry)}{RECIPE}"


def _stem(entry: ModelEntry) -> str:
    name = Path(entry.file).stem.lower()
    taught = ""
    if entry.lessons:
        which = repr((entry.layers, entry.taught_sha256, entry.rows_sha256))
        taught = f"-t{hashlib.sha256(which.encode()).hexdigest()[:12]}"
    return f"{name}-{entry.onnx}-{entry.sha256[:12]}{taught}-r"


def is_whole(graph: Path) -> bool:
    """Whether a graph's folder is there; it appears whole, but may have been half deleted."""
    return (graph / DESCRIPTION).is_file()


def check_room(entry: ModelEntry, cache: Path) -> None:
    """Raises: UsageError unless there is room to make a graph, and to fetch its file if need be."""
    merged = MERGED * entry.size if entry.taught else 0
    needed = entry.onnx_size + merged + (0 if held(entry.source) else entry.size)
    free = shutil.disk_usage(next(at for at in (cache, *cache.parents) if at.is_dir())).free
    if free < needed:
        raise UsageError(
            f"{entry.pair} needs {in_words(needed)} more, {in_words(free)} are free in {cache}: "
            "free some (`edgespec models rm`), or set EDGESPEC_HOME to a folder of another disk"
        )


@contextmanager
def _extra_needed() -> Iterator[None]:
    """Around makers. Raises: UsageError where a package is missing that an extra brings."""
    try:
        yield
    except ModuleNotFoundError as error:
        if is_own(error):
            raise
        raise not_installed(error) from error


def _maker(name: str) -> Callable[..., Any]:
    """What makes model files of that name. Raises: UsageError, ModuleNotFoundError."""
    from importlib.metadata import entry_points  # 10 ms that opening what is there need not take

    for found in entry_points(group=MAKERS, name=name):
        maker: Callable[..., Any] = found.load()
        return maker
    raise UsageError(
        f"no maker of {name} models is installed: expected it to come with EdgeSpec: reinstall "
        "(`pip install .` in its source tree)"
    )


def made(entry: ModelEntry, cache: Path) -> list[Path]:
    """What was made for it, by this version or an earlier one that taught it alike."""
    if entry.onnx:
        return sorted(cache.glob(f"{glob.escape(_stem(entry))}*[0-9]"))
    if not entry.pad:
        return []
    ending = ENDINGS.get(entry.pad, f"-{entry.pad}.gguf")
    return sorted(cache.glob(f"padded-{entry.sha256[:12]}-*{ending}"))


def n_bytes(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def is_here(entry: ModelEntry, cache: Path) -> bool:
    """Whether a model is bundled, was made, was fetched or is found; the network is not asked."""
    if entry.onnx:
        return is_whole(graph_of(entry, cache))
    if entry.repo:
        return hub.held(entry.spec) is not None or held(entry) is not None
    return bool(made(entry, cache)) if entry.pad else (folder() / entry.file).is_file()
