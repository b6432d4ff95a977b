"""Deletes what was made or fetched for a pair, but for what another pair that is here has too."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgespec.errors import ModelFileError
from edgespec.store import hub, pairs


def remove(pair: pairs.Pair, cache: Path) -> tuple[int, list[str]]:
    """Delete what was made or fetched for a pair; bytes freed, and what was kept.

    A model stays while another pair that is here has it, too.
    Raises: ModelFileError if something cannot be deleted.
    """
    freed, kept = 0, []
    for entry in dict.fromkeys(one for of in pair.entries for one in (of, of.source)):
        made, is_of_hub = pairs.made(entry, cache), bool(entry.repo and not entry.onnx)
        if not made and not is_of_hub:
            continue
        users = _users(entry, pair, cache)
        if users and (made or hub.held(entry.spec)):
            name = entry.file if is_of_hub else ", ".join(path.name for path in made)
            kept.append(f"{name} ({', '.join(users)})")
        elif is_of_hub:
            freed += hub.remove(entry.spec)
        else:
            freed += sum(map(_delete, made))
    return freed, kept


def _users(entry: pairs.ModelEntry, but: pairs.Pair, cache: Path) -> list[str]:
    """Pairs other than `but` of which this is one model and the other is here.

    A made target has bundled partners, always here: the first of its pairs by name may delete it.
    """
    found = []
    for pair in map(pairs.find, pairs.names()):
        if pair.name == but.name or (entry.pad and pair.name > but.name):
            continue
        partners = [other for other in pair.entries if other != entry]
        if len(partners) == 1 and pairs.is_here(partners[0], cache):
            found.append(pair.name)
    return found


def _delete(path: Path) -> int:
    """Delete a file or folder; the bytes this frees. Raises: ModelFileError."""
    freed = pairs.n_bytes(path)
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be deleted ({error.strerror}): close what uses it"
        ) from error
    return freed
