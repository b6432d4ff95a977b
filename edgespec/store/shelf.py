"""Models that lie in a folder of the user's, named by EDGESPEC_REAL_MODELS: found, not fetched.

A model that a manifest pins is known by size and SHA-256, whatever its file is called; one that is
not pinned by size and name. A sum is computed once and remembered until the file changes.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from edgespec.config import cache_folder
from edgespec.errors import UsageError
from edgespec.files import place, sha256_of, write_whole
from edgespec.store.hub.names import models_of, name_of
from edgespec.types import Progress

log = logging.getLogger("edgespec")

VARIABLE = "EDGESPEC_REAL_MODELS"
MOST_REMEMBERED = 100


def folder() -> Path | None:
    """The folder, None where the variable names none."""
    named = os.environ.get(VARIABLE, "")
    return place(named) if named else None


def find(
    file: str, n_bytes: int, sha256: str, progress: Progress | None = None
) -> tuple[Path, ...]:
    """The parts of the model that a manifest names; none if it is not there.

    progress: told of a sum that is computed. A file of that name that is another one is logged.
    """
    base = folder()
    if base is None:
        return ()
    there = [path.name for path in base.glob("*.gguf") if path.is_file()]
    for name, parts in models_of(there).items():
        paths = tuple(base / part for part in parts)
        same_name = name.lower() == name_of(file).rpartition("/")[2].lower()
        same_size = sum(path.stat().st_size for path in paths) == n_bytes
        if same_size and (_sum(paths[0], progress) == sha256 if sha256 else same_name):
            return paths
        if same_name:
            log.warning("%s is not what the manifest names: looking elsewhere", paths[0])
    return ()


def _sum(path: Path, progress: Progress | None) -> str:
    """The file's SHA-256, from memory if it was computed since the file changed."""
    status = path.stat()
    key, state = str(path.resolve()), [status.st_size, status.st_mtime_ns]
    known = _remembered()
    if known.get(key, [])[:2] == state:
        return str(known[key][2])
    tell = progress or (lambda what, share: None)
    tell(f"checking {path.name}", 0.0)
    found = sha256_of(path)
    tell(f"checking {path.name}", 1.0)
    known = dict([*known.items(), (key, [*state, found])][-MOST_REMEMBERED:])
    try:
        write_whole(_memory(), json.dumps(known).encode(), ours=True)
    except UsageError as error:
        log.info("%s; the sum is computed again next time", error)
    return found


def _memory() -> Path:
    return cache_folder() / "sums.json"


def _remembered() -> dict[str, list[Any]]:
    try:
        found = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
