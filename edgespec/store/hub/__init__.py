"""Models from the Hugging Face hub: `USER/REPO[:QUANT or FILE]` to a GGUF file on this device.

Files lie in the cache that all programs share (HF_HOME, HF_HUB_CACHE); HF_TOKEN, HF_ENDPOINT and
HF_HUB_OFFLINE hold as the library huggingface_hub reads them. It knows no model and opens none.
Run it: `edgespec models pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M`
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NoReturn

from edgespec.errors import UsageError
from edgespec.store.hub import cache, client, download
from edgespec.store.hub.cache import CachedModel
from edgespec.store.hub.names import PREFERRED, Spec, choose, models_of, quant_of, spec_of
from edgespec.types import Progress

log = logging.getLogger("edgespec")


def fetch(
    spec: str,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    sha256: str = "",
    update: bool = False,
    called: str = "",
) -> Path:
    """The path of a model, of its first part if it has several; downloaded unless it is here.

    What is in the cache is taken without asking the hub, unless `update` or the spec leaves a
    choice that the hub could answer otherwise. progress: told the bytes so far.
    sha256: what the file must have, beyond what the hub says of it. called: what a user types for
    it with `models pull`, if not the spec.
    Raises: UsageError, ModelFileError for a wrong file, BackendError if the hub or network fails.
    """
    wanted = spec_of(spec)
    here = cache.find(wanted, sha256=sha256)
    no_network = "--offline" if offline else "HF_HUB_OFFLINE" if client.is_offline() else ""
    if no_network:
        return here.path if here is not None else _only_here(wanted, no_network, called)
    sure = bool(wanted.choice) or (here is not None and quant_of(here.name) == PREFERRED[0])
    if here is not None and sure and not update:
        return here.path
    try:
        listing = client.listing(wanted.repo)
    except client.NoAnswerError as error:
        if here is None or update:
            raise
        log.warning("%s: taking %s from the cache", error, here.name)
        return here.path
    names = choose(list(listing.files), wanted)
    return download.download(listing, names, sha256, progress)


def held(spec: str, *, sha256: str = "") -> CachedModel | None:
    """The model of that name if it is here; the network is not asked. Raises: UsageError."""
    return cache.find(spec_of(spec), sha256=sha256)


def offers(spec: str, *, offline: bool = False) -> dict[str, int]:
    """The models of a repository by name, and their bytes: the hub's, offline those that are here.

    Raises: UsageError, BackendError.
    """
    repo = spec_of(spec).repo
    if offline or client.is_offline():
        return {one.name: one.n_bytes for one in cache.everything() if one.repo == repo}
    listing = client.listing(repo)
    return {
        name: sum(listing.files[file].n_bytes for file in files)
        for name, files in models_of(list(listing.files)).items()
    }


def remove(spec: str) -> int:
    """Delete a repository's GGUF files from the cache, or one model of it; bytes freed.

    Raises: UsageError, ModelFileError if something cannot be deleted.
    """
    return cache.remove(spec_of(spec))


def _only_here(wanted: Spec, why: str, called: str) -> NoReturn:
    """Raises: UsageError naming what the cache has of that repository."""
    quants = {quant_of(name) or name for name in models_of(cache.files(wanted.repo))}
    others = f"; of it there is {', '.join(sorted(quants))}" if quants else ""
    raise UsageError(
        f"{wanted} is not in the cache {cache.folder()}{others}, and {why} forbids to fetch it: "
        f"type `edgespec models pull {called or wanted}` where there is a network"
    )
