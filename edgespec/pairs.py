"""Known pairs of target and drafter: their manifests in models/, and the files they name.

A padded pair's target is made from a small one on first use and kept in the cache folder; what
makes it is edgespec.export.padded, loaded for that alone.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from edgespec.errors import ModelFileError, UsageError, is_own, not_installed
from edgespec.types import Progress

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ALIASES = {"padded": "padded-f16"}
PADDED_NOTE = (
    "a padded model is a small trained model with inert weights around it: "
    "it costs what a model of its size costs and says what the small one says"
)


@dataclass(frozen=True)
class ModelEntry:
    """One model of a pair: a bundled file, and how to widen it if `pad` is not empty."""

    file: str
    sha256: str
    pad: str = ""  # a kind that edgespec.export.padded knows


@dataclass(frozen=True)
class Pair:
    """A manifest as read."""

    name: str
    about: str
    licence: str
    vocabulary: str
    target: ModelEntry
    drafter: ModelEntry


def folder() -> Path:
    """Where manifests and bundled files lie: edgespec.models, or models/ of a source tree."""
    try:
        return Path(str(resources.files("edgespec.models")))
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[1] / "models"


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


def parsed(manifest: Mapping[str, Any], name: str) -> Pair:
    """A manifest's table as a Pair. Raises: ModelFileError naming what does not fit."""
    try:
        target, drafter = (ModelEntry(**manifest[part]) for part in ("target", "drafter"))
        words = {key: str(manifest[key]) for key in ("about", "licence", "vocabulary")}
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"manifest {name}.toml is damaged ({error}): reinstall") from error
    return Pair(name, target=target, drafter=drafter, **words)


def bundled(entry: ModelEntry) -> Path:
    """The path of a bundled file. Raises: ModelFileError if it is not there."""
    path = folder() / entry.file
    if not path.is_file():
        raise ModelFileError(
            f"{path} is missing: expected a file that comes with EdgeSpec: reinstall, "
            "or give models with -m and -md"
        )
    return path


def files(pair: Pair, cache: Path, progress: Progress | None = None) -> tuple[Path, Path]:
    """Paths of target and drafter; a padded target is made first if the cache has none.

    progress: told what takes long and the share that is done. Raises: ModelFileError.
    """
    target = bundled(pair.target)
    if pair.target.pad:
        maker = import_module("edgespec.export.padded")
        try:
            target = Path(maker.padded(pair.target.pad, target, cache, progress))
        except ModuleNotFoundError as error:
            if is_own(error):
                raise
            raise not_installed(error) from error
    return target, bundled(pair.drafter)
