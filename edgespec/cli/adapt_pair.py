"""Which pair `edgespec adapt` is asked about: its files, vocabularies, and what it has learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgespec.adapt import missed
from edgespec.adapt.kept_prompts import KeptPrompts
from edgespec.adapt.learned import file_of
from edgespec.adapt.topic_files import TopicFiles
from edgespec.backends.preview import with_vocabulary
from edgespec.cli.output import show_progress
from edgespec.config import Config, cache_folder, state_folder
from edgespec.drafters.bridges.ngram_file import path_of
from edgespec.drafters.bridges.pairing import difference, vocabulary_of
from edgespec.errors import UsageError
from edgespec.session import adapting
from edgespec.session.opening import file_named
from edgespec.store import pairs
from edgespec.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Opened:
    """Both vocabularies of a pair, and where its n-grams lie."""

    draft: Vocabulary
    target: Vocabulary
    names: tuple[str, str]
    path: Path

    @property
    def about(self) -> str:
        return f"{self.names[0]} -> {self.names[1]}"


def chosen(config: Config) -> tuple[str, ...]:
    """What says which pair is meant."""
    files = config.model, config.draft_model
    return config.pair, *files, config.hf_repo, config.hf_repo_draft


@contextmanager
def opened(config: Config) -> Iterator[Opened | None]:
    """The vocabularies that a configuration names, None if they are the same.

    Raises: UsageError, ModelFileError.
    """
    with ExitStack() as stack:
        draft, target = (
            stack.enter_context(closing(with_vocabulary(path))) for path in paths_of(config)
        )
        one, other = ((side.tokenizer, side.n_vocab) for side in (draft, target))
        if not difference(one, other):
            yield None
            return
        names = draft.path.name, target.path.name
        sides = vocabulary_of(*one), vocabulary_of(*other)
        yield Opened(*sides, names, path_of(state_folder(), *sides))


def spelled(entry: pairs.ModelEntry) -> Path:
    """A file with the model's vocabulary: one that is not made yet has that of what it is made of.

    Raises: as `pairs.bundled`.
    """
    is_made = not entry.onnx or pairs.is_here(entry, cache_folder())
    return pairs.bundled(entry if is_made else entry.source)


def paths_of(
    config: Config, find: Callable[[pairs.ModelEntry], Path] = spelled
) -> tuple[Path, Path]:
    """Files of drafter and target; find: that of a known pair's."""
    draft = file_named(
        config.draft_model, config.hf_repo_draft, "-md", "-hfd", config, show_progress
    )
    target = file_named(config.model, config.hf_repo, "-m", "-hf", config, show_progress)
    if target is None:
        pair = pairs.find(config.pair)
        return draft or find(pair.drafter), find(pair.target)
    if draft is None:
        raise UsageError(f"{target.name} has no drafter: expected one; give it with -md")
    return draft, target


def sources_of(config: Config) -> tuple[Path, Path]:
    """The same; where a pair is made of other files, those."""
    if chosen(config)[1:] != chosen(Config())[1:]:
        return paths_of(config)
    entries = (pairs.find(config.pair).drafter, pairs.find(config.pair).target)
    draft, target = (pairs.bundled(one.source) for one in entries)
    return draft, target


def sides_of(config: Config) -> tuple[str, str]:
    """Of drafter and target as a session opens them, with --lora-draft. Raises: UsageError."""
    return adapting.sides_of(*paths_of(config, used), config.lora_draft)


def used(entry: pairs.ModelEntry) -> Path:
    """What a session opens. Raises: UsageError where it was not made yet."""
    file = pairs.used(entry, cache_folder())
    if file is None:
        raise UsageError(f"{not_made(entry)}; `edgespec models pull {entry.pair}` makes it")
    return file


def unmade(config: Config) -> str:
    """Why nothing can have been learned of files that a pair opens, "" where they are there."""
    if config.model or config.hf_repo:
        return ""
    pair = pairs.find(config.pair)
    entries = [pair.target]
    if not (config.draft_model or config.hf_repo_draft):
        entries.append(pair.drafter)
    gone = (one for one in entries if pairs.used(one, cache_folder()) is None)
    return next(map(not_made, gone), "")


def not_made(entry: pairs.ModelEntry) -> str:
    return (
        f"{entry.pair} is not made of {entry.file} here, so no head and no prompt is known as its"
    )


def prompts_of(config: Config) -> KeptPrompts:
    """What was kept of this pair's prompts. Raises: UsageError."""
    return KeptPrompts(state_folder(), *sides_of(config))


def topics_of(config: Config) -> TopicFiles:
    """The drafter's heads that this pair has learned, by topic. Raises: UsageError."""
    return TopicFiles(state_folder(), *sides_of(config))


def rows_of(config: Config) -> Path:
    """Where the rows are kept that this pair's trimmed head has grown. Raises: UsageError."""
    return file_of(state_folder(), missed.FOLDER, *sides_of(config), missed.ENDING)
