"""What can be opened by a name alone: known pairs, tuned ones, models of the hub, a folder's files.

A name is looked up among what is here and never taken for a path; the network is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgespec.config import Config, cache_folder, with_values
from edgespec.errors import UsageError
from edgespec.files import in_words, place
from edgespec.option import MODELS
from edgespec.store import hub, pairs, tuned
from edgespec.store.hub import cache
from edgespec.store.hub.names import asked_by, models_of

log = logging.getLogger("edgespec")
NAMES = ("pair", *MODELS)
# Options that are of one pair of models, and not of how models are used here.
OF_A_MODEL = (*NAMES, "bridge", "chat_template")


@dataclass(frozen=True)
class Offer:
    """values: of Config's options, which open it. n_missing: bytes to fetch or make before, as far
    as they are known; is_here: there are none. pull: what brings them.
    absent: what a tuned pair lacks, if it lacks something.
    """

    name: str
    values: Mapping[str, Any]
    is_here: bool = True
    n_missing: int = 0
    absent: str = ""

    @property
    def pull(self) -> str:
        """What a user types for what is missing."""
        return f"edgespec models pull {self.name}"

    @property
    def missing(self) -> str:
        """What is to be done first, in words."""
        if self.absent:
            return f"needs {self.absent}, which is not here: bring it back, or tune the pair again"
        size = f" ({in_words(self.n_missing)})" if self.n_missing else ""
        return f"has to be fetched or made first{size}: type `{self.pull}`"

    def config(self, base: Config) -> Config:
        """How it is opened where `base` says how models are used; nothing is downloaded."""
        bare = replace(unnamed(base), bridge=Config.bridge, offline=True)
        return with_values(bare, self.values, f"model {self.name}")


def unnamed(config: Config) -> Config:
    """How models are used here: without those that are named, what a tuned pair chose for them,
    and a template of their own.
    """
    own = (*NAMES, "chat_template", *config.settled)
    return replace(config, settled=frozenset(), **{name: getattr(Config, name) for name in own})


def offers(folder: Path | None = None) -> dict[str, Offer]:
    """All of them by name; folder: one more of GGUF files, each by its name without the ending."""
    found: dict[str, Offer] = {}
    for offer in (*_pairs(), *_tuned(), *_of_hub(), *(_files(folder) if folder else ())):
        found.setdefault(offer.name, offer)
    return found


def _pairs() -> Iterator[Offer]:
    for pair in map(pairs.find, pairs.names()):
        missing = [one for one in pair.entries if not pairs.is_here(one, cache_folder())]
        n_missing = sum(one.size + one.onnx_size for one in missing)
        yield Offer(pair.name, {"pair": pair.name}, not missing, n_missing)


def _tuned() -> Iterator[Offer]:
    for name in tuned.names():
        try:
            if (pair := tuned.find(name)) is not None:
                absent = _absent(with_values(Config(), pair.values, name))
                yield Offer(name, pair.values, not absent, absent=absent)
        except UsageError as error:
            log.warning("%s; it is left out", error)


def _absent(config: Config) -> str:
    """The first of the configured models that is not here, "" if all are. Raises: UsageError."""
    pair = pairs.find(config.pair)
    sides = (
        (config.model, config.hf_repo, pair.target),
        (config.draft_model, config.hf_repo_draft, pair.drafter),
    )
    bare = config.model or config.hf_repo  # whose drafter is the one that is named, or none
    for file, repo, entry in sides:
        if file or repo:
            here = place(file).exists() if file else hub.held(repo) is not None
        else:
            here = bool(bare) or pairs.is_here(entry, cache_folder())
        if not here:
            return Path(file).name or repo or config.pair
    return ""


def _of_hub() -> Iterator[Offer]:
    held = cache.everything()
    for one in held:
        asked = asked_by(other.name for other in held if other.repo == one.repo)
        name = f"{one.repo}:{asked[one.name]}"
        yield Offer(name, {"hf_repo": name})


def _files(folder: Path) -> Iterator[Offer]:
    there = [path.name for path in folder.glob("*.gguf") if path.is_file()]
    for name, parts in models_of(there).items():
        yield Offer(Path(name).stem, {"model": str(folder / parts[0])})
