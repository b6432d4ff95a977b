"""What a server could open: the model it began with, and what lies here by other names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgespec.config import Config
from edgespec.server.house import Choice
from edgespec.session import opening
from edgespec.session.embedding import Embeds, is_embedding, open_embedding
from edgespec.session.embedding import needed_bytes as embedding_bytes
from edgespec.session.many.many import N_QUEUE, Answers
from edgespec.session.many.opening import needed_bytes, open_many
from edgespec.store import pairs
from edgespec.store.offers import OF_A_MODEL, Offer, offers
from edgespec.types import Progress

TURNS = [{"role": role, "content": "Hello."} for role in ("system", "user", "assistant", "user")]

Opened = Answers | Embeds


@dataclass(frozen=True)
class How:
    """How models are opened here: see open_many."""

    n_parallel: int = 0
    n_queue: int = N_QUEUE


def opened(config: Config, how: How, progress: Progress | None = None) -> Opened:
    """What answers by the configured target, be it by text or by vectors.

    Raises: as `open_many`.
    """
    path = opening.paths_of(config, progress, drafter=False)[0]
    if is_embedding(path):
        return open_embedding(path, config, progress, n_queue=how.n_queue)
    answers = open_many(config, n_parallel=how.n_parallel, n_queue=how.n_queue, progress=progress)
    return settled(answers)


def settled(answers: Answers) -> Answers:
    """With its template tried: one that cannot write a conversation gives way to another now, and
    not because of what some request says. Closed, if none can.
    """
    try:
        answers.prompt(TURNS)
        answers.template.settled = True
    except BaseException:
        answers.close()
        raise
    return answers


@dataclass(frozen=True)
class First:
    """The model a server began with. again: opens it again, and downloads nothing.

    Implements house.Choice.
    """

    name: str
    config: Config
    again: Callable[[Progress | None], Opened]
    n_parallel: int = 0
    is_kept: bool = True
    missing: str = ""

    def needed_bytes(self) -> int | None:
        """See house.Choice."""
        return needed(replace(self.config, offline=True), self.n_parallel)

    def open(self, progress: Progress) -> Opened:
        """See house.Choice."""
        return self.again(progress)


@dataclass(frozen=True)
class Other:
    """A model that requests name. base: how models are used here. Implements house.Choice."""

    offer: Offer
    base: Config
    how: How
    is_kept: bool = False

    @property
    def name(self) -> str:
        """See Offer."""
        return self.offer.name

    @property
    def missing(self) -> str:
        """See house.Choice."""
        return "" if self.offer.is_here else self.offer.missing

    def needed_bytes(self) -> int | None:
        """See house.Choice."""
        return needed(self.offer.config(self.base), self.how.n_parallel)

    def open(self, progress: Progress) -> Opened:
        """See house.Choice."""
        return opened(self.offer.config(self.base), self.how, progress)


def needed(config: Config, n_parallel: int) -> int | None:
    """Memory that the configured models would take, None if that cannot be told."""
    path = opening.paths_of(config, drafter=False)[0]
    if is_embedding(path):
        return embedding_bytes(path, config)
    return needed_bytes(config, n_parallel=n_parallel)


@dataclass(frozen=True)
class Choices:
    """All of them, as of the moment it is called. others: whether there is more than the first.

    folder: of GGUF files that can be named besides, "" for none.
    """

    first: First
    how: How
    others: bool = True
    folder: str = ""

    def __call__(self) -> Mapping[str, Choice]:
        found: dict[str, Choice] = {self.first.name: self.first}
        if not self.others:
            return found
        base = self.first.config
        for name, offer in offers(Path(self.folder) if self.folder else None).items():
            if name not in found and not is_same(offer, base):
                found[name] = Other(offer, base, self.how)
        return found


def is_same(offer: Offer, config: Config) -> bool:
    """Whether the configuration names the same models."""
    other = offer.config(config)
    config = replace(config, pair=pairs.ALIASES.get(config.pair, config.pair))
    return all(getattr(other, name) == getattr(config, name) for name in OF_A_MODEL)
